"""Reading one depth map, whatever its form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from leanconv.tasks.data.images import UnreadableImage
from leanconv.tasks.data.pictures import open_picture

DEPTH_SUFFIXES = (".npy", ".pgm", ".png", ".tif", ".tiff")
CM_PER_METRE = 100.0


def read_guidance(path: Path) -> Tensor:
    """An image as uint8 (3, H, W).

    Raises:
        UnreadableImage: the file is missing, empty, cut short or no image.
    """
    return torch.from_numpy(np.array(open_picture(path))).permute(2, 0, 1)


def read_depth(path: Path, units_per_metre: float | None) -> Tensor:
    """A depth map as float32 (1, H, W), in cm, or in the file's own unit where its scale isn't known; holes are 0.

    Args:
        path: of a grey image of 8, 16 or 32 bits, or of an array (.npy).
        units_per_metre: how many of the file's units make a metre: 1000 for millimetres.

    Raises:
        UnreadableImage: the file can't be decoded, or doesn't hold one number for each pixel.
    """
    values = array(path).astype(np.float32)
    values[~(np.isfinite(values) & (values > 0))] = 0
    if units_per_metre is not None:
        values *= CM_PER_METRE / units_per_metre
    return torch.from_numpy(values)[None]


def array(path: Path) -> np.ndarray:
    """The numbers in a file, (H, W).

    Raises:
        UnreadableImage: as `read_depth` says.
    """
    try:
        if path.suffix.lower() == ".npy":
            values = np.load(path)
        else:
            with Image.open(path) as picture:
                # the numbers of a palette aren't depth: they become colours, which are refused below
                values = np.asarray(picture.convert("RGB") if picture.mode == "P" else picture)
    except Exception as error:  # what damaged files raise is up to the decoder
        raise UnreadableImage(f"cannot read the depth {path}: {str(error) or type(error).__name__}") from error
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values.squeeze(0 if values.shape[0] == 1 else 2)
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise UnreadableImage(f"cannot read the depth {path}: it must hold one number for each pixel, got an array of "
                              f"shape {values.shape} and type {values.dtype}")
    return values


def size_of(path: Path) -> tuple[int, int]:
    """Height and width of what a file holds, without decoding an image.

    Raises:
        UnreadableImage: the file is no image, or no array of one number for each pixel.
    """
    if path.suffix.lower() == ".npy":
        height, width = array(path).shape
        return height, width
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except Exception as error:
        raise UnreadableImage(f"cannot read the image {path}: {str(error) or type(error).__name__}") from error
