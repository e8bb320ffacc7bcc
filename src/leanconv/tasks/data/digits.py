"""Handwritten digits that scikit-learn carries along: 1797 grey images of 8×8 pixels, no download."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from leanconv.tasks.data.memory import Arrays, image_data

if TYPE_CHECKING:
    from leanconv.tasks.data.images import ImageData
    from leanconv.tasks.recipe import Recipe

IMAGE_SIZE = 16  # twice the pixels' own: three stages of a CIFAR network shrink it to 4×4


def digits(recipe: Recipe) -> ImageData:
    """Opens the digits, enlarged to the recipe's image size or 16×16; a fifth of each class is tested on."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # strokes go from 0 to 16
    return image_data(
        recipe,
        Arrays(images, bunch.target.astype(np.int64)),
        None,
        classes=[str(name) for name in bunch.target_names],
        description="handwritten digits of scikit-learn",
        flip=False,
        image_size=IMAGE_SIZE,
    )
