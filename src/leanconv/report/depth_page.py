"""The report of a test of depth upsampling."""

from __future__ import annotations

from pathlib import Path

from leanconv.files import make_folder, write, write_csv
from leanconv.report.depth_plot import depth_figure, depth_picture
from leanconv.report.findings import Section, write_findings
from leanconv.report.pictures import INK, STAND_IN, png, svg
from leanconv.table import Table
from leanconv.tasks.depth.evaluation import Evaluation

SCENES = 3  # in the picture
METHODS = 4  # in the picture: the first and the best of the others


def write_depth_report(evaluation: Evaluation, table: Table, folder: Path, *, command: str) -> Path:
    """Writes `errors.csv`, `depth.png` and `report.html`.

    Args:
        evaluation: what was tested.
        table: of the page.
        folder: made if need be.
        command: that makes the page.

    Returns:
        The path of report.html.

    Raises:
        OSError: the folder can't be written.
    """
    make_folder(folder)
    names = evaluation.data.test.names
    rows = [(name, *errors) for name, errors in evaluation.errors.items()]
    write_csv(folder / "errors.csv", ("method", *names), rows)
    first, *others = evaluation.methods
    shown = [first, *sorted(others, key=lambda name: evaluation.rmse[name])[: METHODS - 1]]
    methods = {name: evaluation.methods[name] for name in shown}
    pictures = [
        depth_picture(names[position], evaluation.examples[position], methods)
        for position in range(min(SCENES, len(names)))
    ]
    unit = evaluation.data.unit
    write(folder / "depth.png", png(depth_figure(pictures, unit=unit, ink=INK)))
    best = min(evaluation.rmse, key=lambda name: evaluation.rmse[name])
    path = folder / "report.html"
    write_findings(
        path,
        command=command,
        title=f"Depth, enlarged {evaluation.factor} times",
        lead=f"{best} is nearest to the truth: it is off by {evaluation.rmse[best]:.2f} {unit} (root mean square).",
        sections=[
            Section("How far off each method is", table=table),
            Section(
                "Where they are off",
                [svg(depth_figure(pictures, unit=unit, ink=STAND_IN), "depth and errors")],
                note="Above: the image, what the methods are given, what each makes of it. Below: what was wanted, and "
                "the errors, in the same colours for all.",
                wide=True,
            ),
        ],
    )
    return path
