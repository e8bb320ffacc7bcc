"""The pictures of how alike the filters of networks are."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from leanconv.measure import LayerSimilarity, Similarity
from leanconv.report.style import SMALL, Style, finish, looks_of, name_models, panels

BINS = 80  # from -1 to 1
NAMED = 24  # layers that there is room to name
COSINE = "cosine similarity"
SHADES = LinearSegmentedColormap.from_list("cosine", ["#e07800", "#ffffff", "#00486e"])  # -1, 0, 1


def similarity_figure(
    similarities: Mapping[str, Similarity], looks: Mapping[str, Style] | None = None, *, ink: str
) -> Figure:
    """How often filters are how alike, all layers together, and their mean in each layer ± its standard error.

    X. Wang and S. X. Yu, *Tied Block Convolution*, AAAI 2021, Figs. 1 and 9. Each layer weighs the same in the
    histogram, however many of its filters were compared.

    Args:
        similarities: by the network's name, at least one.
        looks: a colour and a marker for each; by default one after the other.
        ink: colour of text and axes.
    """
    looks = looks_of(similarities) if looks is None else {name: looks[name] for name in similarities}
    figure, (left, right) = panels(2, 4.8, 3.6)
    ends = [draw_histogram(left, similarity, looks[name]) for name, similarity in similarities.items()]
    left.set_xlim(max(-1, min(low for low, _ in ends) - 0.05), min(1, max(high for _, high in ends) + 0.05))
    left.set_ylim(bottom=0)
    finish(left, ink, COSINE, "share of pairs (%)")
    names = common_layers(similarities.values())
    for name, similarity in similarities.items():
        draw_depth(right, similarity, looks[name], relative=names is None)
    finish(right, ink, "depth (% of the layers)" if names is None else "layer", f"mean {COSINE}")
    if names is not None and len(names) <= NAMED:
        right.set_xticks(range(1, len(names) + 1), names, rotation=60, rotation_mode="anchor",
                         horizontalalignment="right", fontsize=SMALL - 2, parse_math=False)  # fmt: skip
    if len(similarities) > 1:
        name_models(figure, looks, ink)
    return figure


def draw_histogram(axes: Axes, similarity: Similarity, look: Style) -> tuple[float, float]:
    """An outline, with a mark on the axis at the mean; returns where it begins and ends."""
    shares, edges = similarity.histogram(BINS)
    axes.stairs(100 * shares.numpy(), edges.numpy(), color=look.colour, linewidth=1.6)
    axes.plot([similarity.mean], [0], look.marker, color=look.colour, markersize=7, clip_on=False, zorder=3)
    filled = shares.nonzero().flatten().tolist() or [0, BINS - 1]
    return edges[filled[0]].item(), edges[filled[-1] + 1].item()


def draw_depth(axes: Axes, similarity: Similarity, look: Style, *, relative: bool) -> None:
    """The layers' means over their numbers, from 1, or over their share of the depth, up to 100 %."""
    count = len(similarity.layers)
    places = [number * 100 / count if relative else number for number in range(1, count + 1)]
    errors = [0 if math.isnan(layer.error) else layer.error for layer in similarity.layers]
    means = [layer.mean for layer in similarity.layers]
    axes.errorbar(places, means, yerr=errors if any(errors) else None, color=look.colour, marker=look.marker,
                  markersize=5, linewidth=1.6, elinewidth=1.1, capsize=2)  # fmt: skip


def common_layers(similarities: Iterable[Similarity]) -> list[str] | None:
    """The names of the layers; None where networks have different ones."""
    first, *others = [[layer.name for layer in similarity.layers] for similarity in similarities]
    return first if all(names == first for names in others) else None


def matrix_figure(layers: Mapping[str, LayerSimilarity], *, ink: str) -> Figure:
    """The matrices of one layer's similarities a network, side by side, the filters in their order.

    Args:
        layers: by the network's name, at least one.
        ink: colour of text and axes.
    """
    figure, axes_of_panels = panels(len(layers), 3.0, 3.3)
    for axes, (name, layer) in zip(axes_of_panels, layers.items(), strict=True):
        image = axes.imshow(layer.matrix.numpy(), cmap=SHADES, vmin=-1, vmax=1, interpolation="nearest")
        head = "\n".join(textwrap.wrap(name, 26))
        axes.set_title(f"{head}\n{layer.name}", color=ink, fontsize=SMALL, parse_math=False)
        axes.set_xlabel(f"{len(layer.channels)} filters, mean {layer.mean:.3f}", color=ink, fontsize=SMALL)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    scale = figure.colorbar(image, ax=axes_of_panels, shrink=0.7, aspect=14, ticks=np.linspace(-1, 1, 5))
    scale.ax.tick_params(colors=ink, labelsize=SMALL)
    scale.set_label(COSINE, color=ink, fontsize=SMALL)
    scale.outline.set_visible(False)
    return figure


def middle_layers(similarities: Mapping[str, Similarity]) -> dict[str, LayerSimilarity]:
    """A layer of each network from the middle of its depth, with at least two filters: the first network's, by name.

    A network without a layer of that name has its own.
    """
    found: dict[str, LayerSimilarity] = {}
    for name, similarity in similarities.items():
        compared = [layer for layer in similarity.layers if len(layer.channels) > 1]
        if compared:
            wanted = next(iter(found.values())).name if found else ""
            same = [layer for layer in compared if layer.name == wanted]
            found[name] = (same or compared[len(compared) // 2:])[0]
    return found
