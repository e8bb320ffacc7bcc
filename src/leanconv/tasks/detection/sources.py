"""Reading the annotated images that a source names."""

from __future__ import annotations

from leanconv.errors import unknown
from leanconv.tasks.detection.coco import coco
from leanconv.tasks.detection.instance_masks import instance_masks
from leanconv.tasks.detection.problems import commonest
from leanconv.tasks.detection.source import Source
from leanconv.tasks.detection.voc import voc

KINDS = ("coco", "masks", "penn-fudan", "voc")


def read_source(source: str, *, masks: bool | None = None) -> Source:
    """Reads the annotations of a source, and of the images no more than whether they are there.

    Args:
        source: as `open_detection` takes it.
        masks: likewise.

    Raises:
        ValueError: the source isn't there, can't be read or breaks a rule, or lacks masks that are wanted.
    """
    kind, colon, place = source.partition(":")
    if not colon or not place:
        raise ValueError(f"a source must be KIND:PLACE with the kind {', '.join(KINDS)}, got {source!r}")
    match kind:
        case "coco":
            found = coco(place, masks=masks is not False)
        case "voc":
            found = voc(place, masks=bool(masks))
        case "penn-fudan":
            found = instance_masks(place, "pedestrian", masks=masks is not False)
        case "masks":
            folder, _, category = place.partition(",")
            found = instance_masks(folder, category or "object", masks=masks is not False)
        case _:
            raise unknown("kind of source", kind, KINDS)
    if masks and not found.has_masks:
        got = "some without" if any(len(scene.boxes) for scene in found.scenes) else "no instances"
        raise ValueError(f"every instance of {source} must have a mask, got {got}{commonest(found.problems)}")
    return found
