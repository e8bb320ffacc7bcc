"""What a source of annotated images holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image

from leanconv.tasks.detection.problems import Kind, Problem
from leanconv.tasks.detection.scenes import Scene

TURNED = range(2, 9)  # EXIF orientations; some tools heed them, so none can know what annotations mean


@dataclass(frozen=True)
class Source:
    """All images of a source, with what is wrong with them.

    Attributes:
        name: for people.
        categories: the names of the categories; label 1 is the first.
        category_ids: the number of each in the source's own files, with gaps perhaps.
        train: the images to train on.
        test: those to test on; None where the source doesn't say.
        has_masks: whether every instance has one.
        problems: that were found while reading; pictures weren't decoded for it.
    """

    name: str
    categories: tuple[str, ...]
    category_ids: tuple[int, ...]
    train: Sequence[Scene]
    test: Sequence[Scene] | None
    has_masks: bool
    problems: Sequence[Problem]

    @property
    def scenes(self) -> list[Scene]:
        """The images to train on and those to test on."""
        return [*self.train, *(self.test or ())]

    @property
    def variety(self) -> str:
        """How many categories there are, for people."""
        count = len(self.categories)
        return f"1 category, {self.categories[0]}" if count == 1 else f"{count} categories"


def masked(scenes: Sequence[Scene]) -> bool:
    """Whether there are instances, and every one has a mask."""
    return all(scene.segmentations is not None for scene in scenes) and any(len(scene.boxes) for scene in scenes)


def size_of(path: Path) -> tuple[int, int] | Problem:
    """Height and width that the head of an image file tells; else what is wrong with it."""
    try:
        with Image.open(path) as picture:
            return upright_size(picture, path.name)
    except Exception:  # damaged files make Pillow's decoders raise anything
        return Problem(Kind.UNREADABLE if path.is_file() else Kind.MISSING, path.name)


def upright_size(picture: Image.Image, name: str) -> tuple[int, int] | Problem:
    """Height and width of the picture in a file of that name; that it is turned, if so."""
    if (orientation := orientation_of(picture)) in TURNED:
        todo = "write the file anew without it, its pixels the way up that the annotations have"
        return Problem(Kind.TURNED, name, f"EXIF orientation {orientation}: {todo}")
    return picture.height, picture.width


def orientation_of(picture: Image.Image) -> object:
    """How metadata want a picture shown, as the head of its file tells; 1 is upright."""
    try:
        return Image.Image.getexif(picture).get(ExifTags.Base.Orientation, 1)  # that of PNG would decode the pixels
    except Exception:  # damaged metadata; the pixels may be sound
        return 1
