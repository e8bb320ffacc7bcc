"""NYU Depth v2: the labelled images, in the file that its authors publish (nyu_depth_v2_labeled.mat)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from leanconv.tasks.data.images import UnreadableImage
from leanconv.tasks.data.splitting import limited
from leanconv.tasks.depth.images import DepthData, DepthSet, Scene
from leanconv.tasks.depth.maps import CM_PER_METRE

if TYPE_CHECKING:
    import h5py

TRAINED = 1000  # of the 1449 scenes the first are trained on in joint upsampling, the other 449 tested


class NyuScenes(DepthSet):
    """Scenes of the file, read when they are needed: each process opens it for itself.

    Args:
        path: of an HDF5 file with `images` uint8 (N, 3, W, H) and `depths` in metres (N, W, H).
        positions: of the scenes in it.
        size: height and width.
    """

    def __init__(self, path: Path, positions: Sequence[int], size: tuple[int, int]) -> None:
        super().__init__([f"{position:04d}" for position in positions], [size] * len(positions))
        self.path, self.positions = path, tuple(positions)
        self.file: tuple[int, h5py.File] | None = None  # with the process that opened it: HDF5 must not share it

    def read(self, index: int) -> Scene:
        if self.file is None or self.file[0] != os.getpid():
            self.file = os.getpid(), opened(self.path)
        file, position = self.file[1], self.positions[index]
        try:
            image, depth = file["images"][position], file["depths"][position]
        except Exception as error:  # what damaged files raise is up to HDF5
            raise UnreadableImage(f"cannot read scene {position} of {self.path}: {error}") from error
        depth = np.where(np.isfinite(depth) & (depth > 0), CM_PER_METRE * depth, 0).astype(np.float32)
        return Scene(torch.from_numpy(image.transpose(0, 2, 1).copy()), torch.from_numpy(depth.T.copy())[None])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "file": None}


def nyu(path: Path, *, trained: int = TRAINED, limit: int = 0) -> DepthData:
    """Opens the file: its first scenes are trained on, the others tested.

    Args:
        path: of the file.
        trained: how many are trained on.
        limit: of the scenes to train on, and to test on; 0 for none.

    Raises:
        ValueError: the file isn't there, isn't HDF5, is damaged, or doesn't hold more such images than are trained on.
    """
    with opened(path) as file:
        try:
            shapes = {name: file[name].shape if name in file else None for name in ("images", "depths")}
        except Exception as error:  # as in `read`
            raise ValueError(f"{path} must be a whole HDF5 file, got a damaged one: {error}") from error
    images, depths = shapes["images"], shapes["depths"]
    if images is None or depths is None or len(images) != 4 or depths != (images[0], *images[2:]) or images[1] != 3:
        raise ValueError(f"{path} must hold images (N, 3, W, H) and depths (N, W, H), got {images} and {depths}")
    count, _, width, height = images
    if count <= trained:
        raise ValueError(f"{path} must hold more than the {trained} scenes that are trained on, got {count}")
    train, test = (
        NyuScenes(path, [part[position] for position in limited(len(part), limit).tolist()], (height, width))
        for part in (range(trained), range(trained, count)))
    return DepthData(
        train=train, test=test, unit="cm",
        description=f"NYU Depth v2: {len(train)} training and {len(test)} test images with depth, {height}×{width}, "
        "in cm",
    )


def opened(path: Path) -> h5py.File:
    """The file, to read.

    Raises:
        ValueError: it isn't there or isn't HDF5.
    """
    import h5py

    if not path.is_file():
        raise ValueError(f"data must name the file nyu_depth_v2_labeled.mat, got {path}, which isn't one")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} must be an HDF5 file (MATLAB 7.3), got: {error}") from error
