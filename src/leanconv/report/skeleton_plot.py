"""The pictures of where kernels have their weight, and of what a network loses with it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from leanconv.measure import KernelSkeleton, ZeroingCurves
from leanconv.report.style import BASELINE_COLOUR, COLOURS, SMALL, Style, finish, panels

SHADES = LinearSegmentedColormap.from_list("magnitude", ["#f4f8fb", "#5fb0dc", "#00486e"])
LIGHT, DARK = "#ffffff", "#1f2328"  # numbers on dark and on light cells
SIDE = 2.3  # inches of a matrix
OUTLINE = "#e07800"
LOOKS = {
    "corner": Style(COLOURS[0], "s"),
    "skeleton": Style(OUTLINE, "D"),
    "global": Style(BASELINE_COLOUR, "o"),
}


def magnitude_figure(skeletons: Mapping[str, KernelSkeleton], *, lightest: float, ink: str) -> Figure:
    """The average kernel magnitude matrices side by side, their values in the cells, the skeleton outlined.

    Args:
        skeletons: by the network's name, at least one; a single one isn't named.
        lightest: the value of the lightest shade; that of the darkest is 1.
        ink: colour of text.
    """
    figure, axes_of_panels = panels(len(skeletons), 3.6, SIDE + 0.5)
    for axes, (name, skeleton) in zip(axes_of_panels, skeletons.items(), strict=True):
        draw_matrix(axes, skeleton, lightest)
        if len(skeletons) > 1:
            title(axes, name, ink)
        axes.set_xlabel(f"{skeleton.share('skeleton'):.1%} on the skeleton", color=ink, fontsize=SMALL)
    return figure


def lightest_of(skeletons: Iterable[KernelSkeleton]) -> float:
    """A tenth that no magnitude is below, so that the shades tell those of all networks apart."""
    smallest = min(skeleton.average.min().item() for skeleton in skeletons)
    return max(0, math.ceil(10 * smallest) - 1) / 10


def draw_matrix(axes: Axes, skeleton: KernelSkeleton, lightest: float) -> None:
    values = skeleton.average.tolist()
    size = len(values)
    axes.pcolormesh(values, cmap=SHADES, vmin=lightest, vmax=1, edgecolors="#ffffff", linewidth=1.5)
    middle = lightest + 0.65 * (1 - lightest)
    letters = min(12.0, 0.34 * 72 * SIDE / size)
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            axes.text(column + 0.5, row + 0.5, f"{value:.2f}", color=LIGHT if value > middle else DARK,
                      fontsize=letters, horizontalalignment="center", verticalalignment="center")  # fmt: skip
    low, high = size // 2, size // 2 + 1
    cross = [(low, 0), (high, 0), (high, low), (size, low), (size, high), (high, high),
             (high, size), (low, size), (low, high), (0, high), (0, low), (low, low), (low, 0)]  # fmt: skip
    axes.plot(*zip(*cross, strict=True), color=OUTLINE, linewidth=2, clip_on=False, solid_joinstyle="miter")
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def zeroing_figure(curves: Mapping[str, ZeroingCurves], *, ink: str) -> Figure:
    """Accuracy against the share of weights set to zero: a panel a network, a line a region, ± a standard deviation.

    Args:
        curves: by the network's name, at least one; a single one isn't named.
        ink: colour of text and axes.
    """
    figure, axes_of_panels = panels(len(curves), 4.4, 3.5)
    for axes, (name, found) in zip(axes_of_panels, curves.items(), strict=True):
        for region in found.regions:
            draw_curve(axes, found, region)
        axes.set_ylim(0, 100)
        finish(axes, ink, "share of each layer's weights set to 0", "top-1 accuracy (%)")
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        if len(curves) > 1:
            title(axes, name, ink)
        axes.legend(loc="lower left", labelcolor=ink, fontsize=SMALL, frameon=False)
    return figure


def draw_curve(axes: Axes, curves: ZeroingCurves, region: str) -> None:
    look = LOOKS[region]
    points = curves.curve(region)
    sparsities = [sparsity for sparsity, _, _ in points]
    low = [100 * max(0.0, mean - spread) for _, mean, spread in points]
    high = [100 * min(1.0, mean + spread) for _, mean, spread in points]
    axes.fill_between(sparsities, low, high, color=look.colour, alpha=0.2, linewidth=0)
    axes.plot(sparsities, [100 * mean for _, mean, _ in points], color=look.colour, marker=look.marker, markersize=4,
              linewidth=1.6, label=region)  # fmt: skip


def title(axes: Axes, name: str, ink: str) -> None:
    """Writes a network's name above its panel."""
    axes.set_title(textwrap.fill(name, 30), color=ink, fontsize=SMALL + 1, parse_math=False)
