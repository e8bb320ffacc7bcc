"""The command that shows where networks look: cam."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from leanconv.cli.options import DEFAULT_BUILD, Build
from leanconv.cli.output import bar, show
from leanconv.cli.sight import DEFAULT_SIGHT, Sight, specimens
from leanconv.cli.words import Switch
from leanconv.files import make_folder, write, write_csv
from leanconv.table import Table

if TYPE_CHECKING:
    from leanconv.report.cam_plot import Look
    from leanconv.tasks.specimen import Specimen

ROWS = 12  # of the panel at most; overlays are made of all images
USUAL = 6  # images


def cam(
    *models: str,
    layer: str | None = None,
    target: str | None = None,
    guided: Switch = False,
    sight: Sight = DEFAULT_SIGHT,
    build: Build = DEFAULT_BUILD,
    out: Path = Path("runs/cam"),
) -> None:
    """Shows where in images networks find the evidence for a class, by Grad-CAM: pictures, a table and a report.

    Several networks are shown side by side, at the same images.

    For example:

        leanconv cam runs/dense runs/tied --limit 8
        leanconv cam resnet50 --pretrained --images photos --guided
        leanconv cam runs/tied --target 3 --layer layer2.2

    Args:
        models: Names that `leanconv models` knows, "module:callable", "file.py:callable" or checkpoints.
        layer: Path of the layer whose maps are taken; by default the last that gives maps of more than a pixel.
        target: Name or number of the class to look at; by default each image's most probable.
        guided: Show guided backpropagation too, which sees finer parts.
        out: Folder for cam.png, cam.csv, report.html, and the overlays, one PNG file an image and network.
    """
    from leanconv.report.cam_plot import Look

    found = specimens(models, sight, build, usual=USUAL)
    targets = [None if target is None else class_number(target, specimen) for specimen in found]
    looks: dict[str, Look] = {}
    for specimen, number in zip(found, targets, strict=True):
        with bar(f"looking with {specimen.name}") as step:
            looks[specimen.name] = Look.at(specimen, layer, number, guided=guided, progress=step)
        write_overlays(looks[specimen.name], out / "overlays" / re.sub(r"[^\w.-]", "-", specimen.name))
    columns = ["image", "model", "class", "probability", "label"]
    rows = [
        [image + 1, name, look.chosen(image), look.evidence.probabilities[image].item(), look.label(image)]
        for image in range(len(found[0].images))
        for name, look in looks.items()
    ]
    write_csv(out / "cam.csv", columns, rows)
    table = Table(columns, [[*row[:3], f"{row[3]:.3f}", row[4] or "–"] for row in rows])
    show(table, f"report: {write_page(looks, table, guided, judged=target is None, out=out)}")


def class_number(target: str, specimen: Specimen) -> int:
    """The number of a class that is named or numbered.

    Raises:
        ValueError: the network has no such class.
    """
    info = specimen.info
    if target in info.classes:
        return info.classes.index(target)
    if target.isdecimal() and int(target) < info.num_classes:
        return int(target)
    named = f", or one of {', '.join(info.classes)}" if info.classes else ""
    raise ValueError(
        f"target must be a class of {specimen.name}, from 0 to {info.num_classes - 1}{named}, got {target!r}"
    )


def write_overlays(look: Look, folder: Path) -> None:
    """Writes a PNG file an image, numbered from 1."""
    from PIL import Image

    make_folder(folder)
    for image in range(len(look.images)):
        file = io.BytesIO()
        Image.fromarray(look.overlay(image)).save(file, "png")
        write(folder / f"{image + 1}.png", file.getvalue())


def write_page(looks: dict[str, Look], table: Table, guided: bool, judged: bool, out: Path) -> Path:
    """Writes cam.png and report.html."""
    from leanconv.report.cam_plot import cam_figure, cam_picture, how_to_read, summary
    from leanconv.report.findings import Section, write_findings
    from leanconv.report.pictures import INK, png

    rows = min(ROWS, len(next(iter(looks.values())).images))
    write(out / "cam.png", png(cam_figure(looks, rows=rows, judged=judged, ink=INK)))
    panel = cam_picture(looks, "Class activation maps", rows=rows, judged=judged)
    write_findings(
        out / "report.html",
        command="cam",
        title=f"Where {' and '.join(looks)} look{'s' if len(looks) == 1 else ''}",
        lead=summary(looks, judged=judged),
        sections=[Section("Grad-CAM", [panel], table, how_to_read(looks, judged=judged), wide=True)],
    )
    return out / "report.html"
