"""The command that tests networks on rotated and flipped images: robustness."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanconv.cli.options import DEFAULT_BUILD, Build
from leanconv.cli.output import bar, show
from leanconv.cli.sight import DEFAULT_SIGHT, Sight, specimens
from leanconv.files import make_folder, write, write_csv

if TYPE_CHECKING:
    from leanconv.measure import Robustness

USUAL = 1000  # images


def robustness(
    *models: str,
    sight: Sight = DEFAULT_SIGHT,
    build: Build = DEFAULT_BUILD,
    out: Path = Path("runs/robustness"),
) -> None:
    """Tests networks on images as they are, rotated by 90° and by 180°, and flipped up-down.

    Strengthened kernel skeletons should lose less, says the paper of asymmetric convolutions.

    For example:

        leanconv robustness runs/compare/dense/seed-0 runs/compare/asymmetric/seed-0
        leanconv robustness resnet18 resnet50 --pretrained --data imagefolder:photos --limit 0

    Args:
        models: Folders of finished trainings, checkpoints, or names that `leanconv models` knows.
        out: Folder for the picture, the numbers and the report.
    """
    from leanconv import measure

    found = specimens(models, sight, build, usual=USUAL, labelled=True)
    make_folder(out)
    accuracies: dict[str, Any] = {}
    for specimen in found:
        with bar(f"testing {specimen.name}") as step:
            tested = measure.robustness({specimen.name: specimen.network}, specimen.batches(), progress=step)
        accuracies |= tested.accuracies
        result = measure.Robustness(accuracies, tested.images)
        rows = [[name, distortion, value, result.difference(name, distortion), result.images]
                for name, values in accuracies.items() for distortion, value in values.items()]
        write_csv(out / "robustness.csv", ["model", "images are", "accuracy", "difference", "images"], rows)
    show(result, f"report: {write_page(result, out)}")


def write_page(result: Robustness, out: Path) -> Path:
    """Writes robustness.png and report.html."""
    from leanconv.report.findings import Section, write_findings
    from leanconv.report.pictures import INK, STAND_IN, png, svg
    from leanconv.report.robustness_plot import robustness_figure

    write(out / "robustness.png", png(robustness_figure(result, ink=INK)))
    picture = svg(robustness_figure(result, ink=STAND_IN), "Accuracy on upright, rotated and flipped images")
    write_findings(
        out / "report.html",
        command="robustness",
        title="Robustness to rotation",
        lead=headline(result),
        sections=[Section("Accuracy on distorted images", [picture], result.table(), wide=True)],
    )
    return out / "report.html"


def headline(result: Robustness) -> str:
    """Which network loses the least, on the mean of the distortions."""
    losses = {}
    for name, values in result.accuracies.items():
        differences = [result.difference(name, distortion) for distortion in list(values)[1:]]
        losses[name] = -100 * sum(differences) / len(differences)
    best = min(losses, key=lambda name: losses[name])
    kept = "loses the least" if len(losses) > 1 else "loses"
    return f"{best} {kept}: {losses[best]:.1f} percentage points of accuracy on average over the distortions."
