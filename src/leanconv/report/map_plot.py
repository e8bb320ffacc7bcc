"""The pictures of feature maps that are alike, and of how well one is made from the other."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from leanconv.measure import MapPair, Reconstruction
from leanconv.report.style import COLOURS, SMALL, finish, looks_of, name_models, panels

CELL, GAP, LINE, MARGIN = 1.5, 0.16, 0.22, 0.1  # inches


@dataclass(frozen=True)
class LayerMaps:
    """What a layer gives for one image.

    Args:
        image: [height, width, 3], from 0 to 1.
        maps: (channels, h, w).
        pairs: the most similar ones of the layer, best first.
    """

    image: np.ndarray
    maps: Tensor
    pairs: list[MapPair]


def pairs_figure(found: Mapping[str, LayerMaps], *, ink: str) -> Figure:
    """The most similar feature maps of a layer beside the image that they are of: a row a network.

    K. Han et al., *GhostNet*, CVPR 2020, Fig. 1; Q. Zhang et al., *Split to Be Slim*, IJCAI 2020, Fig. 1. Each map is
    as bright as it is large, from its own least to its largest value.

    Args:
        found: by the network's name, at least one.
        ink: colour of the text.
    """
    most = max(len(maps.pairs) for maps in found.values())
    width = 2 * MARGIN + CELL + most * (2 * CELL + 3 * GAP)
    step = 2 * LINE + CELL + GAP
    height = len(found) * step + MARGIN
    figure = Figure(figsize=(width, height), dpi=120)

    def show(picture: np.ndarray, left: float, bottom: float, colour: str | None) -> None:
        axes = figure.add_axes((left / width, bottom / height, CELL / width, CELL / height))
        axes.imshow(picture, cmap="gray", interpolation="nearest")
        axes.set_axis_off()
        if colour:
            axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, edgecolor=colour, linewidth=3,
                                     clip_on=False))  # fmt: skip

    def write(text: str, left: float, bottom: float, bold: bool = False) -> None:
        figure.text(left / width, bottom / height, text, color=ink, fontsize=SMALL, parse_math=False,
                    verticalalignment="bottom", weight="bold" if bold else "normal")  # fmt: skip

    for row, (name, maps) in enumerate(found.items()):
        bottom = height - (row + 1) * step + LINE
        write(textwrap.shorten(f"{name}: {maps.pairs[0].layer}", 80), MARGIN, bottom + CELL + 0.04, bold=True)
        show(maps.image, MARGIN, bottom, None)
        for number, pair in enumerate(maps.pairs):
            left = MARGIN + CELL + 2 * GAP + number * (2 * CELL + 3 * GAP)
            for place, channel in enumerate((pair.source, pair.target)):
                show(maps.maps[channel].float().numpy(), left + place * (CELL + GAP), bottom, COLOURS[number % 7])
            write(f"{pair.source} and {pair.target}, cosine {pair.similarity:.3f}", left, bottom - LINE)
    return figure


def reconstruction_figure(found: Mapping[str, Reconstruction], *, ink: str) -> Figure:
    """How far the best d × d filter is from making a map from one that is like it: a line a pair of maps.

    Args:
        found: by the network's name, at least one.
        ink: colour of text and axes.
    """
    looks = looks_of(found)
    figure, (axes,) = panels(1, 5.4, 3.4)
    for name, reconstruction in found.items():
        for pair in reconstruction.pairs:
            shares = [100 * pair.relative(size) for size in reconstruction.sizes]
            axes.plot(reconstruction.sizes, shares, color=looks[name].colour, marker=looks[name].marker,
                      markersize=5, linewidth=1.6, alpha=0.85)  # fmt: skip
    finish(axes, ink, "kernel size d", "squared error (% of the map's power)")
    sizes = sorted({size for reconstruction in found.values() for size in reconstruction.sizes})
    axes.set_xticks(sizes, [f"{size} × {size}" for size in sizes])
    axes.set_ylim(bottom=0)
    if len(found) > 1:
        name_models(figure, looks, ink)
    return figure
