"""Images of one category whose instances are numbered in a second image, as Penn-Fudan's pedestrians or cell nuclei."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from leanconv.tasks.data.pictures import SUFFIXES
from leanconv.tasks.detection import rle
from leanconv.tasks.detection.problems import Kind, Problem
from leanconv.tasks.detection.scenes import Instance, Scene, scene
from leanconv.tasks.detection.source import Source, masked, size_of

FOLDERS = (("PNGImages", "PedMasks"), ("images", "masks"), ("images", "labels"))


def instance_masks(place: str, category: str, *, masks: bool) -> Source:
    """Opens a folder of images and one of masks: PNGImages and PedMasks, or images and masks, or images and labels.

    The mask of an image has its name, perhaps with _mask behind: 0 is background, 1 to n (8 or 16 bits) are instances.
    An index.json, if there, is a list of {"id": name, "split": "train" or else}; without one, the source doesn't say
    what to test on.

    Args:
        place: the folder, after the colon.
        category: the name of the only one.
        masks: whether masks are wanted; else just the boxes around them.

    Raises:
        ValueError: there are no such folders, or no images.
    """
    root = Path(place).expanduser()
    pairs = [(root / images, root / labels) for images, labels in FOLDERS]
    folders = [pair for pair in pairs if all(map(Path.is_dir, pair))]
    if not folders:
        raise ValueError(f"{root} must hold a folder of images and one of masks, "
                         f"{', '.join(' and '.join(names) for names in FOLDERS)}, got none")  # fmt: skip
    images, labels = folders[0]
    paths = sorted(path for path in images.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(f"{images} must hold images ({', '.join(SUFFIXES)}), got none")
    masks_there = sorted(path for path in labels.iterdir() if path.suffix.lower() in SUFFIXES)
    files = {path.stem.removesuffix("_mask"): path for path in masks_there}
    problems = [
        Problem(Kind.NO_IMAGE, files[name].name) for name in sorted(files.keys() - {path.stem for path in paths})
    ]
    splits = splits_in(root / "index.json")
    parts: dict[bool, list[Scene]] = {False: [], True: []}
    for image_id, path in enumerate(paths, start=1):
        if (made := scene_of(image_id, path, files.get(path.stem), problems, masks=masks)) is not None:
            parts[splits.get(path.stem, "train") != "train"].append(made)
    return Source(
        name=root.name,
        categories=(category,),
        category_ids=(1,),
        train=parts[False],
        test=parts[True] or None,
        has_masks=masks and masked(parts[False]) and masked(parts[True] or parts[False]),
        problems=problems,
    )


def splits_in(file: Path) -> Mapping[str, str]:
    """To which part each image belongs, by name; empty without such a file."""
    if not file.is_file():
        return {}
    try:
        return {str(entry["id"]): str(entry["split"]) for entry in json.loads(file.read_bytes())}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} must be a list of images, each with an id and a split: {error!r}") from error


def scene_of(image_id: int, path: Path, file: Path | None, problems: list[Problem], *, masks: bool) -> Scene | None:
    """An image with the instances in its mask; None if one of the two can't be used."""
    size = size_of(path)
    if isinstance(size, Problem):
        problems.append(size)
        return None
    if file is None:
        problems.append(Problem(Kind.NO_FILE, path.name))
        return None
    try:
        with Image.open(file) as picture:
            numbers = np.asarray(picture)
    except Exception as error:  # damaged files make Pillow's decoders raise anything
        problems.append(Problem(Kind.NO_FILE, path.name, f"{file.name} can't be read: {error}"))
        return None
    if numbers.shape != size:
        came = f"{numbers.shape[1]}×{numbers.shape[0]}" + (" in colour" if numbers.ndim > 2 else "")
        problems.append(Problem(Kind.OTHER_MASK_SIZE, file.name, f"{came} for an image of {size[1]}×{size[0]}"))
        return None
    instances = [
        Instance(f"instance {value}", rle.box(mask), 1, rle.area(mask), segmentation=mask if masks else None)
        for value, mask in rle.of_numbers(numbers).items()
    ]
    return scene(image_id, path, size, instances, problems)
