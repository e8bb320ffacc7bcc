"""The report of a test of depth upsampling."""

from __future__ import annotations

from pathlib import Path

from leanconv.files import make_folder, write, write_csv
from leanconv.report.depth_plot import depth_figure, depth_picture
from leanconv.report.findings import Section, write_findings
from leanconv.report.pictures import INK, STAND_IN, png, svg
from leanconv.tasks.depth.evaluation import Evaluation

SCENES = 3  # in the picture
METHODS = 4  # in the picture: the first and the best of the others


def write_depth_report(evaluation: Evaluation, folder: Path, *, command: str) -> Path:
    """Writes `errors.csv`, a line for each method, seed and scene, `depth.png` and `report.html`.

    Args:
        evaluation: what was tested.
        folder: made if need be.
        command: that makes the page.

    Returns:
        The path of report.html.

    Raises:
        OSError: the folder can't be written.
    """
    make_folder(folder)
    names, errors = evaluation.data.test.names, evaluation.rmse
    rows = [
        (run.method, run.seed, name, error)
        for run in evaluation.runs
        for name, error in zip(names, run.errors, strict=True)
    ]
    write_csv(folder / "errors.csv", ("method", "seed", "scene", "rmse"), rows)
    first, best = next(iter(evaluation.methods)), next(iter(errors))
    shown = [first, *(name for name in errors if name != first)][:METHODS]
    methods = {name: evaluation.methods[name] for name in shown}
    whose = f" Networks are those of seed {evaluation.seeds[0]}." if len(evaluation.seeds) > 1 else ""
    pictures = [
        depth_picture(names[position], evaluation.examples[position], methods)
        for position in range(min(SCENES, len(names)))
    ]
    unit = evaluation.data.unit
    write(folder / "depth.png", png(depth_figure(pictures, unit=unit, ink=INK)))
    path = folder / "report.html"
    write_findings(
        path,
        command=command,
        title=f"Depth, enlarged {evaluation.factor} times",
        lead=f"{best} is nearest to the truth: it is off by {errors[best]:.2f} {unit} (root mean square).",
        sections=[
            Section("How far off each method is", table=evaluation.table()),
            Section(
                "Where they are off",
                [svg(depth_figure(pictures, unit=unit, ink=STAND_IN), "depth and errors")],
                note="Above: the image, what the methods are given, what each makes of it. Below: what was wanted, and "
                f"the errors, in the same colours for all.{whose}",
                wide=True,
            ),
        ],
    )
    return path
