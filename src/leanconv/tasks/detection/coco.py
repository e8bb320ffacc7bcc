"""Images and a JSON file of annotations, as COCO lays them out."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leanconv.tasks.detection.problems import Kind, Problem
from leanconv.tasks.detection.scenes import Instance, Scene, scene
from leanconv.tasks.detection.source import Source, masked, size_of

TEST_PARTS = ("val", "valid", "test")
LAYOUT = "train with instances_train.json beside it, or train2017 with annotations/instances_train2017.json"


def coco(place: str, *, masks: bool) -> Source:
    """Opens `coco:FOLDER` or `coco:IMAGES,FILE.json[,IMAGES,FILE.json]`.

    A folder holds train and val (or valid, or test), or train2017 and val2017, and instances_train.json and so on,
    beside them or in annotations. Of two pairs, the first is to train on and the second to test on.

    Raises:
        ValueError: there are no such files, one can't be read, or the two have different categories.
    """
    parts = [part.strip() for part in place.split(",")]
    if len(parts) == 1:
        pairs = found(Path(place).expanduser())
    elif len(parts) in (2, 4):
        paths = [Path(part).expanduser() for part in parts]
        pairs = [(paths[index], paths[index + 1]) for index in range(0, len(paths), 2)]
    else:
        raise ValueError(f"coco must name a folder, or IMAGES,FILE.json once or twice, got {place!r}")
    contents = [read(file) for _, file in pairs]
    categories = categories_of(contents[0], pairs[0][1])
    for content, (_, file) in zip(contents[1:], pairs[1:], strict=True):
        others = categories_of(content, file)
        if strangers := [f"{number} {name}" for number, name in others.items() if categories.get(number) != name]:
            raise ValueError(
                f"the categories of {file} must be those of {pairs[0][1]}, got others too: {', '.join(strangers[:5])}"
            )
    labels = {number: label for label, number in enumerate(categories, start=1)}
    problems: list[Problem] = []
    scenes = [
        scenes_of(content, images, file, labels, masks=masks, problems=problems)
        for content, (images, file) in zip(contents, pairs, strict=True)
    ]
    return Source(
        name=Path(parts[0]).name,
        categories=tuple(categories.values()),
        category_ids=tuple(categories),
        train=scenes[0],
        test=scenes[1] if len(scenes) > 1 else None,
        has_masks=masks and all(map(masked, scenes)),
        problems=problems,
    )


def found(root: Path) -> list[tuple[Path, Path]]:
    """The folders of images of a data set, each with its file of annotations: to train on, to test on."""
    if not root.is_dir():
        raise ValueError(f"coco must name a folder, got {root}, which isn't one")
    pairs = {}
    for file in sorted([*root.glob("instances_*.json"), *root.glob("annotations/instances_*.json")]):
        name = file.stem.removeprefix("instances_")
        for images in (root / name, root / "images" / name):
            if re.fullmatch(r"[a-z]+\d*", name) and images.is_dir():
                pairs[name.rstrip("0123456789")] = images, file  # of several years the last
    tests = [pairs[name] for name in TEST_PARTS if name in pairs]
    if "train" not in pairs or not tests:
        raise ValueError(
            f"{root} must hold images and annotations to train on and to test on ({LAYOUT}, and likewise val), "
            f"got {', '.join(sorted(pairs)) or 'none'}: name them as coco:IMAGES,FILE.json"
        )
    return [pairs["train"], tests[0]]


def read(file: Path) -> dict[str, Any]:
    """The content of a file of annotations."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot read {file} as COCO annotations: {error}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise ValueError(f"{file} must hold the lists images, annotations and categories, got no {key!r}")
    return content


def categories_of(content: Mapping[str, Any], file: Path) -> dict[int, str]:
    """The name of each category by its number, in the order of the numbers."""
    try:
        pairs = sorted((number(entry["id"]), str(entry["name"])) for entry in content["categories"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"every category in {file} must have an id and a name: {error!r}") from error
    if not pairs or len(dict(pairs)) < len(pairs):
        raise ValueError(f"the categories in {file} must be at least one, each id once, got {len(pairs)}")
    return dict(pairs)


def number(value: Any) -> int:
    """A whole number, which some tools write as text."""
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(f"{value!r} is no whole number")
    return int(value)


def scenes_of(
    content: Mapping[str, Any],
    folder: Path,
    file: Path,
    labels: Mapping[int, int],
    *,
    masks: bool,
    problems: list[Problem],
) -> list[Scene]:
    """The images of a file with their instances, in the file's order."""
    if not folder.is_dir():
        raise ValueError(f"{file} must have its images in a folder, got {folder}, which isn't one")
    images: dict[int, tuple[Path, tuple[int, int]]] = {}
    named: set[str] = set()
    absent: set[int] = set()
    for entry in content["images"]:
        try:
            image_id, path = number(entry["id"]), folder / entry["file_name"]
        except (KeyError, TypeError, ValueError) as error:
            problems.append(Problem(Kind.BROKEN, file.name, f"an image needs an id and a file_name: {error!r}"))
            continue
        if image_id in images or image_id in absent or str(path) in named:
            problems.append(Problem(Kind.REPEATED_IMAGE, path.name, f"image {image_id} in {file.name}"))
            absent.add(image_id)
            continue
        named.add(str(path))
        size = (told_size(entry) if path.is_file() else None) or size_of(path)
        if isinstance(size, Problem):
            problems.append(size._replace(detail=size.detail or f"image {image_id} in {file.name}"))
            absent.add(image_id)
        else:
            images[image_id] = path, size
    instances = defaultdict(list)
    unmasked = 0
    for index, annotation in enumerate(content["annotations"]):
        name = f"annotation {annotation.get('id', index) if isinstance(annotation, dict) else index}"
        try:
            image_id, category = number(annotation["image_id"]), number(annotation["category_id"])
            instance = instance_of(annotation, name, labels.get(category, 0), masks=masks)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            problems.append(Problem(Kind.BROKEN, file.name, f"{name}: {error!r}"))
            continue
        if image_id in images and not instance.label:
            problems.append(Problem(Kind.CATEGORY, images[image_id][0].name, f"{name}, category {category}"))
        elif image_id in images:
            instances[image_id].append(instance)
            unmasked += instance.segmentation is None
        elif image_id not in absent:
            problems.append(Problem(Kind.NO_IMAGE, file.name, f"{name}, image {image_id}"))
    if masks and 0 < unmasked < sum(map(len, instances.values())):
        problems.append(Problem(Kind.NO_MASK, file.name, f"{unmasked} annotations"))
    return [
        scene(image_id, path, size, instances.pop(image_id, ()), problems)
        for image_id, (path, size) in images.items()
    ]


def told_size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of an image as its entry tells them; None if it doesn't."""
    size = entry.get("height"), entry.get("width")
    return size if all(isinstance(side, int) and side > 0 for side in size) else None  # type: ignore[return-value]


def instance_of(annotation: Mapping[str, Any], name: str, label: int, *, masks: bool) -> Instance:
    """An annotation of a COCO file, whose box is left, top, width and height."""
    left, top, width, height = map(float, annotation["bbox"])
    area = None if annotation.get("area") is None else float(annotation["area"])
    if area is not None and not math.isfinite(area):
        raise ValueError(f"area {area}")
    return Instance(
        name,
        (left, top, left + width, top + height),
        label,
        area,
        bool(annotation.get("iscrowd", 0)),
        (annotation.get("segmentation") or None) if masks else None,
    )
