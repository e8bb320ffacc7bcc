"""Images in folders, one folder a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from leanconv.tasks.data.images import ImageData, ImageInfo, ImageSet, normalisation
from leanconv.tasks.data.pictures import SUFFIXES, open_picture
from leanconv.tasks.data.screening import screen
from leanconv.tasks.data.splitting import limited, stratified_split

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image

    from leanconv.tasks.recipe import Recipe

IMAGE_SIZE = 224
TEST_FOLDERS = ("val", "valid", "test")


@dataclass(frozen=True)
class Files:
    """Image files and the class of each."""

    paths: list[Path]
    labels: Tensor

    def __getitem__(self, positions: Tensor) -> Files:
        return Files([self.paths[position] for position in positions], self.labels[positions])


class FileImages(ImageSet):
    """Images that are read when they are needed.

    Args:
        files: where they lie and their labels.
        mean: of each channel, taken off.
        std: of each channel, divided by.
        prepare: makes a uint8 tensor [3, size, size] of an RGB picture.
        erase: replaces parts of normalised images [N, 3, size, size]; None for none.
    """

    def __init__(
        self,
        files: Files,
        mean: Sequence[float],
        std: Sequence[float],
        prepare: Callable[[Image], Tensor],
        erase: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(files.labels, mean, std)
        self.paths = files.paths
        self.prepare = prepare
        self.erase = erase

    def pixels(self, indices: Sequence[int]) -> Tensor:
        return torch.stack([self.prepare(open_picture(self.paths[index])) for index in indices])

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        images, labels = super().batch(indices)
        return images if self.erase is None else self.erase(images), labels


def image_folder(recipe: Recipe, *, progress: bool = True) -> ImageData:
    """Opens `imagefolder:PATH`: PATH/train and PATH/val (or valid, or test), or one folder of class folders.

    Without a folder to test on, a fifth of each class is split off, always the same. Training images are cropped at
    random, mirrored and varied as the recipe says, test images cropped at the centre, by timm's transforms; without a
    mean and deviation in the recipe, ImageNet's hold.

    Raises:
        ValueError: the folder isn't there, holds no images or one class only, or a test class isn't a training class;
            all training images of a class are unreadable; `bad_images` is "refuse" and a file can't be read.
    """
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_transform
    from timm.data.random_erasing import RandomErasing

    root = Path(recipe.data.partition(":")[2]).expanduser()
    classes, train, test = found(root)
    if len(classes) < 2:
        raise ValueError(f"{root} must hold at least 2 classes, got 1: {classes[0]}")
    train, test = (part[limited(len(part.paths), recipe.limit)] for part in (train, test))
    wanted = train.labels.unique().tolist()
    unreadable: tuple[tuple[Path, str], ...] = ()
    if recipe.bad_images != "unchecked":
        bad = screen([*train.paths, *test.paths], refuse=recipe.bad_images == "refuse", progress=progress)
        train, test = (without(part, bad) for part in (train, test))
        unreadable = tuple(sorted(bad.items()))
    for name, part in (("training", train), ("test", test)):
        if not part.paths:
            raise ValueError(f"{root} must hold readable {name} images, got none ({len(unreadable)} unreadable)")
    if lost := [classes[label] for label in wanted if label not in train.labels]:
        raise ValueError(f"each class in {root} must hold readable training images, got none in {', '.join(lost)}")
    size = recipe.image_size or IMAGE_SIZE
    mean, std = normalisation(recipe, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    central = create_transform(size, interpolation="bicubic", normalize=False)
    varied = create_transform(
        size,
        is_training=True,
        scale=recipe.crop_area,
        ratio=recipe.crop_aspect,
        color_jitter=recipe.color_jitter,
        auto_augment=recipe.rand_augment or None,
        mean=mean,
        interpolation="bicubic",
        normalize=False,
    )
    erase = RandomErasing(recipe.erasing, mode="pixel", max_count=recipe.erasing_count, device="cpu")
    return ImageData(
        num_classes=len(classes),
        in_chans=3,
        image_size=size,
        mean=mean,
        std=std,
        classes=classes,
        train=FileImages(train, mean, std, *((varied, erase) if recipe.augment else (central,))),
        test=FileImages(test, mean, std, central),
        description=f"{root.name}: {len(train.paths)} training and {len(test.paths)} test images, "
        f"3×{size}×{size}, {len(classes)} classes",
        unreadable=unreadable,
    )


def file_images(files: Files, info: ImageInfo) -> FileImages:
    """Image files as a network sees them that takes such images: cropped at the centre, in grey if it wants that.

    Raises:
        ValueError: the network's images are neither grey nor in colour.
    """
    from timm.data import create_transform

    if info.in_chans not in (1, 3):
        raise ValueError(f"in_chans of a network for image files must be 1 or 3, got {info.in_chans}")
    central = create_transform(info.image_size, interpolation="bicubic", normalize=False)

    def prepare(picture: Image) -> Tensor:
        return central(picture.convert("L") if info.in_chans == 1 else picture)

    return FileImages(files, info.mean, info.std, prepare)


def found(root: Path) -> tuple[tuple[str, ...], Files, Files]:
    """The names of the classes, the files to train on and those to test on."""
    if not root.is_dir():
        raise ValueError(f"data must name a folder of images, got {root}, which isn't one")
    if not (root / "train").is_dir():
        classes = class_folders(root)
        files = image_files(root, classes)
        train, test = stratified_split(files.labels)
        return classes, files[train], files[test]
    tests = [root / name for name in TEST_FOLDERS if (root / name).is_dir()]
    if not tests:
        raise ValueError(f"{root} must hold one of the folders {', '.join(TEST_FOLDERS)} beside train, got none")
    classes = class_folders(root / "train")
    if strangers := sorted(set(class_folders(tests[0])) - set(classes)):
        raise ValueError(f"every class in {tests[0]} must be one in {root / 'train'}, got {', '.join(strangers)} too")
    return classes, image_files(root / "train", classes), image_files(tests[0], classes, all_classes=False)


def class_folders(root: Path) -> tuple[str, ...]:
    """The names of the folders in a folder, in order."""
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise ValueError(f"{root} must hold one folder for each class, got none")
    return tuple(names)


def image_files(root: Path, classes: Sequence[str], *, all_classes: bool = True) -> Files:
    """The images below each class folder, in order."""
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        inside = sorted(path for path in (root / name).rglob("*") if path.suffix.lower() in SUFFIXES)
        if all_classes and not inside:
            raise ValueError(f"each class folder must hold images ({', '.join(SUFFIXES)}), got none in {root / name}")
        paths += inside
        labels += [label] * len(inside)
    return Files(paths, torch.tensor(labels, dtype=torch.int64))


def without(files: Files, bad: dict[Path, str]) -> Files:
    """The files but for the bad ones."""
    kept = [position for position, path in enumerate(files.paths) if path not in bad]
    return files[torch.tensor(kept, dtype=torch.int64)]
