"""What a set of images with depth maps is, wherever it comes from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor
from torch.utils.data import Dataset


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
