"""What a set of labelled images is, wherever it comes from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Dataset

if TYPE_CHECKING:
    from leanconv.tasks.recipe import Recipe


class UnreadableImage(ValueError):
    """An image file that can't be decoded; the message names it and the reason."""


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """What a network must know of the images that it is made for.

    Attributes:
        num_classes: how many classes there are.
        in_chans: channels of an image: 1 for grey, 3 for colour.
        image_size: height and width in pixels.
        mean: of each channel, with pixels in 0..1; a network sees (pixel - mean) / std.
        std: of each channel.
        classes: the name of each class.
    """

    num_classes: int
    in_chans: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]


class ImageSet(Dataset, ABC):
    """Images as a network sees them, with their labels: `images[0]` is (float tensor [C, H, W], int).

    Args:
        labels: int64 [N], each from 0 to the number of classes - 1.
        mean: of each channel, taken off.
        std: of each channel, divided by.
        vary: augments a uint8 batch [N, C, H, W] with random numbers from the global generators; None for none.
    """

    def __init__(
        self,
        labels: Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        vary: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.labels = labels
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.vary = vary

    @abstractmethod
    def pixels(self, indices: Sequence[int]) -> Tensor:
        """The raw images at these positions, uint8 [N, C, H, W]."""

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The images at these positions, varied and normalised, float [N, C, H, W], and their labels [N].

        Raises:
            UnreadableImage: one of them can't be decoded.
        """
        pixels = self.pixels(indices)
        pixels = pixels if self.vary is None else self.vary(pixels)
        scale = 255 * torch.tensor(self.std)[:, None, None]
        shift = 255 * torch.tensor(self.mean)[:, None, None]
        return (pixels - shift) / scale, self.labels[list(indices)]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        images, labels = self.batch([range(len(self))[index]])
        return images[0], int(labels[0])

    def __len__(self) -> int:
        return len(self.labels)


class ArrayImages(ImageSet):
    """Images that lie in memory as one uint8 tensor [N, C, H, W]; the other arguments are those of `ImageSet`."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        vary: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(labels, mean, std, vary)
        self.images = images

    def pixels(self, indices: Sequence[int]) -> Tensor:
        return self.images[list(indices)]


@dataclass(frozen=True, kw_only=True)
class ImageData(ImageInfo):
    """A data set, opened: what `ImageInfo` tells, and the images.

    Attributes:
        train: images to train on, augmented when the recipe asks for it.
        test: images to test on, never augmented.
        description: a line for people.
        unreadable: files that were left out, each with the reason.
    """

    train: ImageSet
    test: ImageSet
    description: str
    unreadable: tuple[tuple[Path, str], ...] = ()

    @property
    def info(self) -> ImageInfo:
        """All but the images: small, and what a checkpoint keeps."""
        return ImageInfo(**{name: getattr(self, name) for name in ImageInfo.__dataclass_fields__})


def normalisation(
    recipe: Recipe, mean: Sequence[float], std: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and deviation of each channel that a recipe gives or, where it gives none, the source's own.

    Raises:
        ValueError: the recipe's are for another number of channels.
    """
    if not recipe.mean:
        return tuple(mean), tuple(std)
    if len(recipe.mean) != len(mean):
        rule = f"must be empty or have {len(mean)} numbers, one a channel"
        raise ValueError(f"recipe key 'mean' {rule}, got {recipe.mean}")
    return recipe.mean, recipe.std
