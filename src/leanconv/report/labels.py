"""Where to write the name of a point so that no name hides another, a marker or an error bar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from leanconv.report.style import SMALL

# Offsets in points, the nearest first: beside the point where there is room, further off on a thin line where not.
DIRECTIONS = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)]
OFFSETS = [(distance * x, distance * y) for distance in (8, 16, 28, 42, 58) for x, y in DIRECTIONS]
NEAR = 16


def name_points(
    axes: Axes, points: Sequence[tuple[float, float]], names: Sequence[str], taken: Sequence[Bbox] = (), *, ink: str
) -> None:
    """Writes each name beside its point: at the first offset that is free, or else where it hides the least.

    Call it when everything else is drawn and the limits of the axes are final.

    Args:
        axes: of a figure whose layout is done.
        points: (x, y) in the units of the data.
        names: one a point.
        taken: boxes in pixels to keep free, besides a box around every point.
        ink: the colour of the names and of the lines that lead to them.
    """
    figure = cast(Figure, axes.figure)
    renderer = FigureCanvasAgg(figure).get_renderer()
    pixels = figure.dpi / 72
    places = axes.transData.transform(np.asarray(points, dtype=float).reshape(-1, 2))
    markers = [Bbox.from_extents(x - 5 * pixels, y - 5 * pixels, x + 5 * pixels, y + 5 * pixels) for x, y in places]
    inside = axes.get_window_extent(renderer)
    busy = [*markers, *taken]
    for index in sorted(range(len(names)), key=lambda index: -places[index][1]):
        note = axes.annotate(names[index], points[index], (0, 0), textcoords="offset points", color=ink)
        note.set_parse_math(False)
        note.set_fontsize(SMALL)
        note.set_in_layout(False)
        boxes = []
        for offset in OFFSETS:
            anchor(note, offset)
            boxes.append(note.get_window_extent(renderer).padded(1.5 * pixels))
        best = min(range(len(OFFSETS)), key=lambda choice: (hidden(boxes[choice], busy, inside), choice))
        anchor(note, OFFSETS[best])
        busy.append(boxes[best])
        if max(map(abs, OFFSETS[best])) > NEAR:
            leader = {"arrowstyle": "-", "color": ink, "alpha": 0.4, "shrinkA": 0, "shrinkB": 5}
            line = axes.annotate("", points[index], OFFSETS[best], textcoords="offset points", arrowprops=leader)
            line.set_in_layout(False)


def anchor(note, offset: tuple[float, float]) -> None:
    """Moves a name to an offset, holding it by the side that faces its point."""
    x, y = offset
    note.set_position(offset)
    note.set_horizontalalignment("left" if x > 0 else "right" if x < 0 else "center")
    note.set_verticalalignment("bottom" if y > 0 else "top" if y < 0 else "center")


def hidden(box: Bbox, busy: Sequence[Bbox], inside: Bbox) -> float:
    """Pixels of the box that lie on something or, worse, outside of the axes."""
    overlaps = (Bbox.intersection(box, other) for other in busy)
    within = Bbox.intersection(box, inside)
    outside = area(box) - (area(within) if within else 0.0)
    return round(10 * outside + sum(area(overlap) for overlap in overlaps if overlap), 3)


def area(box: Bbox) -> float:
    return float(box.width * box.height)


def spread_apart(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Moves positions on a line as little as it takes to stand a gap apart between two ends, their order kept.

    >>> spread_apart([0.0, 10.0, 11.0, 30.0], 4.0, low=0.0, high=28.0)
    [0.0, 8.5, 12.5, 28.0]
    """

    def centre(group: list[int]) -> float:
        middle, half = sum(positions[index] for index in group) / len(group), gap * (len(group) - 1) / 2
        return max(min(middle, high - half), low + half)

    groups: list[list[int]] = []  # neighbours that touch become one group
    for index in sorted(range(len(positions)), key=lambda index: positions[index]):
        group = [index]
        while groups and centre(group) - centre(groups[-1]) < gap * (len(group) + len(groups[-1])) / 2:
            group = groups.pop() + group
        groups.append(group)
    moved = list(positions)
    for group in groups:
        for place, index in enumerate(group):
            moved[index] = centre(group) + gap * (place - (len(group) - 1) / 2)
    return moved
