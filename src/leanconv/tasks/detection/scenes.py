"""An image and the instances in it, cleaned: what every source of annotated images is read into."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from leanconv.tasks.detection import rle
from leanconv.tasks.detection.problems import Kind, Problem

THINNEST = 0.01  # pixels; files give coordinates with two decimals
ROUNDING = 1.0  # pixels by which a box may cross the border without anyone having meant it

Box = tuple[float, float, float, float]


class Instance(NamedTuple):
    """One object as a file describes it.

    Attributes:
        name: of the annotation, for people.
        box: left, top, right, bottom in pixels.
        label: of its category, 1 to K.
        area: in pixels; None for that of the mask or, without one, of the box.
        crowd: whether it is a region of many objects: not learned, and what is found in it counts neither way.
        segmentation: polygons or run lengths, as in COCO's files; None without a mask.
    """

    name: str
    box: Box
    label: int
    area: float | None = None
    crowd: bool = False
    segmentation: Any = None


@dataclass(frozen=True, eq=False)
class Scene:
    """An image and the instances in it.

    Attributes:
        image_id: its number, different for each image of a set.
        path: of the file.
        height: in pixels.
        width: in pixels.
        boxes: float64 [n, 4]: left, top, right, bottom in pixels.
        labels: int64 [n], 1 to K.
        areas: float64 [n], in pixels.
        crowd: bool [n]; see `Instance`.
        segmentations: the n of `Instance`, pickled: a hundred million Python numbers, as in the polygons of COCO, would
            take gigabytes, and again so in each process that reads images ahead. None when one has no mask.
    """

    image_id: int
    path: Path
    height: int
    width: int
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    segmentations: bytes | None

    def masks(self) -> list[rle.Rle]:
        """The masks as run lengths.

        Raises:
            ValueError: there are none, or one can't be decoded.
        """
        if self.segmentations is None:
            raise ValueError(f"the instances of {self.path} must have masks, got some without")
        try:
            return [rle.of_segmentation(each, self.height, self.width) for each in pickle.loads(self.segmentations)]
        except ValueError as error:
            raise ValueError(f"every mask of {self.path} must be readable: {error}") from error

    def sound(self, problems: list[Problem]) -> Scene:
        """The image without the instances whose masks can't be decoded, which go to `problems`."""
        if self.segmentations is None:
            return self
        segmentations = pickle.loads(self.segmentations)
        sound = np.ones(len(segmentations), dtype=bool)
        for position, each in enumerate(segmentations):
            try:
                rle.decoded(rle.of_segmentation(each, self.height, self.width))
            except ValueError as error:
                sound[position] = False
                problems.append(Problem(Kind.BROKEN_MASK, self.path.name, f"instance {position + 1}: {error}"))
        if sound.all():
            return self
        return replace(
            self,
            boxes=self.boxes[sound],
            labels=self.labels[sound],
            areas=self.areas[sound],
            crowd=self.crowd[sound],
            segmentations=pickle.dumps(list(compress(segmentations, sound))),
        )


def scene(
    image_id: int,
    path: Path,
    size: tuple[int, int],
    instances: Iterable[Instance],
    problems: list[Problem],
) -> Scene:
    """An image with those instances that can be used; what is wrong with the others goes to `problems`.

    Boxes that cross the border by more than a pixel are clipped; those that lie outside, or are thinner than 0.01
    pixels, are left out. So are instances whose mask is broken or of another size, and single polygons that can't be
    drawn.

    Args:
        image_id: of the image.
        path: of the file.
        size: height and width of the image.
        instances: as the file describes them.
        problems: what is found is added here.
    """
    height, width = size
    kept: list[Instance] = []
    for instance in instances:
        found, kinds = mended(instance, height, width)
        for kind in kinds:
            corners = ", ".join(f"{number:g}" for number in instance.box)
            problems.append(Problem(kind, path.name, f"{instance.name}, corners {corners} in {width}×{height}"))
        if found is not None:
            kept.append(found)
    if not kept:
        problems.append(Problem(Kind.NO_INSTANCE, path.name))
    for name in repeated(kept):
        problems.append(Problem(Kind.REPEATED, path.name, name))
    masked = all(instance.segmentation is not None for instance in kept)
    boxes = np.array([instance.box for instance in kept], dtype=np.float64).reshape(-1, 4)
    return Scene(
        image_id,
        path,
        height,
        width,
        boxes,
        np.array([instance.label for instance in kept], dtype=np.int64),
        np.array([instance.area for instance in kept], dtype=np.float64),
        np.array([instance.crowd for instance in kept], dtype=bool),
        pickle.dumps([instance.segmentation for instance in kept]) if masked else None,
    )


def mended(instance: Instance, height: int, width: int) -> tuple[Instance | None, list[Kind]]:
    """An instance as it can be used, with its area, and what was wrong with it; None if it can't be used."""
    box, kind = clipped(instance.box, height, width)
    kinds = [] if kind is None else [kind]
    if kind in (Kind.DEGENERATE, Kind.OUTSIDE):
        return None, kinds
    segmentation, area = instance.segmentation, instance.area
    if rle.other_size(segmentation, height, width):
        return None, [*kinds, Kind.OTHER_MASK_SIZE]
    if segmentation is not None and rle.reason_against(segmentation, height, width):
        segmentation = rle.good_polygons(segmentation)
        if not segmentation:
            return None, [*kinds, Kind.BROKEN_MASK]
        kinds.append(Kind.BROKEN_POLYGON)
    if area is None:
        try:
            area = box_area(box) if segmentation is None else rle.area(rle.of_segmentation(segmentation, height, width))
        except ValueError:
            return None, [*kinds, Kind.BROKEN_MASK]
    return instance._replace(box=box, area=area, segmentation=segmentation), kinds


def clipped(box: Box, height: int, width: int) -> tuple[Box, Kind | None]:
    """A box within an image, and what was wrong with it.

    >>> clipped((-5, 2, 10, 8), 20, 30), clipped((5, 2, 30.4, 8), 20, 30)
    (((0.0, 2, 10, 8), <Kind.BEYOND: ('box across the border', 'clipped')>), ((5, 2, 30.4, 8), None))
    """
    left, top, right, bottom = box
    if not all(map(math.isfinite, box)) or right - left < THINNEST or bottom - top < THINNEST:
        return box, Kind.DEGENERATE
    inside = max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)
    if inside[2] - inside[0] < THINNEST or inside[3] - inside[1] < THINNEST:
        return box, Kind.OUTSIDE
    if max(abs(one - other) for one, other in zip(box, inside, strict=True)) > ROUNDING:
        return inside, Kind.BEYOND
    return box, None


def repeated(instances: Iterable[Instance]) -> list[str]:
    """The names of instances that are there already: same category, same box."""
    seen: dict[tuple[int, bool, Box], str] = {}
    found = []
    for instance in instances:
        key = instance.label, instance.crowd, instance.box
        if key in seen:
            found.append(f"{instance.name} is as {seen[key]}")
        seen.setdefault(key, instance.name)
    return found


def box_area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
