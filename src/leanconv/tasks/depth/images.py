"""What a set of images with depth maps is, wherever it comes from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

STATISTICS_OF = 100  # scenes, at most


class Scene(NamedTuple):
    """An image and its depth.

    Attributes:
        image: uint8 (3, H, W).
        depth: float32 (1, H, W), 0 where it isn't known.
    """

    image: Tensor
    depth: Tensor


class DepthSet(Dataset, ABC):
    """Images of one or several sizes, each with a depth map of its own size: `scenes[0]` is a `Scene`.

    Args:
        names: of the scenes, for people.
        sizes: height and width of each.
    """

    def __init__(self, names: Sequence[str], sizes: Sequence[tuple[int, int]]) -> None:
        self.names = tuple(names)
        self.sizes = tuple(sizes)

    @abstractmethod
    def read(self, index: int) -> Scene:
        """The scene at a position.

        Raises:
            UnreadableImage: one of its files can't be decoded.
        """

    def __getitem__(self, index: int) -> Scene:
        return self.read(range(len(self))[index])

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, kw_only=True)
class DepthInfo:
    """What a network must know of the depth maps that it is made for.

    Attributes:
        unit: of the depth.
        depth_mean: of the training scenes, in that unit.
        depth_std: their standard deviation.
    """

    unit: str
    depth_mean: float
    depth_std: float


@dataclass(frozen=True, kw_only=True)
class DepthData:
    """A data set, opened.

    Attributes:
        train: scenes to train on.
        test: scenes to test on.
        unit: of the depth: "cm", or "levels" where nothing says how many of them make a metre.
        description: a line for people.
        unreadable: files that were left out, each with the reason.
    """

    train: DepthSet
    test: DepthSet
    unit: str
    description: str
    unreadable: tuple[tuple[Path, str], ...] = ()

    @cached_property
    def info(self) -> DepthInfo:
        """What a checkpoint keeps of it."""
        mean, std = depth_statistics(self.train)
        return DepthInfo(unit=self.unit, depth_mean=mean, depth_std=std)


def require_unit(learned: str, came: str, data: str) -> None:
    """Refuses depth in another unit than the one that a network has learned.

    Args:
        learned: the network's unit.
        came: the data's.
        data: its source.

    Raises:
        ValueError: they differ.
    """
    if came != learned:
        remedy = ("don't give units_per_metre, and let no names say a unit" if learned == "levels" else
                  "give units_per_metre, or let the names of the depth maps say mm, cm or m")
        raise ValueError(f"depth must be in {learned}, as the network has learned it, got {came} of {data}: {remedy}")


def depth_statistics(scenes: DepthSet) -> tuple[float, float]:
    """Mean and standard deviation of the depth that is known, in the data's unit: of 100 scenes, spread over the set.

    Raises:
        ValueError: no depth is known.
    """
    step = -(-len(scenes) // STATISTICS_OF)
    count, total, squares = 0, 0.0, 0.0
    for position in range(0, len(scenes), step):
        depth = scenes[position].depth.double()
        count += int((depth > 0).sum())
        total += float(depth.sum())
        squares += float(depth.square().sum())
    if not count:
        raise ValueError("scenes must have pixels of known depth, got none")
    mean = total / count
    return mean, max(squares / count - mean**2, 0) ** 0.5 or 1.0
