"""Opening images with depth by the name of their source."""

from __future__ import annotations

from pathlib import Path

from leanconv.errors import unknown
from leanconv.tasks.depth.folder import depth_folder
from leanconv.tasks.depth.images import DepthData
from leanconv.tasks.depth.nyu import nyu
from leanconv.tasks.depth_recipe import DepthRecipe

SOURCES = ("depth", "nyu")


def open_depth(
    source: str, *, units_per_metre: float | None = None, bad_images: str = "refuse", limit: int = 0
) -> DepthData:
    """Opens images with depth maps, to train and to test on.

    Args:
        source: "depth:FOLDER", as `depth_folder` and `scenes_in` tell, or "nyu:FILE" for nyu_depth_v2_labeled.mat.
        units_per_metre: how many units of a folder's depth make a metre; None for what the names say.
        bad_images: "refuse" or "skip" scenes of a folder that can't be used, or leave them "unchecked".
        limit: of the scenes to train on, and to test on; 0 for none.

    Raises:
        ValueError: the data isn't there, can't be read or breaks a rule.
    """
    kind, _, place = source.partition(":")
    path = Path(place).expanduser()
    if kind == "depth":
        return depth_folder(path, units_per_metre=units_per_metre, bad_images=bad_images, limit=limit)
    if kind == "nyu":
        if units_per_metre is not None:
            raise ValueError(f"units_per_metre must be None for nyu, whose depth is in metres, got {units_per_metre}")
        return nyu(path, limit=limit)
    raise unknown("source of depth", kind, SOURCES)


def of_recipe(recipe: DepthRecipe, *, progress: bool = True) -> DepthData:
    """Opens the images with depth maps that a recipe names; see `open_depth`. They are few: no bar is needed."""
    return open_depth(
        recipe.data,
        units_per_metre=recipe.units_per_metre,
        bad_images=recipe.bad_images,
        limit=recipe.limit,
    )
