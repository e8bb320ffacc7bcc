"""Reading one image file, whatever its form, as RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from leanconv.tasks.data.images import UnreadableImage

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def open_picture(path: Path) -> Image.Image:
    """The picture in a file, fully decoded: grey, CMYK and palettes become RGB, of an animation the first frame stays.

    Raises:
        UnreadableImage: the file is missing, empty, cut short or no image.
    """
    try:
        if path.stat().st_size == 0:
            raise UnreadableImage(f"cannot read the image {path}: the file is empty")
        with Image.open(path) as picture:
            picture.load()
            return as_rgb(picture)
    except UnreadableImage:
        raise
    except Exception as error:  # damaged files make Pillow's decoders raise anything, struct.error and SyntaxError too
        reason = str(error).partition("\n")[0].replace(repr(str(path)), "").rstrip(" :")
        raise UnreadableImage(f"cannot read the image {path}: {reason or type(error).__name__}") from error


def as_rgb(picture: Image.Image) -> Image.Image:
    """The picture in RGB: 16-bit grey is scaled to 8 bits, and what is transparent shows its colour."""
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture).astype(np.uint32) >> 8).clip(max=255).astype(np.uint8))
    if picture.mode == "P":  # straight to RGB would warn of a transparent palette
        picture = picture.convert("RGBA")
    return picture.convert("RGB")
