"""The picture of how each network learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from leanconv.report.labels import spread_apart
from leanconv.report.style import SMALL, Style, finish, panels, styles
from leanconv.tasks.comparison import Comparison, Row


@dataclass(frozen=True)
class Course:
    """A number that changes from epoch to epoch.

    Args:
        key: of the entries of `Training.curve`.
        name: beside the axis.
        scale: of the axis, "linear" or "log".
    """

    key: str
    name: str
    scale: str

    def of(self, row: Row) -> np.ndarray:
        """Its values in a row's trainings, (trainings, epochs); NaN where there is none."""
        return np.array([training.curve[self.key] for training in row.trainings], dtype=float)


def courses_of(comparison: Comparison) -> tuple[Course, Course]:
    """The numbers that a comparison's trainings have after each epoch."""
    score = Course("test_score", f"test {comparison.score.title}", "linear")
    return score, Course("train_loss", "training loss", "log")


def learning_figure(comparison: Comparison, courses: Sequence[Course] | None = None, *, ink: str) -> Figure:
    """Numbers over the epochs, side by side: a thin line for each training, a thick one for an operator's mean.

    Args:
        comparison: with at least one finished training.
        courses: one a panel; by default those of `courses_of`.
        ink: colour of text and axes.
    """
    looks = styles(comparison)
    courses = courses_of(comparison) if courses is None else courses
    rows = [row for row in comparison.rows if row.trainings]
    figure, axes_of_panels = panels(len(courses), 5.4, 3.3)
    for axes, course in zip(axes_of_panels, courses, strict=True):
        axes.set_yscale(course.scale)
        for row in rows:
            draw(axes, row, course, looks[row.operator])
        if course.scale == "linear":
            axes.set_ylim(second_half(rows, course))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        finish(axes, ink, "epoch", course.name)
    figure.draw_without_rendering()
    for axes, course in zip(axes_of_panels, courses, strict=True):
        ends = {row.operator: float(course.of(row)[:, -1].mean()) for row in rows}
        name_ends(axes, {name: end for name, end in ends.items() if np.isfinite(end)}, looks, ink)
    return figure


def draw(axes: Axes, row: Row, course: Course, look: Style) -> None:
    lines = course.of(row)
    epochs = np.arange(1, lines.shape[1] + 1)
    if len(lines) > 1:
        axes.plot(epochs, lines.T, color=look.colour, linewidth=0.8, alpha=0.45)
    axes.plot(epochs, lines.mean(axis=0), color=look.colour, linewidth=2, marker=look.marker, markevery=[-1])


def second_half(rows: Sequence[Row], course: Course) -> tuple[float, float]:
    """The limits of an axis that leaves out what only the first half of the epochs has, to tell the ends apart."""
    lines = np.concatenate([course.of(row) for row in rows])
    later = lines[:, lines.shape[1] // 2 :]
    margin = 0.05 * max(later.max() - later.min(), 1)
    return float(later.min() - margin), float(later.max() + margin)


def name_ends(axes: Axes, ends: Mapping[str, float], looks: Mapping[str, Style], ink: str) -> None:
    """Writes the operators to the right of where their lines end."""
    last = axes.dataLim.x1
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [to_axes.transform((last, end))[1] for end in ends.values()]
    line_height = 1.35 * SMALL / 72 * axes.figure.dpi / axes.get_window_extent().height
    for (operator, end), height in zip(ends.items(), spread_apart(heights, line_height, 0.02, 0.98), strict=True):
        leader = {"arrowstyle": "-", "color": looks[operator].colour, "relpos": (0, 0.5), "shrinkA": 2, "shrinkB": 4}
        axes.annotate(
            operator, (last, end), (1.04, height), textcoords="axes fraction", verticalalignment="center", color=ink,
            fontsize=SMALL, parse_math=False, annotation_clip=False, arrowprops=leader,
        )  # fmt: skip
