"""What a source of annotated images holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from leanconv.tasks.detection.problems import Problem
from leanconv.tasks.detection.scenes import Scene


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


def size_of(path: Path) -> tuple[int, int] | None:
    """Height and width that the head of an image file tells; None if it can't be read."""
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except Exception:  # damaged files make Pillow's decoders raise anything
        return None
