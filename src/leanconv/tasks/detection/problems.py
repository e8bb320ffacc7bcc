"""What can be wrong with annotated images, and what becomes of it."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """A kind of problem: its name, and what `open_detection` does about it."""

    MISSING = "missing image", "image left out"
    UNREADABLE = "unreadable image", "image left out"
    OTHER_SIZE = "image of another size", "refused"
    NO_FILE = "image without an annotation file", "image left out"
    NO_IMAGE = "annotation without image", "left out"
    NO_INSTANCE = "image without annotations", "kept as a negative, or dropped when asked"
    REPEATED_IMAGE = "image listed twice", "first one kept"
    SAME_PICTURE = "picture in two files", "both kept"
    BROKEN = "broken annotation", "left out"
    CATEGORY = "unknown category", "left out"
    DEGENERATE = "degenerate box", "left out"
    OUTSIDE = "box outside the image", "left out"
    BEYOND = "box across the border", "clipped"
    REPEATED = "annotation repeated", "both kept"
    BROKEN_MASK = "broken mask", "left out"
    OTHER_MASK_SIZE = "mask of another size", "refused"
    NO_MASK = "annotation without mask", "no masks used"

    def __init__(self, title: str, consequence: str) -> None:
        self.title = title
        self.consequence = consequence

    @property
    def harmless(self) -> bool:
        """Whether a data set may have it and be fine."""
        return self is Kind.NO_INSTANCE


class Problem(NamedTuple):
    """One thing that is wrong.

    Attributes:
        kind: of problem.
        file: where it is: an image, or a file of annotations.
        detail: which annotation, and what came; may be empty.
    """

    kind: Kind
    file: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.detail}" if self.detail else self.file
