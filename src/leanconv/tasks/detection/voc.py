"""Images, XML annotations and lists of names, as Pascal VOC lays them out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from leanconv.tasks.detection import rle
from leanconv.tasks.detection.problems import Kind, Problem
from leanconv.tasks.detection.scenes import Instance, Scene, scene
from leanconv.tasks.detection.source import Source, masked, size_of


class Listed(NamedTuple):
    """An image of a list: its file, and its objects as the XML file tells them."""

    path: Path
    size: tuple[int, int]
    objects: list[ElementTree.Element]


def voc(place: str, *, masks: bool) -> Source:
    """Opens `voc:FOLDER[,TRAIN,TEST]`: FOLDER with JPEGImages, Annotations and ImageSets, as VOCdevkit/VOC2012.

    TRAIN and TEST are lists in ImageSets/Main; by default train and val or, where test is annotated as in VOC2007,
    trainval and test. Objects marked as difficult count as crowd regions: not learned, and ignored in a test.

    Args:
        place: what follows the colon.
        masks: read the lists in ImageSets/Segmentation instead, whose images have masks in SegmentationObject.

    Raises:
        ValueError: there are no such folders or lists.
    """
    parts = [part.strip() for part in place.split(",")]
    root = Path(parts[0]).expanduser()
    if len(parts) not in (1, 3):
        raise ValueError(f"voc must name a folder, or FOLDER,TRAIN,TEST, got {place!r}")
    for name in ("JPEGImages", "Annotations", "ImageSets"):
        if not (root / name).is_dir():
            raise ValueError(f"{root} must hold JPEGImages, Annotations and ImageSets, got no {name}")
    lists = root / "ImageSets" / ("Segmentation" if masks else "Main")
    parts_of = parts[1:] or default_lists(root, lists)
    problems: list[Problem] = []
    listed = [objects_of(root, names_in(lists / f"{part}.txt"), problems) for part in parts_of]
    categories = sorted({category(each) for part in listed for image in part for each in image.objects} - {""})
    scenes: list[list[Scene]] = []
    for part in listed:
        first = sum(map(len, scenes)) + 1
        scenes.append([
            scene(image_id, image.path, image.size, instances_of(root, image, categories, masks, problems), problems)
            for image_id, image in enumerate(part, start=first)
        ])
    return Source(
        name=root.name,
        categories=tuple(categories),
        category_ids=tuple(range(1, len(categories) + 1)),
        train=scenes[0],
        test=scenes[1],
        has_masks=masks and all(map(masked, scenes)),
        problems=problems,
    )


def default_lists(root: Path, lists: Path) -> tuple[str, str]:
    """The names of the lists to train on and to test on."""
    if (lists / "trainval.txt").is_file() and (lists / "test.txt").is_file():
        names = names_in(lists / "test.txt")
        if names and (root / "Annotations" / f"{names[0]}.xml").is_file():
            return "trainval", "test"
    return "train", "val"


def names_in(file: Path) -> list[str]:
    """The names of images in a list; some lists have a mark behind each name."""
    try:
        return [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the list of images {file}: {error}") from error


def objects_of(root: Path, names: Sequence[str], problems: list[Problem]) -> list[Listed]:
    """The images of these names that are there and annotated."""
    found = []
    for name in names:
        path = root / "JPEGImages" / f"{name}.jpg"
        file = root / "Annotations" / f"{name}.xml"
        size = size_of(path)
        if isinstance(size, Problem):
            problems.append(size)
        elif not file.is_file():
            problems.append(Problem(Kind.NO_FILE, path.name))
        else:
            try:
                tree = ElementTree.parse(file).getroot()
                told = tuple(int(tree.findtext(f"size/{side}") or 0) for side in ("height", "width"))
            except (ElementTree.ParseError, OSError, ValueError) as error:
                problems.append(Problem(Kind.NO_FILE, path.name, f"{file.name} can't be read: {error}"))
                continue
            if told not in ((0, 0), size):
                detail = f"{size[1]}×{size[0]}, {file.name} says {told[1]}×{told[0]}"
                problems.append(Problem(Kind.OTHER_SIZE, path.name, detail))
            found.append(Listed(path, size, tree.findall("object")))
    return found


def category(element: ElementTree.Element) -> str:
    return (element.findtext("name") or "").strip()


def instances_of(
    root: Path, image: Listed, categories: Sequence[str], masks: bool, problems: list[Problem]
) -> list[Instance]:
    """The objects of an image. VOC counts pixels from 1, and the last one belongs to the box."""
    shapes = masks_of(root, image, problems) if masks else {}
    instances = []
    for position, element in enumerate(image.objects, start=1):
        name = f"object {position}"
        try:
            left, top, right, bottom = (float(element.findtext(f"bndbox/{side}") or "missing")
                                        for side in ("xmin", "ymin", "xmax", "ymax"))  # fmt: skip
            label = categories.index(category(element)) + 1
        except ValueError as error:
            problems.append(Problem(Kind.BROKEN, image.path.name, f"{name}: {error}"))
            continue
        instances.append(Instance(
            name,
            (left - 1, top - 1, right, bottom),
            label,
            crowd=(element.findtext("difficult") or "0").strip() == "1",
            segmentation=shapes.get(position),
        ))  # fmt: skip
    return instances


def masks_of(root: Path, image: Listed, problems: list[Problem]) -> dict[int, rle.Rle]:
    """The masks of an image: object 1 of its XML file has the value 1 in SegmentationObject, and so on.

    The rim between objects has the value 255.
    """
    path = root / "SegmentationObject" / f"{image.path.stem}.png"
    try:
        with Image.open(path) as picture:
            numbers = np.asarray(picture)
    except Exception as error:  # damaged files make Pillow's decoders raise anything
        problems.append(Problem(Kind.BROKEN_MASK, path.name, f"{type(error).__name__}: {error}"))
        return {}
    if numbers.shape != image.size:
        detail = f"{numbers.shape[1]}×{numbers.shape[0]} for an image of {image.size[1]}×{image.size[0]}"
        problems.append(Problem(Kind.OTHER_MASK_SIZE, path.name, detail))
        return {}
    return rle.of_numbers(numbers)
