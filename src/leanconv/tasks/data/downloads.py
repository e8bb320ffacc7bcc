"""CIFAR-10, CIFAR-100 and Fashion-MNIST, from a local folder or downloaded through torchvision."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leanconv.tasks.data.memory import Arrays, image_data

if TYPE_CHECKING:
    from leanconv.tasks.data.images import ImageData
    from leanconv.tasks.recipe import Recipe

NAMES = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "fashion-mnist": "FashionMNIST"}


def downloaded(recipe: Recipe) -> ImageData:
    """Opens one of torchvision's small data sets, after downloading it if the data root lacks it.

    Raises:
        ValueError: the data root lacks it and it can't be downloaded.
    """
    train, test = (found_or_downloaded(recipe, train=part) for part in (True, False))
    return image_data(
        recipe,
        *(Arrays(np.asarray(part.data), np.asarray(part.targets, dtype=np.int64)) for part in (train, test)),
        classes=train.classes,
        description=NAMES[recipe.data],
        flip=True,
    )


def found_or_downloaded(recipe: Recipe, *, train: bool) -> Any:
    from torchvision import datasets

    kind = getattr(datasets, NAMES[recipe.data])
    root = recipe.data_root or cache_folder()
    try:
        return kind(root, train=train, download=False)
    except RuntimeError:  # what torchvision raises when the files aren't there
        pass
    try:
        return kind(root, train=train, download=True)
    except (OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"data {recipe.data!r} isn't in {root} and can't be downloaded there ({reason}): "
            "set data_root to a folder that has it as torchvision lays it out"
        ) from error


def cache_folder() -> Path:
    """Where downloads go when the recipe doesn't say."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leanconv"
