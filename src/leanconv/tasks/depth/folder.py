"""Images and depth maps in folders, paired by their names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from leanconv.errors import unknown
from leanconv.tasks.data.folder import TEST_FOLDERS
from leanconv.tasks.data.images import UnreadableImage
from leanconv.tasks.data.pictures import SUFFIXES
from leanconv.tasks.data.splitting import limited, stratified_split
from leanconv.tasks.depth.images import DepthData, DepthSet, Scene
from leanconv.tasks.depth.maps import DEPTH_SUFFIXES, read_depth, read_guidance, size_of
from leanconv.tasks.rules import CHOICES

Refused = dict[Path, str]
DEPTH_NAME = re.compile(r"(.+)_depth(?:_(mm|cm|m))?")
IMAGE_NAME = re.compile(r"(.+)_rgb")
UNITS_PER_METRE = {"mm": 1000.0, "cm": 100.0, "m": 1.0}


@dataclass(frozen=True)
class Pair:
    """The files of a scene, and how many of the depth's units make a metre, where that is known."""

    name: str
    image: Path
    depth: Path
    units_per_metre: float | None

    def size(self) -> tuple[int, int]:
        """Height and width of both.

        Raises:
            UnreadableImage: one isn't readable, or they differ.
        """
        image, depth = size_of(self.image), size_of(self.depth)
        if image != depth:
            raise UnreadableImage(f"the depth {self.depth} must have the size {image[0]}×{image[1]} of {self.image}, "
                                  f"got {depth[0]}×{depth[1]}")
        return image

    def read(self) -> Scene:
        """What both hold.

        Raises:
            UnreadableImage: one can't be decoded.
        """
        return Scene(read_guidance(self.image), read_depth(self.depth, self.units_per_metre))


class FolderScenes(DepthSet):
    """Scenes that are read when they are needed.

    Args:
        pairs: their files.
        sizes: height and width of each.
    """

    def __init__(self, pairs: Sequence[Pair], sizes: Sequence[tuple[int, int]]) -> None:
        super().__init__([pair.name for pair in pairs], sizes)
        self.pairs = tuple(pairs)

    def read(self, index: int) -> Scene:
        return self.pairs[index].read()

    def subset(self, positions: Iterable[int]) -> FolderScenes:
        """The scenes at these positions."""
        chosen = list(positions)
        return FolderScenes([self.pairs[position] for position in chosen], [self.sizes[p] for p in chosen])

    @property
    def unit(self) -> str:
        """ "cm" where the scale of every depth map is known, "levels" where none is.

        Raises:
            ValueError: it is known of some only.
        """
        silent = [pair.depth for pair in self.pairs if pair.units_per_metre is None]
        if 0 < len(silent) < len(self.pairs):
            raise ValueError(f"units_per_metre must be given where the names of some depth maps only say their unit, "
                             f"got None and {len(silent)} such as {silent[0]}")
        return "levels" if silent else "cm"


def depth_folder(
    root: Path, *, units_per_metre: float | None = None, bad_images: str = "refuse", limit: int = 0
) -> DepthData:
    """Opens a folder of scenes, or one with a folder train and one of val, valid and test; else a fifth is split off.

    Args:
        root: the folder; `scenes_in` says what lies in it.
        units_per_metre, bad_images: as in `scenes_in`.
        limit: of the scenes to train on, and to test on; 0 for none.

    Raises:
        ValueError: the folder isn't there or holds no scenes, or too few to split; a scene is refused.
    """
    if not root.is_dir():
        raise ValueError(f"data must name a folder of images with depth, got {root}, which isn't one")
    if (root / "train").is_dir():
        tests = [root / name for name in TEST_FOLDERS if (root / name).is_dir()]
        if not tests:
            raise ValueError(f"{root} must hold one of the folders {', '.join(TEST_FOLDERS)} beside train, got none")
        (train, left_out), (test, more) = (
            scenes_in(folder, units_per_metre=units_per_metre, bad_images=bad_images)
            for folder in (root / "train", tests[0]))
        left_out |= more
    else:
        scenes, left_out = scenes_in(root, units_per_metre=units_per_metre, bad_images=bad_images)
        if len(scenes) < 2:
            raise ValueError(f"{root} must hold at least 2 scenes to train on one and test on one, got {len(scenes)}")
        train, test = (scenes.subset(part.tolist()) for part in stratified_split(torch.zeros(len(scenes))))
    train, test = (part.subset(limited(len(part), limit).tolist()) for part in (train, test))
    unit = FolderScenes(train.pairs + test.pairs, train.sizes + test.sizes).unit
    return DepthData(
        train=train, test=test, unit=unit, unreadable=tuple(sorted(left_out.items())),
        description=f"{root.name}: {len(train)} training and {len(test)} test images with depth, in {unit}",
    )


