"""A data set from arrays that fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from leanconv.tasks.data.augmentation import ShiftAndFlip
from leanconv.tasks.data.images import ArrayImages, ImageData, normalisation
from leanconv.tasks.data.splitting import limited, stratified_split

if TYPE_CHECKING:
    from leanconv.tasks.recipe import Recipe


@dataclass(frozen=True)
class Arrays:
    """Images and labels as files hold them.

    Args:
        images: uint8 [N, H, W, C] or, grey, [N, H, W].
        labels: int64 [N].
    """

    images: np.ndarray
    labels: np.ndarray


def image_data(
    recipe: Recipe,
    train: Arrays,
    test: Arrays | None,
    *,
    classes: Sequence[str],
    description: str,
    flip: bool,
    image_size: int | None = None,
) -> ImageData:
    """Makes a data set of arrays: split if need be, limited, resized, with shifts by an eighth of the size.

    Args:
        recipe: says `image_size`, `limit`, `augment`, and `mean` and `std` where they aren't the images' own.
        train: to train on; to split, when `test` is None.
        test: to test on.
        classes: the name of each class.
        description: of the source, for people.
        flip: whether the mirror image of a picture is as good as the picture.
        image_size: where the recipe says none; by default that of the images, which then must be square.
    """
    if test is None:
        train, test = (
            Arrays(train.images[positions], train.labels[positions])
            for positions in (part.numpy() for part in stratified_split(torch.from_numpy(train.labels)))
        )
    height, width = train.images.shape[1:3]
    size = recipe.image_size or image_size
    if size is None and height != width:
        raise ValueError(f"image_size must be given for images that aren't square, got {height}×{width} images")
    train_images, train_labels = tensors(train, size or height, recipe.limit)
    test_images, test_labels = tensors(test, size or height, recipe.limit)
    mean, std = normalisation(recipe, *statistics(train_images))
    vary = ShiftAndFlip(padding=max(1, train_images.shape[-1] // 8), flip=flip) if recipe.augment else None
    counts = f"{len(train_labels)} training and {len(test_labels)} test images"
    shape = "×".join(map(str, train_images.shape[1:]))
    return ImageData(
        num_classes=len(classes),
        in_chans=train_images.shape[1],
        image_size=train_images.shape[-1],
        mean=mean,
        std=std,
        classes=tuple(classes),
        train=ArrayImages(train_images, train_labels, mean, std, vary),
        test=ArrayImages(test_images, test_labels, mean, std),
        description=f"{description}: {counts}, {shape}, {len(classes)} classes",
    )


def tensors(arrays: Arrays, size: int, limit: int) -> tuple[Tensor, Tensor]:
    """Images as uint8 [N, C, size, size] and labels as int64 [N], at most `limit` of them."""
    chosen = limited(len(arrays.labels), limit)
    images = torch.from_numpy(np.ascontiguousarray(arrays.images))
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return resized(images[chosen], size), torch.from_numpy(arrays.labels)[chosen]


def resized(images: Tensor, size: int) -> Tensor:
    """Images [N, C, H, W] of uint8 brought to size × size, bilinear, without aliasing when they shrink."""
    if images.shape[-2:] == (size, size):
        return images.contiguous()
    parts = [F.interpolate(part, (size, size), mode="bilinear", antialias=True) for part in images.split(4096)]
    return torch.cat(parts)


def statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel [N, C, H, W], with pixels in 0..1."""
    moments = torch.zeros(2, images.shape[1], dtype=torch.float64)
    for part in images.split(1024):
        pixels = part.double() / 255
        moments += torch.stack([pixels.sum((0, 2, 3)), pixels.square().sum((0, 2, 3))])
    mean, square = moments * images.shape[1] / images.numel()
    std = (square - mean.square()).clamp(min=1e-6).sqrt()  # images of one colour have none
    return tuple(round(value, 4) for value in mean.tolist()), tuple(round(value, 4) for value in std.tolist())
