"""Pictures of where networks find the evidence for a class: class activation maps laid over the images."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from leanconv.measure.evidence import Evidence, evidence
from leanconv.report.pictures import STAND_IN, Picture, svg_as_drawn
from leanconv.report.style import SMALL
from leanconv.tasks.data.images import ImageSet
from leanconv.tasks.specimen import Specimen

COLOURS = matplotlib.colormaps["inferno"]  # as bright as the evidence is strong, to every eye and in print
STRENGTH = 0.55  # of the colours over the image, which is grey below
SIDE = 224  # pixels that a smaller image is enlarged to, at least
CELL, GAP, LINE, MARGIN = 1.35, 0.1, 0.19, 0.08  # inches
RESOLUTION = 120  # pixels an inch in a page, whose size they make


@dataclass(frozen=True)
class Look:
    """What a network sees in images.

    Args:
        images: as it is shown them; their labels are -1 where there are none.
        classes: what it calls its classes; empty where they have no names.
        evidence: found in these images.
    """

    images: ImageSet
    classes: Sequence[str]
    evidence: Evidence

    @classmethod
    def at(cls, specimen: Specimen, layer: str | None = None, target: int | None = None, **options: Any) -> Self:
        """What a specimen's network sees in its images; the arguments are those of `evidence`."""
        found = evidence(specimen.network, specimen.batches(8), layer, target, **options)
        return cls(specimen.images, specimen.info.classes, found)

    def label(self, image: int) -> str:
        """The name of an image's own class; empty where it isn't known."""
        return self._name(int(self.images.labels[image]))

    def chosen(self, image: int) -> str:
        """The name of the class that was looked at in an image."""
        return self._name(int(self.evidence.classes[image]))

    def right(self, image: int) -> bool | None:
        """Whether the class looked at is the image's own; None where that isn't known."""
        return self.chosen(image) == self.label(image) if self.label(image) else None

    def overlay(self, image: int) -> np.ndarray:
        """The class activation map of an image over it, uint8 [height, width, 3]."""
        return overlay(self.images.pixels([image])[0], self.evidence.maps[image])

    def _name(self, number: int) -> str:
        if number < 0:
            return ""
        return self.classes[number] if number < len(self.classes) else str(number)


def overlay(pixels: Tensor, map: Tensor) -> np.ndarray:
    """A class activation map over its image, brought to the image's size, the strongest evidence brightest.

    Args:
        pixels: uint8 [channels, height, width]. A small image is enlarged, its pixels staying squares.
        map: [h, w], at least 0.

    Returns:
        uint8 [height, width, 3].
    """
    image = enlarged(coloured(pixels)).mean(2, keepdims=True)
    smooth = F.interpolate(map[None, None].float(), image.shape[:2], mode="bilinear", align_corners=False)[0, 0]
    strength = smooth / smooth.max().clamp_min(torch.finfo(smooth.dtype).tiny)
    colours = COLOURS(strength.numpy())[:, :, :3]
    return np.round(255 * ((1 - STRENGTH) * (0.15 + 0.7 * image) + STRENGTH * colours)).astype(np.uint8)


def pattern_picture(pattern: Tensor) -> np.ndarray:
    """A pattern of guided backpropagation [channels, height, width], its zero in the middle between black and white."""
    scale = pattern.abs().max().clamp_min(torch.finfo(pattern.dtype).tiny)
    return enlarged(coloured((127.5 + 127.5 * pattern / scale).round().byte()))


def coloured(pixels: Tensor) -> np.ndarray:
    """An image [channels, height, width] of uint8 as floats [height, width, 3] from 0 to 1; grey unless it has RGB."""
    pixels = pixels.float() / 255
    return (pixels if len(pixels) == 3 else pixels.mean(0).expand(3, -1, -1)).permute(1, 2, 0).numpy()


def enlarged(image: np.ndarray) -> np.ndarray:
    """An image whose pixels are squares of as many as it takes to have `SIDE` of them in a row."""
    factor = -(-SIDE // max(image.shape[:2]))
    return image.repeat(factor, 0).repeat(factor, 1)


@dataclass(frozen=True)
class Cell:
    """A picture in a grid, uint8 or 0 to 1 [height, width, 3], and what is written below it."""

    picture: np.ndarray
    caption: str = ""
    bold: bool = False


def cam_figure(looks: Mapping[str, Look], *, rows: int, judged: bool = True, ink: str) -> Figure:
    """The images with their classes, and beside them what each network looks at, how sure it is and whether right.

    Args:
        looks: by the name of a network; all at the same images.
        rows: how many images are shown, from the first.
        judged: whether the networks chose the classes themselves, and are right or wrong.
        ink: colour of the text.
    """
    first = next(iter(looks.values()))
    images = [Cell(enlarged(coloured(first.images.pixels([row])[0])), shortened(first.label(row)))
              for row in range(rows)]
    columns = [("image", images)]
    for name, look in looks.items():
        columns.append((name, [overlay_cell(look, row, judged) for row in range(rows)]))
        if look.evidence.patterns is not None:
            patterns = [Cell(pattern_picture(look.evidence.patterns[row])) for row in range(rows)]
            columns.append(("guided backprop", patterns))
    return grid(columns, ink)


def overlay_cell(look: Look, image: int, judged: bool) -> Cell:
    """The overlay of an image, with the class, its probability and, where that can be said, right or wrong."""
    text = f"{shortened(look.chosen(image))}  {look.evidence.probabilities[image]:.2f}"
    right = look.right(image) if judged else None
    mark = "" if right is None else "✓ " if right else "✗ "
    return Cell(look.overlay(image), mark + text, bold=right is False)


def grid(columns: Sequence[tuple[str, Sequence[Cell]]], ink: str) -> Figure:
    """Columns of pictures, with a title each."""
    titles = ["\n".join(textwrap.wrap(title, 16)) for title, _ in columns]
    head = MARGIN + LINE * max(title.count("\n") + 1 for title in titles)
    step = CELL + LINE + GAP
    width = 2 * MARGIN + len(columns) * CELL + (len(columns) - 1) * GAP
    height = head + len(columns[0][1]) * step + MARGIN
    figure = Figure(figsize=(width, height), dpi=RESOLUTION)

    def write(text: str, left: float, bottom: float, *, bold: bool) -> None:
        figure.text((left + CELL / 2) / width, bottom / height, text, color=ink, fontsize=SMALL, parse_math=False,
                    weight="bold" if bold else "normal", horizontalalignment="center", verticalalignment="bottom")

    for number, (title, (_, cells)) in enumerate(zip(titles, columns, strict=True)):
        left = MARGIN + number * (CELL + GAP)
        write(title, left, height - head + GAP / 2, bold=True)
        for row, cell in enumerate(cells):
            bottom = height - head - row * step - CELL
            axes = figure.add_axes((left / width, bottom / height, CELL / width, CELL / height))
            axes.imshow(cell.picture)
            axes.set_axis_off()
            write(cell.caption, left, bottom - LINE, bold=cell.bold)
    return figure


def cam_picture(looks: Mapping[str, Look], caption: str, *, rows: int, judged: bool = True) -> Picture:
    """The figure for a page, no wider than its pixels allow."""
    return svg_as_drawn(cam_figure(looks, rows=rows, judged=judged, ink=STAND_IN), caption)


def shortened(name: str) -> str:
    """A name that fits below a picture.

    >>> shortened("yellow lady's slipper")
    'yellow lady…'
    """
    return name if len(name) <= 12 else f"{name[:11].rstrip()}…"


def summary(looks: Mapping[str, Look], *, judged: bool = True) -> str:
    """How many of the images each network gets right or, where that can't be said, how many there are."""
    counts = []
    for name, look in looks.items():
        verdicts = [look.right(image) for image in range(len(look.images))]
        if not judged or None in verdicts:
            return f"Grad-CAM of {', '.join(looks)} in {len(verdicts)} images."
        counts.append(f"{name} gets {sum(map(bool, verdicts))} right")
    return f"Of {len(verdicts)} images {', '.join(counts)}."


def how_to_read(looks: Mapping[str, Look], *, judged: bool = True) -> str:
    """What the figure shows, in sentences."""
    layers = {name: look.evidence.layer for name, look in looks.items()}
    if len(set(layers.values())) == 1:
        where = next(iter(layers.values()))
    else:
        where = ", ".join(f"{layer} in {name}" for name, layer in layers.items())
    verdict = "; ✓ where it is the image's own, ✗ where it isn't" if judged else ""
    words = [
        f"The brighter, the more speaks for the class: Grad-CAM of {where}, each picture scaled to its brightest.",
        f"Below: the class and its probability{verdict}.",
    ]
    if any(look.evidence.patterns is not None for look in looks.values()):
        words.append("Guided backpropagation: the pixels that speak for it.")
    return " ".join(words)
