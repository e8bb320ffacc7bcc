"""What can be wrong with annotated images, and what becomes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """A kind of problem: its name, and what `open_detection` does about it."""

    MISSING = "missing image", "image left out"
    UNREADABLE = "unreadable image", "image left out"
    TURNED = "image turned by its metadata", "image left out"
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
    BROKEN_POLYGON = "broken polygon beside good ones", "left out"
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


def commonest(problems: Sequence[Problem]) -> str:
    """The kind of problem that there is most of, with its first place, to end an error with; empty without problems.

    >>> commonest([Problem(Kind.MISSING, "1.png"), Problem(Kind.MISSING, "2.png"), Problem(Kind.NO_FILE, "3.png")])
    '; most often: missing image (2), as 1.png'
    """
    if not problems:
        return ""
    [(kind, count)] = Counter(problem.kind for problem in problems).most_common(1)
    first = next(problem for problem in problems if problem.kind is kind)
    return f"; most often: {kind.title} ({count}), as {first}"
