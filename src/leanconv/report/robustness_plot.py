"""The picture of what networks know of rotated and flipped images."""

from __future__ import annotations

from matplotlib.figure import Figure

from leanconv.measure import Robustness
from leanconv.report.style import COLOURS, SMALL, finish, panels

NUMBERED = 5  # networks whose bars are wide enough for numbers


def robustness_figure(robustness: Robustness, *, ink: str) -> Figure:
    """Accuracies as bars: a group for upright images and for each distortion, a bar a network.

    Args:
        robustness: of at least one network.
        ink: colour of text and axes.
    """
    distortions = list(next(iter(robustness.accuracies.values())))
    count = len(robustness.accuracies)
    figure, (axes,) = panels(1, 1.2 + 1.2 * len(distortions), 3.6)
    width = 0.8 / count
    for index, (name, accuracies) in enumerate(robustness.accuracies.items()):
        places = [group + (index - (count - 1) / 2) * width for group in range(len(distortions))]
        heights = [100 * accuracies[distortion] for distortion in distortions]
        bars = axes.bar(places, heights, 0.9 * width, color=COLOURS[index % len(COLOURS)], label=name)
        if count <= NUMBERED:
            axes.bar_label(bars, fmt="%.1f", fontsize=SMALL - 1, color=ink, padding=1)
    finish(axes, ink, "", "top-1 accuracy (%)")
    axes.set_xticks(range(len(distortions)), distortions)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    axes.set_axisbelow(True)
    axes.margins(y=0.1)
    if count > 1:
        legend = figure.legend(loc="outside upper center", ncols=3, labelcolor=ink, fontsize=SMALL, frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure
