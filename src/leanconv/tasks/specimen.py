"""A network and the images that it is looked at with: what similarity, Grad-CAM, zeroing and robustness start from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from leanconv.tasks.data import ImageInfo, ImageSet, open_data
from leanconv.tasks.data.folder import Files, file_images
from leanconv.tasks.data.pictures import SUFFIXES
from leanconv.tasks.data.screening import screen
from leanconv.tasks.data.sources import prepared_for
from leanconv.tasks.recipe import Recipe

UNLABELLED = -1


@dataclass(frozen=True)
class Specimen:
    """A network and the images that it is looked at with.

    Attributes:
        name: as plots and tables call it.
        network: in evaluation mode.
        info: what the network knows of its images.
        images: prepared as the network sees them; their labels are -1 where there are none.
    """

    name: str
    network: nn.Module
    info: ImageInfo
    images: ImageSet

    def batches(self, batch_size: int = 32) -> Batches:
        """The images and their labels in batches, read when they are needed, as often as they are gone through."""
        return Batches(self.images, batch_size)


class Batches:
    """Batches (images [N, C, H, W], labels [N]) of a set of images, in order.

    Args:
        images: the set.
        size: images at once.
    """

    def __init__(self, images: ImageSet, size: int) -> None:
        self.images = images
        self.size = size

    def __len__(self) -> int:
        return -(-len(self.images) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.images), self.size):
            yield self.images.batch(range(start, min(start + self.size, len(self.images))))


class Selection(ImageSet):
    """Some images of a set.

    Args:
        images: the set.
        positions: of the images, in the order wanted.
    """

    def __init__(self, images: ImageSet, positions: Sequence[int]) -> None:
        super().__init__(images.labels[list(positions)], images.mean, images.std)
        self.images = images
        self.positions = positions

    def pixels(self, indices: Sequence[int]) -> Tensor:
        return self.images.pixels([self.positions[index] for index in indices])


def sample(
    info: ImageInfo, recipe: Recipe, limit: int, *, seed: int = 0, labelled: bool = True, progress: bool = True
) -> ImageSet:
    """Test images of a data set as a network sees them, drawn at random.

    Args:
        info: what the network knows of its images.
        recipe: says where they come from.
        limit: at most so many; 0 for all, in order.
        seed: of the draw.
        labelled: whether the network must tell the same classes apart. Where it doesn't, labels are -1.
        progress: whether a bar may be shown when the reading takes long.

    Raises:
        ValueError: the data can't be read, or don't suit the network.
    """
    data = open_data(replace(recipe, image_size=info.image_size), progress=progress)
    if labelled or set(data.classes) == set(info.classes):
        images = prepared_for(data, info).test
    elif data.in_chans != info.in_chans:
        raise ValueError(f"in_chans of the data must be the network's {info.in_chans}, got {data.in_chans}")
    else:
        images = data.test
        images.mean, images.std = info.mean, info.std
        images.labels = torch.full_like(images.labels, UNLABELLED)
    drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:limit] if limit else None
    return images if drawn is None else Selection(images, drawn.tolist())


def pictures(info: ImageInfo, paths: Sequence[Path], *, progress: bool = True) -> ImageSet:
    """Image files as a network sees them, cropped at the centre; of a folder all images below it.

    Grey, CMYK, palettes and animations (their first frame) are taken, whatever their size.

    Raises:
        ValueError: a path isn't there, a folder holds no image, or a file can't be read.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ValueError(f"images must be files or folders, got {path}: there is none of that name")
        files = sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not files:
            raise ValueError(f"{path} must hold images ({', '.join(SUFFIXES)}), got none")
        found += files
    screen(found, refuse=True, progress=progress)
    return file_images(Files(found, torch.full((len(found),), UNLABELLED)), info)