def scenes_in(
    root: Path, *, units_per_metre: float | None = None, bad_images: str = "refuse"
) -> tuple[FolderScenes, Refused]:
    """The scenes in a folder, in order of their names: X_rgb.* and X_depth.*, or rgb/X.* and depth/X.*.

    X_depth_mm, X_depth_cm and X_depth_m say their unit. An image without a depth, or the other way round, is left out.

    Args:
        root: the folder.
        units_per_metre: how many of the depth's units make a metre; None for what the name says.
        bad_images: "refuse" scenes whose files can't be decoded or differ in size, or "skip" them; "unchecked" skips
            those that the heads of their files tell, and decodes none.

    Returns:
        The scenes, and the files that were left out with the reason.

    Raises:
        ValueError: there are no scenes, several files for one, a name that contradicts units_per_metre, or refused
            scenes, of which the message names the first five.
    """
    if bad_images not in CHOICES["bad_images"]:
        raise unknown("bad_images", bad_images, CHOICES["bad_images"])
    if units_per_metre is not None and not 0 < units_per_metre < math.inf:
        raise ValueError(f"units_per_metre must be above 0, got {units_per_metre}")
    images, depths = found(root)
    left_out = {path: "no depth has its name" for name, path in images.items() if name not in depths}
    left_out |= {path: "no image has its name" for name, path in depths.items() if name not in images}
    pairs, sizes, bad = [], [], {}
    for name in sorted(images.keys() & depths.keys()):
        pair = Pair(name, images[name], depths[name], scale_of(depths[name], units_per_metre))
        try:
            size = pair.size()
            if bad_images != "unchecked":
                pair.read()
        except UnreadableImage as error:
            bad[pair.depth] = str(error)
        else:
            pairs.append(pair)
            sizes.append(size)
    if bad and bad_images == "refuse":
        more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise ValueError(f"all scenes in {root} must be an image and a depth map of one size, got {len(bad)} that "
                         f"aren't: {'; '.join(list(bad.values())[:5])}{more}")
    if not pairs:
        raise ValueError(f"{root} must hold X_rgb and X_depth files, or folders rgb and depth with files of the same "
                         f"names, got no pair ({len(left_out | bad)} files left out)")
    return FolderScenes(pairs, sizes), left_out | bad


def scale_of(path: Path, units_per_metre: float | None) -> float | None:
    """How many units of a depth map make a metre, as is given or as its name says; None where neither does.

    Raises:
        ValueError: the two contradict each other.
    """
    match = DEPTH_NAME.fullmatch(path.stem)
    named = UNITS_PER_METRE.get(match[2]) if match else None
    if named and units_per_metre and named != units_per_metre:
        raise ValueError(f"units_per_metre must be {named:g}, as the name of {path} says, got {units_per_metre:g}")
    return units_per_metre or named


def found(root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """The image files and the depth files by the name of the scene."""
    if (root / "rgb").is_dir() and (root / "depth").is_dir():
        return (by_name((root / "rgb").rglob("*"), SUFFIXES, lambda path: stem_below(root / "rgb", path)),
                by_name((root / "depth").rglob("*"), DEPTH_SUFFIXES, lambda path: stem_below(root / "depth", path)))
    return (by_name(root.iterdir(), SUFFIXES, lambda path: stem_before(IMAGE_NAME, path)),
            by_name(root.iterdir(), DEPTH_SUFFIXES, lambda path: stem_before(DEPTH_NAME, path)))


def stem_below(folder: Path, path: Path) -> str:
    return str(path.relative_to(folder).with_suffix(""))


def stem_before(ending: re.Pattern[str], path: Path) -> str | None:
    match = ending.fullmatch(path.stem)
    return match and match[1]


def by_name(
    paths: Iterable[Path], suffixes: Sequence[str], name_of: Callable[[Path], str | None]
) -> dict[str, Path]:
    """Those of the files that have a name, by it.

    Raises:
        ValueError: two have the same.
    """
    files: dict[str, Path] = {}
    for path in sorted(paths):
        name = name_of(path) if path.suffix.lower() in suffixes else None
        if name is None:
            continue
        if name in files:
            raise ValueError(f"a scene must have one image and one depth map, got {files[name]} and {path}")
        files[name] = path
    return files
