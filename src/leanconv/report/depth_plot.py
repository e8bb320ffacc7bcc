"""The picture of depth maps enlarged by several methods, and where each is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from leanconv.report.style import SMALL
from leanconv.tasks.depth import Batch, rmse
from leanconv.tasks.depth.methods import Method

PANEL = 2.1  # inches wide
UNKNOWN = "#9aa0a6"  # where no depth is known
FAR_OFF = 99  # the percentile of the errors at which their colours end


@dataclass(frozen=True)
class DepthPicture:
    """One scene as several methods see it.

    Attributes:
        name: of the scene.
        image: (H, W, 3), pixels in 0..1.
        low: what the methods were given, (h, w).
        depth: what was wanted, (H, W); NaN where it isn't known.
        predictions: (H, W) by the name of the method.
        errors: RMSE by the name of the method, of the whole scene without its border.
    """

    name: str
    image: np.ndarray
    low: np.ndarray
    depth: np.ndarray
    predictions: Mapping[str, np.ndarray]
    errors: Mapping[str, float]


@torch.no_grad()
def depth_picture(name: str, example: Batch, methods: Mapping[str, Method]) -> DepthPicture:
    """Runs the methods on an example of one scene.

    Args:
        name: of the scene.
        example: a batch of one.
        methods: by their names.
    """
    low, image, depth = example
    predictions = {method: run(low, image) for method, run in methods.items()}
    return DepthPicture(
        name, image[0].permute(1, 2, 0).numpy(), plane(low), plane(torch.where(depth > 0, depth, torch.nan)),
        {method: plane(prediction) for method, prediction in predictions.items()},
        {method: float(rmse(prediction, depth)) for method, prediction in predictions.items()})


def plane(map: Tensor) -> np.ndarray:
    """A map (1, 1, H, W) as an array."""
    return map[0, 0].float().cpu().numpy()


def depth_figure(pictures: Sequence[DepthPicture], *, unit: str, ink: str) -> Figure:
    """Two rows a scene: image, depth and what each method makes of it; below, what it was given and where it is wrong.

    The colours of a row mean the same in all its panels; beyond the 99th percentile of the errors they are the last.

    Args:
        pictures: at least one, all of the same methods.
        unit: of the depth.
        ink: colour of text.
    """
    columns = 2 + len(pictures[0].predictions)
    heights = [shape[0] / shape[1] for picture in pictures for shape in 2 * [picture.depth.shape]]
    figure = Figure(figsize=(PANEL * columns, sum(PANEL * height + 0.2 for height in heights)),
                    layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0))
    grid = figure.subplots(2 * len(pictures), columns, squeeze=False, height_ratios=heights)
    for picture, above, below in zip(pictures, grid[::2], grid[1::2], strict=True):
        draw(picture, above, below, unit, ink)
    return figure


def draw(picture: DepthPicture, above: Sequence[Axes], below: Sequence[Axes], unit: str, ink: str) -> None:
    """Fills the two rows of a scene."""
    known = np.isfinite(picture.depth)
    depths = Normalize(*np.percentile(picture.depth[known], (0.5, 99.5))) if known.any() else Normalize(0, 1)
    off = {name: np.abs(prediction - picture.depth) for name, prediction in picture.predictions.items()}
    worst = [np.percentile(wrong[known], FAR_OFF) for wrong in off.values() if known.any()]
    errors = Normalize(0, max(worst, default=1.0) or 1.0)
    depth_colours, error_colours = colours("viridis"), colours("magma")
    factor = picture.depth.shape[0] // picture.low.shape[0]
    show(above[0], picture.image, picture.name, ink)
    show(below[0], picture.low, f"given: 1/{factor} of each side", ink, depth_colours, depths)
    show(above[1], picture.depth, "wanted", ink, depth_colours, depths)
    scales(below[1], ((f"depth ({unit})", depth_colours, depths), (f"error ({unit})", error_colours, errors)), ink)
    for axes, beneath, (name, prediction) in zip(above[2:], below[2:], picture.predictions.items(), strict=True):
        show(axes, prediction, name, ink, depth_colours, depths)
        show(beneath, off[name], f"RMSE {picture.errors[name]:.2f} {unit}", ink, error_colours, errors)


def colours(name: str) -> Colormap:
    return matplotlib.colormaps[name].with_extremes(bad=UNKNOWN)


def show(
    axes: Axes, array: np.ndarray, title: str, ink: str, colormap: Colormap | None = None,
    scale: Normalize | None = None,
) -> None:
    """A picture without a frame, its name above."""
    small = colormap is not None and array.shape[1] < 200
    axes.imshow(array, cmap=colormap, norm=scale, interpolation="nearest" if small else "antialiased")
    axes.set_title(title, color=ink, fontsize=SMALL, pad=3)
    axes.axis("off")


def scales(axes: Axes, kinds: Sequence[tuple[str, Colormap, Normalize]], ink: str) -> None:
    """What the colours mean: a bar for each kind, one above the other."""
    axes.axis("off")
    for row, (name, colormap, scale) in enumerate(kinds):
        inset = axes.inset_axes((0.08, 0.68 - 0.42 * row, 0.84, 0.08))
        bar = axes.figure.colorbar(ScalarMappable(scale, colormap), cax=inset, orientation="horizontal")
        bar.outline.set_visible(False)
        bar.ax.tick_params(colors=ink, labelsize=SMALL - 1, length=2, pad=2)
        bar.ax.set_title(name, color=ink, fontsize=SMALL, pad=3)
