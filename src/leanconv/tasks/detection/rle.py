"""Masks as run lengths, the form in which COCO keeps them: a mask of 640×480 pixels takes some hundred bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# {"size": [height, width], "counts": bytes}, as COCO's tools compress it
Rle = dict[str, Any]


def encoded(mask: np.ndarray) -> Rle:
    """A mask, bool or uint8 [H, W], as run lengths.

    >>> rle = encoded(np.eye(3, dtype=bool))
    >>> area(rle), box(rle), decoded(rle).tolist()
    (3, (0.0, 0.0, 3.0, 3.0), [[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    """
    from faster_coco_eval.core import mask as coco

    return coco.encode(np.asfortranarray(mask, dtype=np.uint8))


def of_numbers(numbers: np.ndarray) -> dict[int, Rle]:
    """The mask of each number but 0 in an image of numbered instances [H, W], all in one pass.

    >>> {number: decoded(rle).tolist() for number, rle in of_numbers(np.array([[0, 7], [7, 9]])).items()}
    {7: [[0, 1], [1, 0]], 9: [[0, 0], [0, 1]]}
    """
    from faster_coco_eval.core import mask as coco

    flat = numbers.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.stack([np.concatenate([[0], edges]), np.concatenate([edges, [flat.size]])], axis=1)
    values = flat[runs[:, 0]]
    order = np.argsort(values, kind="stable")
    present, firsts = np.unique(values[order], return_index=True)
    masks = {}
    for value, own in zip(present.tolist(), np.split(runs[order], firsts[1:]), strict=True):
        if value != 0:
            counts = np.diff(own.ravel(), prepend=0, append=flat.size)  # of 0 and of 1 by turns
            counts = counts if counts[-1] else counts[:-1]
            masks[value] = coco.frPyObjects({"size": list(numbers.shape), "counts": counts.tolist()}, *numbers.shape)
    return masks


def decoded(rle: Rle) -> np.ndarray:
    """The mask, uint8 [H, W] of 0 and 1."""
    from faster_coco_eval.core import mask as coco

    return coco.decode(rle)


def area(rle: Rle) -> int:
    """How many pixels a mask covers."""
    from faster_coco_eval.core import mask as coco

    return int(coco.area(rle))


def box(rle: Rle) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a mask; all the same for an empty one."""
    from faster_coco_eval.core import mask as coco

    left, top, width, height = map(float, coco.toBbox(rle))
    return left, top, left + width, top + height


def of_segmentation(segmentation: Any, height: int, width: int) -> Rle:
    """The mask of a `segmentation` in a COCO file: polygons, or run lengths, compressed or not.

    Raises:
        ValueError: it is none.
    """
    from faster_coco_eval.core import mask as coco

    if reason := reason_against(segmentation, height, width):
        raise ValueError(reason)
    try:
        rle = coco.segmToRle(segmentation, width, height)
        area(rle)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:  # what the C++ behind it raises
        raise ValueError(str(error).partition("\n")[0]) from error
    return rle


def reason_against(segmentation: Any, height: int, width: int) -> str:
    """Why something can't be the mask of an image of that size, as far as that is seen at once; empty if it may be."""
    if isinstance(segmentation, dict):
        size = segmentation.get("size")
        if not isinstance(segmentation.get("counts"), list | str | bytes) or not isinstance(size, Sequence):
            return "run lengths must have a size and counts"
        if list(size) != [height, width]:
            return f"run lengths must have the size of the image, {height}×{width}, got {'×'.join(map(str, size))}"
        return ""
    if not isinstance(segmentation, list) or not segmentation:
        return f"a segmentation must be polygons or run lengths, got {type(segmentation).__name__}"
    return next(filter(None, map(reason_against_polygon, segmentation)), "")


def reason_against_polygon(polygon: Any) -> str:
    """Why something can't be a polygon of a mask; empty if it may be."""
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        return "a polygon must be a list of at least 3 pairs x, y"
    if not all(isinstance(number, int | float) for number in polygon):
        return "a polygon must be of numbers"
    return ""


def good_polygons(segmentation: Any) -> list[list[float]]:
    """The polygons of a mask that can be drawn; none of run lengths."""
    polygons = segmentation if isinstance(segmentation, list) else []
    return [polygon for polygon in polygons if not reason_against_polygon(polygon)]


def other_size(segmentation: Any, height: int, width: int) -> bool:
    """Whether it is run lengths of another size than that."""
    size = segmentation.get("size") if isinstance(segmentation, dict) else None
    return isinstance(size, Sequence) and list(size) != [height, width]
