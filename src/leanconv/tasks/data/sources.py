"""Opening the data that a recipe names."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from leanconv.tasks.data.arrays import npz
from leanconv.tasks.data.digits import digits
from leanconv.tasks.data.downloads import downloaded
from leanconv.tasks.data.folder import image_folder
from leanconv.tasks.data.images import ImageData, ImageInfo

if TYPE_CHECKING:
    from leanconv.tasks.recipe import Recipe


def open_data(recipe: Recipe, *, progress: bool = True) -> ImageData:
    """Opens the images that a recipe names, to train and to test on.

    Args:
        recipe: its keys `data`, `data_root`, `image_size`, `mean`, `std`, `limit`, `bad_images`, `augment` and those
            that say how to vary the images count.
        progress: whether a progress bar may be shown, when checking a folder takes long.

    Raises:
        ValueError: the data isn't there, can't be read or breaks a rule.
    """
    match recipe.data.partition(":")[0]:
        case "digits":
            return digits(recipe)
        case "arrays":
            return npz(recipe)
        case "imagefolder":
            return image_folder(recipe, progress=progress)
        case _:
            return downloaded(recipe)


def prepared_for(data: ImageData, info: ImageInfo) -> ImageData:
    """The data as a network made for other data must see it: normalised with the statistics of that, labelled in the
    order of its classes.

    Raises:
        ValueError: the number of channels or of classes is another, or the classes have other names.
    """
    for name in ("in_chans", "num_classes"):
        came, wanted = getattr(data, name), getattr(info, name)
        if came != wanted:
            raise ValueError(f"{name} of the data must be the network's {wanted}, got {came}")
    same_names = set(data.classes) == set(info.classes)
    if not same_names and named(data) and named(info):
        raise ValueError(
            f"classes of the data must be the network's {', '.join(info.classes)}, got {', '.join(data.classes)}"
        )
    train, test = copy.copy(data.train), copy.copy(data.test)
    for images in (train, test):
        images.mean, images.std = info.mean, info.std
        if same_names:
            images.labels = torch.tensor([info.classes.index(name) for name in data.classes])[images.labels]
    classes = info.classes if same_names or named(info) else data.classes
    return replace(data, train=train, test=test, mean=info.mean, std=info.std, classes=classes)


def named(info: ImageInfo) -> bool:
    """Whether the classes are known by names, not just numbers."""
    return info.classes not in ((), tuple(map(str, range(info.num_classes))))
