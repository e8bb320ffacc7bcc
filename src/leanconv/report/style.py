"""How all pictures of a report look."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from leanconv.tasks.comparison import Comparison

# After Okabe and Ito, whose colours colour-blind readers tell apart; made to be seen on white and on black.
COLOURS = ("#0083c4", "#e07800", "#00a078", "#cc6699", "#8a7bd8", "#b89600", "#d1495b")
BASELINE_COLOUR = "#808890"
MARKERS = ("s", "D", "^", "v", "P", "X", "p", "h")
BASELINE_MARKER = "o"
SMALL = 9  # points


@dataclass(frozen=True)
class Style:
    """How an operator looks in every picture: the colours repeat after 7, their pairs with markers after 56."""

    colour: str
    marker: str


def styles(comparison: Comparison) -> dict[str, Style]:
    """A colour and a marker for each operator; the baseline is grey."""
    return looks_of([row.operator for row in comparison.rows], comparison.baseline.operator)


def looks_of(names: Iterable[str], baseline: str | None = None) -> dict[str, Style]:
    """A colour and a marker for each of some networks; grey for the one that the others are compared with."""
    looks = {} if baseline is None else {baseline: Style(BASELINE_COLOUR, BASELINE_MARKER)}
    others = (name for name in names if name != baseline)
    return looks | {
        name: Style(COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]) for index, name in enumerate(others)
    }


def name_models(
    figure: Figure, looks: Mapping[str, Style], ink: str, others: Mapping[str, Line2D] | None = None
) -> None:
    """A legend above the plots, where it can't hide a line.

    Args:
        figure: with a layout.
        looks: of the networks.
        ink: colour of the names.
        others: further marks, by what they mean.
    """
    marks = {name: Line2D([], [], color=look.colour, marker=look.marker, linewidth=1.8) for name, look in looks.items()}
    marks |= others or {}
    legend = figure.legend(list(marks.values()), list(marks), loc="outside upper left", ncols=min(4, len(marks)),
                           frameon=False, fontsize=SMALL, labelcolor=ink)  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


def panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side, each of that width and height in inches."""
    figure = Figure(figsize=(width * count, height), layout=ConstrainedLayoutEngine(w_pad=0.1))
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def finish(axes: Axes, ink: str, horizontal: str, vertical: str) -> None:
    """Names the axes, and gives them two lines, a faint grid and plain numbers."""
    axes.set_xlabel(horizontal, color=ink)
    axes.set_ylabel(vertical, color=ink)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(ink)
    axes.tick_params(which="both", colors=ink, labelsize=SMALL)
    axes.grid(color=ink, alpha=0.13, linewidth=0.7)
    if axes.get_yscale() == "log":
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))
    else:
        axes.ticklabel_format(style="plain", useOffset=False)
