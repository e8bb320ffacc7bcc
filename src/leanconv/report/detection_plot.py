"""Pictures with what is in them and what was found: boxes, names, scores, masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor
from torch.nn import functional as F

from leanconv.report.style import COLOURS

TRUTH = "truth"
WIDTH = 3.6  # inches of one picture
PIXELS = 540  # to which the longer side is shrunk: as much as such a picture shows
LETTERS = 6.2  # points
FADED = 0.22  # how far a photo goes to grey, for colours to stand out
SMALLEST = 0.5  # of the width of its name that a box must measure to be named
FILL = 0.42  # how much of a mask's colour covers the photo

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Shown:
    """A picture, what is in it, and what models found.

    Args:
        image: uint8 [3, H, W].
        truth: a target of `DetectionSet`: boxes, labels and perhaps masks.
        found: what each model found, by its name: also with scores.
    """

    image: Tensor
    truth: Mapping[str, Tensor]
    found: Mapping[str, Mapping[str, Tensor]]


def detection_figure(
    rows: Sequence[Shown], categories: Sequence[str], *, least: float = 0.5, most: int = 100, ink: str
) -> Figure:
    """A grid of pictures, one a row: the truth on the left, then what each model found.

    A category has the same colour everywhere. Names are written where they hide no other name, those of sure finds
    first, and only at boxes that aren't much smaller than they; where there is a single category, its name isn't.

    Args:
        rows: the pictures, with the same models.
        categories: the name of each category, that of label 1 first.
        least: score from which a find is drawn.
        most: finds drawn in a picture, those of the highest scores.
        ink: colour of the text around.

    Raises:
        ValueError: there are no pictures, or they are of different models.
    """
    models = list(rows[0].found) if rows else []
    if not rows or any(list(row.found) != models for row in rows):
        raise ValueError("rows must be at least one, with the same models in each")
    shapes = [row.image.shape[-2:] for row in rows]
    heights = [WIDTH * min(height / width, 1.4) for height, width in shapes]
    columns = 1 + len(models)
    size = WIDTH * columns + 0.1, sum(heights) + 0.24 * len(rows) + 0.3
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03))
    grid = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    colours = colours_of([drawn(each, least, most) for row in rows for each in (row.truth, *row.found.values())])
    for place, (row, line) in enumerate(zip(rows, grid, strict=True)):
        for axes, (name, finds) in zip(line, {TRUTH: row.truth, **row.found}.items(), strict=True):
            chosen = drawn(finds, least, most)
            draw(axes, row.image, chosen, categories, colours)
            if place == 0:
                axes.set_title(name, color=ink, fontsize=10, fontweight="bold", loc="left", parse_math=False)
            axes.set_xlabel(caption(finds, least, most), color=ink, fontsize=7, loc="left", labelpad=2)
    return figure


def caption(finds: Mapping[str, Tensor], least: float, most: int) -> str:
    """How many there are, and how many of them are drawn."""
    if "scores" not in finds:
        return f"{len(finds['boxes'])} instances"
    count = int((finds["scores"] >= least).sum())
    return f"{count} found with a score of {least:g} or more" + (f", the surest {most} drawn" if count > most else "")


def drawn(finds: Mapping[str, Tensor], least: float, most: int) -> dict[str, Tensor]:
    """The finds to draw, the surest first; of the truth all, the largest first."""
    boxes = finds["boxes"].detach().float().cpu()
    if "scores" in finds:
        scores = finds["scores"].detach().float().cpu()
        order = scores.argsort(descending=True)
        order = order[scores[order] >= least][:most]
    else:
        order = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).argsort(descending=True)
    names = ("boxes", "labels", "scores", "masks")
    return {name: finds[name].detach().cpu()[order] for name in names if name in finds}


def colours_of(all_finds: Sequence[Mapping[str, Tensor]]) -> dict[int, str]:
    """A colour for each label, the most frequent ones different."""
    counts = Counter(label for finds in all_finds for label in finds["labels"].tolist())
    return {label: COLOURS[place % len(COLOURS)] for place, (label, _) in enumerate(counts.most_common())}


def draw(
    axes: Axes, image: Tensor, finds: Mapping[str, Tensor], categories: Sequence[str], colours: Mapping[int, str]
) -> None:
    height, width = image.shape[-2:]
    pixels = faded(shrunk(image))
    labels = finds["labels"].tolist()
    if "masks" in finds:
        paint(pixels, finds["masks"], [colours[label] for label in labels])
    axes.imshow(pixels, extent=(0, width, height, 0), interpolation="antialiased")
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    thickness = 0.9 if "masks" in finds else 1.5
    for box, label in zip(finds["boxes"].tolist(), labels, strict=True):
        left, top, right, bottom = box
        frame = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colours[label])
        frame.set(linewidth=thickness, path_effects=[withStroke(linewidth=thickness + 1.1, foreground="#ffffffb0")])
        axes.add_patch(frame)
    names = [categories[label - 1] if len(categories) > 1 else "" for label in labels]
    scores = [f"{score:.2f}" for score in finds["scores"].tolist()] if "scores" in finds else [""] * len(labels)
    texts = [f"{name} {score}".strip() for name, score in zip(names, scores, strict=True)]
    pixel = width / WIDTH / 72 * LETTERS  # of the photo, in a letter's height
    for text, place, label in zip(texts, places(texts, finds["boxes"].tolist(), pixel, width, height), labels,
                                  strict=True):  # fmt: skip
        if text and place is not None:
            axes.text(place[0] + 0.3 * pixel, place[3] - 0.4 * pixel, text, color="white", fontsize=LETTERS,
                      fontweight="bold", verticalalignment="baseline", parse_math=False, clip_on=True,
                      bbox={"boxstyle": "square,pad=0.18", "facecolor": colours[label], "edgecolor": "none",
                            "alpha": 0.92})  # fmt: skip


def shrunk(image: Tensor) -> np.ndarray:
    """The picture with at most `PIXELS` on its longer side, float [H, W, 3] in 0..1."""
    pixels = image.float()[None] / 255
    scale = PIXELS / max(image.shape[-2:])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in image.shape[-2:]]
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
    return pixels[0].permute(1, 2, 0).clamp(0, 1).numpy()


def faded(pixels: np.ndarray) -> np.ndarray:
    """The picture with less colour."""
    grey = pixels.mean(axis=2, keepdims=True)
    return pixels + FADED * (grey - pixels)


def paint(pixels: np.ndarray, masks: Tensor, colours: Sequence[str]) -> None:
    """Lays masks [n, H, W] or [n, 1, H, W] over a picture, the first ones on top, each with a line around it."""
    masks = masks[:, 0] if masks.ndim == 4 else masks
    size = pixels.shape[:2]
    for mask, colour in reversed(list(zip(masks, colours, strict=True))):
        small = F.interpolate(mask[None, None].float(), size, mode="bilinear", antialias=True)
        inside = small >= 0.5
        inner = -F.max_pool2d(-inside.float(), 3, 1, 1) > 0.5
        area, line = inside[0, 0].numpy(), (inside & ~inner)[0, 0].numpy()
        pixels[area] += FILL * (np.array(to_rgb(colour)) - pixels[area])
        pixels[line] = to_rgb(colour)


def places(
    texts: Sequence[str], boxes: Sequence[Sequence[float]], letter: float, width: float, height: float
) -> list[Corners | None]:
    """Where to write the name of each box: above it, in it or below it.

    None where other names are, and where the name would hide much more than the box.
    """
    taken: list[Corners] = []
    found: list[Corners | None] = []
    for text, (left, top, right, bottom) in zip(texts, boxes, strict=True):
        wide, tall = (0.62 * len(text) + 0.6) * letter, 1.5 * letter
        near, far = (min(max(x, 0), max(width - wide, 0)) for x in (left, right - wide))
        corners = [(near, top - tall), (near, top), (far, top - tall), (far, bottom - tall), (near, bottom)]
        spots = [(x, y, x + wide, y + tall) for x, y in corners if y >= 0 and y + tall <= height]
        if max(right - left, bottom - top) < SMALLEST * wide:
            spots = []
        spot = next((spot for spot in spots if not any(overlap(spot, name) for name in taken)), None)
        found.append(spot)
        taken += [] if spot is None else [spot]
    return found


def overlap(one: Corners, other: Corners) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
