"""The picture of scores against what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from leanconv.report.labels import name_points
from leanconv.report.style import Style, finish, panels, styles
from leanconv.tasks.comparison import Comparison


@dataclass(frozen=True)
class Point:
    """One operator in one panel: its cost with the quartiles, its score with the spread."""

    operator: str
    cost: float
    low: float
    high: float
    score: float
    spread: float

    def bars(self, axes: Axes) -> list[Bbox]:
        """The pixels that its error bars take."""
        upright = [(self.cost, self.score - self.spread), (self.cost, self.score + self.spread)]
        level = [(self.low, self.score), (self.high, self.score)]
        return [Bbox(axes.transData.transform(bar)).padded(3) for bar in (upright, level)]


def cost_points(comparison: Comparison) -> dict[str, list[Point]]:
    """The points of each panel by the name of its axis: multiply-accumulates, then milliseconds by size of batch.

    Operators without a finished training are left out, and panels without a point.
    """
    rows = [(row, row.score, row.spread or 0.0) for row in comparison.rows if row.score is not None]
    scale, unit = (1e9, "G") if any(row.macs >= 1e9 for row, _, _ in rows) else (1e6, "M")
    points = {
        f"MACs ({unit}) per image": [
            Point(row.operator, row.macs / scale, row.macs / scale, row.macs / scale, score, spread)
            for row, score, spread in rows
        ]
    }
    for batch in comparison.batches:
        timed = [(row.latency[batch], row, score, spread) for row, score, spread in rows if batch in row.latency]
        points[f"ms per image, batch {batch}"] = [
            Point(row.operator, time.median_ms, time.low_ms, time.high_ms, score, spread)
            for time, row, score, spread in timed
        ]
    return {name: found for name, found in points.items() if found}


def cost_figure(comparison: Comparison, points: Mapping[str, Sequence[Point]], *, ink: str) -> Figure:
    """Scores against costs, side by side; bars show the spread over the seeds and the quartiles of the time.

    Args:
        comparison: whose operators they are.
        points: panels, as `cost_points` gives them; at least one.
        ink: colour of text and axes.
    """
    looks = styles(comparison)
    figure, axes_of_panels = panels(len(points), 4.4, 3.3)
    for axes, (name, found) in zip(axes_of_panels, points.items(), strict=True):
        for point in found:
            draw(axes, point, looks[point.operator])
        axes.margins(y=0.18)
        axes.set_xlim(0, 1.12 * max(point.high for point in found))
        finish(axes, ink, name, f"test {comparison.score.title}")
    figure.draw_without_rendering()
    for axes, found in zip(axes_of_panels, points.values(), strict=True):
        bars = [bar for point in found for bar in point.bars(axes)]
        places = [(point.cost, point.score) for point in found]
        name_points(axes, places, [point.operator for point in found], bars, ink=ink)
    return figure


def draw(axes: Axes, point: Point, look: Style) -> None:
    axes.errorbar(
        point.cost,
        point.score,
        xerr=[[point.cost - point.low], [point.high - point.cost]] if point.high > point.low else None,
        yerr=point.spread or None,
        color=look.colour,
        marker=look.marker,
        markersize=7,
        elinewidth=1.3,
        capsize=2.5,
    )
