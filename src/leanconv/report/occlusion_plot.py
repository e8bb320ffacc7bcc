"""The picture of how scores fall where instances hide one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from leanconv.report.style import Style, finish, looks_of, name_models
from leanconv.tasks.detection.occlusion import FEW, TITLES, Group, OcclusionStudy

LEAST_RANGE = 10  # percent that an axis spans at least, so that small differences look small


class Panel(NamedTuple):
    """One of the plots.

    Attributes:
        measure: a name in `OcclusionStudy.measures`.
        bins: whether the images are in bins of their ratio, or all from a ratio up.
    """

    measure: str
    bins: bool

    @property
    def title(self) -> str:
        return f"{TITLES[self.measure]} {'by overlap ratio' if self.bins else 'from an overlap ratio up'}"

    def groups(self, study: OcclusionStudy) -> Sequence[Group]:
        """The groups of images along its axis."""
        return study.bins if self.bins else study.thresholds


def panels_of(study: OcclusionStudy) -> list[Panel]:
    """Bins and thresholds side by side, for each score."""
    return [Panel(measure, bins) for measure in study.measures for bins in (True, False)]


def occlusion_figure(study: OcclusionStudy, panels: Sequence[Panel] | None = None, *, ink: str) -> Figure:
    """Scores over the overlap ratio, a line for each model; hollow marks where there are few images.

    Args:
        study: what was found.
        panels: which plots, two in a row; by default all.
        ink: colour of text and axes.
    """
    panels = panels_of(study) if panels is None else panels
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.4 * columns, 3.5 * rows), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
    looks = looks_of(study.models, study.models[0] if len(study.models) > 1 else None)
    axes_of_panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in axes_of_panels[len(panels) :]:
        axes.remove()
    for axes, panel in zip(axes_of_panels, panels, strict=False):
        draw(axes, panel, study, looks, ink)
        if len(panels) > 1:
            axes.set_title(panel.title, color=ink, fontsize=10, loc="left")
    few = any(group.few for panel in panels for group in panel.groups(study))
    hollow = Line2D([], [], color=ink, marker="o", markerfacecolor="white", linestyle="none")
    name_models(figure, looks, ink, {f"fewer than {FEW} images": hollow} if few else None)
    return figure


def draw(axes: Axes, panel: Panel, study: OcclusionStudy, looks: Mapping[str, Style], ink: str) -> None:
    groups = panel.groups(study)
    places = np.arange(len(groups))
    few = np.array([group.few for group in groups])
    values = {model: np.array([100 * group.scores[model][panel.measure] for group in groups]) for model in looks}
    for model, look in looks.items():
        heights = values[model]
        axes.plot(places, heights, color=look.colour, linewidth=1.8, zorder=2)
        for chosen, face in ((~few, look.colour), (few, "white")):
            axes.plot(places[chosen], heights[chosen], look.marker, color=look.colour, markerfacecolor=face,
                      markeredgewidth=1.5, markersize=6, zorder=3)  # fmt: skip
    axes.set_xlim(-0.4, len(groups) - 0.6)
    axes.set_ylim(limits(np.concatenate(list(values.values()))))
    finish(axes, ink, "overlap ratio r, and images", f"{TITLES[panel.measure]} (%)")
    axes.set_xticks(places, [f"{label(group)}\n{group.images}" for group in groups])
    axes.grid(visible=False, axis="x")


def label(group: Group) -> str:
    """The range of a group, short."""
    if group.high is None:
        return str(group).replace("r ", "")
    return f"{group.low:g}–{group.high:g}"


def limits(values: np.ndarray) -> tuple[float, float]:
    """Where an axis begins and ends, with some room, within 0 to 100 percent."""
    values = values[np.isfinite(values)]
    if not values.size:
        return 0, 100
    low, high = values.min(), values.max()
    room = max(0.12 * (high - low), (LEAST_RANGE - (high - low)) / 2, 1)
    return max(low - room, -2), min(high + room, 102)
