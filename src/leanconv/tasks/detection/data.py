"""Annotated images as a detector is trained on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from leanconv.tasks.data.images import UnreadableImage
from leanconv.tasks.data.pictures import open_picture
from leanconv.tasks.data.screening import screen
from leanconv.tasks.data.splitting import limited
from leanconv.tasks.detection import rle
from leanconv.tasks.detection.problems import Kind, Problem, commonest
from leanconv.tasks.detection.scenes import Scene
from leanconv.tasks.detection.source import Source, size_of, upright_size
from leanconv.tasks.detection.sources import read_source
from leanconv.tasks.detection_recipe import DetectionRecipe

TEST_SHARE = 0.2  # where a source doesn't say what to test on


class DetectionSet(Dataset):
    """Images with the instances in them: `images[0]` is (uint8 tensor [3, H, W], target).

    A target is a dict as torchvision's detectors take it:

    * `boxes`: float32 [n, 4], left, top, right, bottom in pixels, within the image;
    * `labels`: int64 [n], 1 to K;
    * `masks`: uint8 [n, H, W] of 0 and 1, if the set has masks;
    * `area`: float32 [n], in pixels;
    * `iscrowd`: int64 [n], all 0: crowd regions aren't for learning, only `CocoScores` knows of them;
    * `image_id`: int.

    Args:
        scenes: the images; read when they are needed.
        categories: the name of each category, that of label 1 first.
        category_ids: the number of each in the source's own files.
        has_masks: whether the targets shall have masks.
    """

    def __init__(
        self, scenes: Sequence[Scene], categories: Sequence[str], category_ids: Sequence[int], *, has_masks: bool
    ) -> None:
        self.scenes = tuple(scenes)
        self.categories = tuple(categories)
        self.category_ids = tuple(category_ids)
        self.has_masks = has_masks

    @property
    def image_ids(self) -> list[int]:
        """The number of each image."""
        return [scene.image_id for scene in self.scenes]

    def picture(self, index: int) -> Tensor:
        """An image alone, uint8 [3, H, W].

        Raises:
            UnreadableImage: it can't be decoded, is turned by its metadata, or hasn't the size that its annotations
                tell.
        """
        scene = self.scenes[index]
        picture = open_picture(scene.path)
        if (wrong := size_problem(scene, upright_size(picture, scene.path.name))) is not None:
            raise UnreadableImage(f"there must be no {wrong.kind.title}, got {scene.path}: {wrong.detail}")
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()

    def target(self, index: int) -> dict[str, Any]:
        """What is in an image."""
        scene = self.scenes[index]
        single = np.flatnonzero(~scene.crowd)
        borders = np.array([scene.width, scene.height] * 2)
        target: dict[str, Any] = {
            "boxes": torch.from_numpy(scene.boxes[single].clip(0, borders)).float(),
            "labels": torch.from_numpy(scene.labels[single]),
            "area": torch.from_numpy(scene.areas[single]).float(),
            "iscrowd": torch.zeros(len(single), dtype=torch.int64),
            "image_id": scene.image_id,
        }
        if self.has_masks:
            shapes = scene.masks()
            masks = np.zeros((len(single), scene.height, scene.width), np.uint8)
            for place, position in enumerate(single):
                masks[place] = rle.decoded(shapes[position])
            target["masks"] = torch.from_numpy(masks)
        return target

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        return self.picture(index), self.target(index)

    def __len__(self) -> int:
        return len(self.scenes)


@dataclass(frozen=True, kw_only=True)
class DetectionInfo:
    """What a detector must know of the images that it is made for.

    Attributes:
        categories: the name of each category, that of label 1 first.
        has_masks: whether every instance has a mask.
    """

    categories: tuple[str, ...]
    has_masks: bool


@dataclass(frozen=True, kw_only=True)
class DetectionData(DetectionInfo):
    """A data set, opened.

    Attributes:
        train: images to train on.
        test: images to test on.
        description: a line for people.
        unreadable: files that were left out, each with the reason.
        problems: what was found in the annotations while reading them; `leanconv check` tells more.
    """

    train: DetectionSet
    test: DetectionSet
    description: str
    unreadable: tuple[tuple[Path, str], ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def info(self) -> DetectionInfo:
        """All but the images: small, and what a checkpoint keeps."""
        return DetectionInfo(categories=self.categories, has_masks=self.has_masks)

    def whole(self) -> DetectionSet:
        """The images to train on and those to test on, as one set.

        Raises:
            ValueError: their numbers aren't different, as of two files that both count from 1.
        """
        scenes = sorted((*self.train.scenes, *self.test.scenes), key=lambda scene: scene.image_id)
        if len({scene.image_id for scene in scenes}) < len(scenes):
            raise ValueError("images to train on and to test on can't be one set: some have the same number")
        return DetectionSet(scenes, self.categories, self.test.category_ids, has_masks=self.has_masks)


def open_detection(
    source: str,
    *,
    empty: str = "keep",
    bad_images: str = "skip",
    masks: bool | None = None,
    limit: int = 0,
    progress: bool = True,
) -> DetectionData:
    """Opens annotated images, to train on and to test on.

    What can't be used is left out and told in `problems`: annotations without image, of an unknown category, with a
    degenerate box or one outside the image. A box across the border is clipped. An image that its metadata turn (EXIF
    orientation) counts as one that can't be read: some tools heed that and others don't, so its annotations may be
    meant either way. If a source doesn't say what to test on, a fifth of its images is split off, always the same.

    Args:
        source: "coco:FOLDER", "coco:IMAGES,FILE.json[,IMAGES,FILE.json]", "voc:FOLDER[,TRAIN,TEST]",
            "penn-fudan:FOLDER" or "masks:FOLDER[,CATEGORY]".
        empty: "keep" training images without instances as negatives, or "drop" them; test images always stay.
        bad_images: "skip" images that are missing or can't be read, "refuse" them, or leave the files "unchecked".
        masks: whether masks are wanted; by default where all instances have one, of VOC not.
        limit: at most so many images to train on and to test on, always the same; 0 for all.
        progress: whether a progress bar may be shown.

    Raises:
        ValueError: the source isn't there, can't be read or breaks a rule; an image or a mask has another size than
            its annotations tell; masks are wanted that aren't there; `bad_images` is "refuse" and there are some; no
            images are left.
    """
    for name, value, valid in (("empty", empty, ("keep", "drop")),
                               ("bad_images", bad_images, ("skip", "refuse", "unchecked"))):  # fmt: skip
        if value not in valid:
            raise ValueError(f"{name} must be {', '.join(valid[:-1])} or {valid[-1]}, got {value!r}")
    if limit < 0:
        raise ValueError(f"limit must be at least 0, got {limit}")
    found = read_source(source, masks=masks)
    problems = list(found.problems)
    refuse_any(problems, Kind.OTHER_SIZE, Kind.OTHER_MASK_SIZE)
    if bad_images == "refuse":
        refuse_any(problems, Kind.MISSING, Kind.UNREADABLE, Kind.TURNED, Kind.NO_FILE)
    train, test = (chosen(part, limit) for part in parts(found))
    bad: dict[Path, str] = {}
    if bad_images != "unchecked":
        bad = screen([scene.path for scene in (*train, *test)], refuse=bad_images == "refuse", progress=progress)
        heads = {scene.path: head_problem(scene) for scene in (*train, *test) if scene.path not in bad}
        wrong = [problem for problem in heads.values() if problem is not None]
        refuse_any(wrong, Kind.OTHER_SIZE, *([Kind.TURNED] if bad_images == "refuse" else []))
        problems += wrong
        train, test = (
            [scene.sound(problems) for scene in part if scene.path in heads and heads[scene.path] is None]
            for part in (train, test)
        )
    if empty == "drop":
        train = [scene for scene in train if not scene.crowd.all()]
    for name, part in (("train", train), ("test", test)):
        if not part:
            most = commonest([*problems, *(Problem(Kind.UNREADABLE, path.name, bad[path]) for path in bad)])
            raise ValueError(f"{source} must hold readable images to {name} on, got none{most}")
    sets = [
        DetectionSet(part, found.categories, found.category_ids, has_masks=found.has_masks) for part in (train, test)
    ]
    return DetectionData(
        train=sets[0],
        test=sets[1],
        categories=found.categories,
        has_masks=found.has_masks,
        description=described(found, train, test, problems),
        unreadable=tuple(sorted(bad.items())),
        problems=tuple(problems),
    )


def of_recipe(recipe: DetectionRecipe, *, progress: bool = True) -> DetectionData:
    """Opens the annotated images that a recipe names; see `open_detection`."""
    return open_detection(
        recipe.data,
        empty=recipe.empty,
        bad_images=recipe.bad_images,
        masks=recipe.masks,
        limit=recipe.limit,
        progress=progress,
    )


def parts(source: Source) -> tuple[Sequence[Scene], Sequence[Scene]]:
    """The images to train on and those to test on, split if need be."""
    if source.test is not None:
        return source.train, source.test
    count = len(source.train)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    tested = set(order[: max(1, round(TEST_SHARE * count))]) if count > 1 else set()
    train = [scene for position, scene in enumerate(source.train) if position not in tested]
    return train, [scene for position, scene in enumerate(source.train) if position in tested]


def chosen(scenes: Sequence[Scene], limit: int) -> list[Scene]:
    return [scenes[position] for position in limited(len(scenes), limit).tolist()]


def head_problem(scene: Scene) -> Problem | None:
    """What the head of an image's file tells that can't be: that it is turned, or has another size."""
    return size_problem(scene, size_of(scene.path))


def size_problem(scene: Scene, size: tuple[int, int] | Problem) -> Problem | None:
    """What is wrong with the size of an image, as it was found."""
    if isinstance(size, Problem):
        return size
    if size == (scene.height, scene.width):
        return None
    detail = f"{size[1]}×{size[0]}, its annotations say {scene.width}×{scene.height}"
    return Problem(Kind.OTHER_SIZE, scene.path.name, detail)


def refuse_any(problems: Sequence[Problem], *kinds: Kind) -> None:
    """Raises a `ValueError` that names the first five problems of these kinds, if there are any."""
    for kind in kinds:
        found = [str(problem) for problem in problems if problem.kind is kind]
        if found:
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            raise ValueError(f"there must be no {kind.title}, got {len(found)}: {'; '.join(found[:5])}{more}")


def described(
    source: Source, train: Sequence[Scene], test: Sequence[Scene], problems: Sequence[Problem]
) -> str:
    """A line on what there is, and on what was left out or changed."""
    counts = [sum(int((~scene.crowd).sum()) for scene in part) for part in (train, test)]
    line = (
        f"{source.name}: {len(train)} training and {len(test)} test images, {counts[0]} and {counts[1]} instances"
        f"{' with masks' if source.has_masks else ''}, {source.variety}"
    )
    found = Counter(problem.kind for problem in problems if not problem.kind.harmless)
    return line + "".join(f"; {kind.title}: {count}, {kind.consequence}" for kind, count in found.items())
