"""What an upsampling method sees of scenes, and what is asked of it: whole images, or parts of them to train on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from leanconv.nn.arguments import require_positive
from leanconv.tasks.depth.images import DepthSet, Scene
from leanconv.tasks.depth.protocol import BORDER, Sampling, low_resolution


class Batch(NamedTuple):
    """Scenes as methods see them.

    Attributes:
        low: depth at the low resolution without holes, float (N, 1, H / factor, W / factor).
        image: float (N, 3, H, W), pixels in 0..1.
        depth: what is wanted, float (N, 1, H, W), in the data's unit; 0 where it isn't known.
    """

    low: Tensor
    image: Tensor
    depth: Tensor


class Examples(Dataset, ABC):
    """Parts of scenes: `examples[0]` is a `Batch` of one.

    Args:
        scenes: to take them from.
        factor: between the sizes.
        sampling: how the low resolution comes about, as `low_resolution` takes it.
    """

    def __init__(self, scenes: DepthSet, factor: int, *, sampling: Sampling = "centre") -> None:
        self.scenes, self.factor, self.sampling = scenes, factor, sampling

    @abstractmethod
    def part(self, scene: Scene) -> Scene:
        """What is taken of a scene: sides that the factor divides."""

    def batch(self, positions: Sequence[int]) -> Batch:
        """The examples at these positions.

        Raises:
            ValueError: they have different sizes.
            UnreadableImage: a file can't be decoded.
        """
        parts = [self.part(self.scenes[position]) for position in positions]
        sizes = sorted({tuple(part.depth.shape[1:]) for part in parts})
        if len(sizes) > 1:
            raise ValueError(f"examples of a batch must have one size, got {sizes}: take one at a time")
        depth = torch.stack([part.depth for part in parts])
        image = torch.stack([part.image for part in parts]) / 255
        return Batch(low_resolution(depth, self.factor, self.sampling), image, depth)

    def __getitem__(self, index: int) -> Batch:
        return self.batch([range(len(self))[index]])

    def __len__(self) -> int:
        return len(self.scenes)


class WholeImages(Examples):
    """Whole scenes, to test on; what the factor leaves over is cut off below and at the right.

    Args:
        scenes, factor, sampling: as in `Examples`.

    Raises:
        ValueError: nothing of a scene lies inside the border that `rmse` leaves out.
    """

    def __init__(self, scenes: DepthSet, factor: int, *, sampling: Sampling = "centre") -> None:
        super().__init__(scenes, factor, sampling=sampling)
        for name, size in zip(scenes.names, scenes.sizes, strict=True):
            if min(side - side % factor for side in size) <= 2 * BORDER:
                raise ValueError(
                    f"scenes to test on must have sides of more than {2 * BORDER} pixels, of which {BORDER} at each "
                    f"end don't count, when cut to a multiple of {factor}, got {size[0]}×{size[1]} of {name}"
                )

    def part(self, scene: Scene) -> Scene:
        height, width = (side - side % self.factor for side in scene.depth.shape[1:])
        return Scene(scene.image[:, :height, :width], scene.depth[:, :height, :width])


class Crops(Examples):
    """Squares at random places, mirrored left to right by chance, to train on: drawn from PyTorch's global generator.

    Args:
        scenes, factor, sampling: as in `Examples`.
        size: of the squares, a multiple of the factor that fits into every scene.
        flip: whether to mirror them.
        per_scene: how many are taken of each scene in an epoch.

    Raises:
        ValueError: the factor doesn't divide the size, or a scene is smaller.
    """

    def __init__(
        self,
        scenes: DepthSet,
        factor: int,
        *,
        sampling: Sampling = "centre",
        size: int,
        flip: bool = True,
        per_scene: int = 1,
    ) -> None:
        super().__init__(scenes, factor, sampling=sampling)
        require_positive(size=size, per_scene=per_scene)
        if size % factor:
            raise ValueError(f"size must be a multiple of the factor {factor}, got {size}")
        for name, (height, width) in zip(scenes.names, scenes.sizes, strict=True):
            if min(height, width) < size:
                raise ValueError(f"crop must fit into every scene to train on, got {size} for {height}×{width} of "
                                 f"{name}: lower crop, or leave that scene out")
        self.size, self.flip, self.per_scene = size, flip, per_scene

    def __len__(self) -> int:
        return self.per_scene * len(self.scenes)

    def batch(self, positions: Sequence[int]) -> Batch:
        return super().batch([range(len(self))[position] % len(self.scenes) for position in positions])

    def part(self, scene: Scene) -> Scene:
        height, width = scene.depth.shape[1:]
        top, left = (int(torch.randint(side - self.size + 1, ())) for side in (height, width))
        mirrored = self.flip and bool(torch.rand(()) < 0.5)
        image, depth = (full[:, top : top + self.size, left : left + self.size] for full in scene)
        return Scene(image.flip(-1), depth.flip(-1)) if mirrored else Scene(image, depth)
