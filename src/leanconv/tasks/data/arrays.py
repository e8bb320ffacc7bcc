"""Images and labels from .npz files, never unpickled."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leanconv.tasks.data.memory import Arrays, image_data

if TYPE_CHECKING:
    from leanconv.tasks.data.images import ImageData
    from leanconv.tasks.recipe import Recipe

KEYS = ("images", "labels", "test_images", "test_labels", "classes")


def npz(recipe: Recipe) -> ImageData:
    """Opens `arrays:FILE.npz` or `arrays:TRAIN.npz,TEST.npz`.

    A file holds `images`, uint8 [N, H, W, C] or [N, H, W], and `labels`, whole numbers [N]; it may hold `test_images`,
    `test_labels` and the names `classes`. Without test images a fifth of each class is split off, always the same.

    Raises:
        ValueError: a file can't be read, or holds something else; the message says what must hold and what came.
    """
    paths = recipe.data.partition(":")[2].split(",")
    if len(paths) > 2:
        raise ValueError(f"data must name one .npz file, or one to train on and one to test on, got {recipe.data!r}")
    first = read(Path(paths[0]))
    train = checked(first, "images", "labels", paths[0])
    test = None
    if len(paths) == 2:
        test = checked(read(Path(paths[1])), "images", "labels", paths[1])
    elif "test_images" in first or "test_labels" in first:
        test = checked(first, "test_images", "test_labels", paths[0])
    count = class_count(train.labels, paths[0])
    if test is not None:
        check_match(train, test, count, paths[-1])
    return image_data(
        recipe,
        train,
        test,
        classes=class_names(first, count, paths[0]),
        description=", ".join(Path(path).name for path in paths),
        flip=True,
    )


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file that this source knows."""
    try:
        with open(path, "rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ValueError("it is a single array")
            return {key: file[key] for key in KEYS if key in file}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"cannot read {path} as an .npz file of plain arrays: {reason}") from error


def checked(file: dict[str, np.ndarray], images_key: str, labels_key: str, path: str) -> Arrays:
    """The images and labels under these keys, when they are what they must be."""
    for key in (images_key, labels_key):
        if key not in file:
            raise ValueError(f"{path} must hold the array {key!r}, got {sorted(file)}")
    images, labels = file[images_key], file[labels_key]
    rule = f"{images_key!r} in {path} must be uint8 of shape N,H,W or N,H,W,C with at most 4 channels C"
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and not 1 <= images.shape[3] <= 4):
        raise ValueError(f"{rule}, got {images.dtype} of shape {images.shape}")
    if images.size == 0:
        raise ValueError(f"{rule}, and not empty, got shape {images.shape}")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{labels_key!r} in {path} must be whole numbers of shape {images.shape[:1]}, one for each image, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    return Arrays(images, labels.astype(np.int64))


def class_count(labels: np.ndarray, path: str) -> int:
    """The number of classes K, when the labels are 0 to K - 1 and each occurs."""
    present = np.unique(labels)
    if present[0] != 0 or present[-1] != len(present) - 1:
        raise ValueError(
            f"'labels' in {path} must be 0 to K - 1 for K classes, each at least once, "
            f"got {len(present)} different ones from {present[0]} to {present[-1]}"
        )
    if len(present) < 2:
        raise ValueError(f"'labels' in {path} must be of at least 2 classes, got 1")
    return len(present)


def check_match(train: Arrays, test: Arrays, count: int, path: str) -> None:
    """Raises a `ValueError` unless the test images are like the training images and of their classes."""
    if test.images.shape[1:] != train.images.shape[1:]:
        raise ValueError(
            f"the test images in {path} must have the shape of the training images, "
            f"{train.images.shape[1:]}, got {test.images.shape[1:]}"
        )
    if test.labels.min() < 0 or test.labels.max() >= count:
        raise ValueError(
            f"the test labels in {path} must be from 0 to {count - 1}, as the training labels are, "
            f"got {test.labels.min()} to {test.labels.max()}"
        )


def class_names(file: dict[str, np.ndarray], count: int, path: str) -> list[str]:
    """The names that the file gives, or the numbers."""
    names = file.get("classes", np.arange(count))
    if names.shape != (count,):
        raise ValueError(f"'classes' in {path} must be {count} names, one a class, got shape {names.shape}")
    return [str(name) for name in names]
