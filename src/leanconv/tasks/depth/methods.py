"""Methods that take a low-resolution depth map and an image to the depth at the image's size.

Each is called with the depth (N, 1, h, w) in the data's unit and the image (N, 3, H, W) in 0..1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.ops.joint_bilateral import joint_bilateral_upsample

Method = Callable[[Tensor, Tensor], Tensor]
IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def nearest(low: Tensor, image: Tensor) -> Tensor:
    return F.interpolate(low, image.shape[-2:])


def bilinear(low: Tensor, image: Tensor) -> Tensor:
    return F.interpolate(low, image.shape[-2:], mode="bilinear")


def bicubic(low: Tensor, image: Tensor) -> Tensor:
    """With Keys's kernel (a = −½), as published figures: PyTorch has that only under the name of antialiasing."""
    return F.interpolate(low, image.shape[-2:], mode="bicubic", antialias=True)


def joint_bilateral(low: Tensor, image: Tensor) -> Tensor:
    return joint_bilateral_upsample(low, image)


BASELINES: Mapping[str, Method] = MappingProxyType(
    {"nearest": nearest, "bilinear": bilinear, "bicubic": bicubic, "joint-bilateral": joint_bilateral}
)


class Upsampler(nn.Module):
    """A network as a method: it sees (low − mean) / std and an image normalised likewise, and answers in that scale.

    Args:
        network: takes both to the depth at the image's size.
        depth_mean, depth_std: in the data's unit, as `depth_statistics` gives them.
        image_mean, image_std: of each channel; by default those of ImageNet.

    Raises:
        ValueError: a deviation isn't above 0.
    """

    def __init__(
        self,
        network: nn.Module,
        depth_mean: float,
        depth_std: float,
        image_mean: tuple[float, ...] = IMAGE_MEAN,
        image_std: tuple[float, ...] = IMAGE_STD,
    ) -> None:
        super().__init__()
        if not min(depth_std, *image_std) > 0:
            raise ValueError(f"depth_std and image_std must be above 0, got {depth_std} and {image_std}")
        self.network = network
        for name, values in (("depth_mean", depth_mean), ("depth_std", depth_std),
                             ("image_mean", image_mean), ("image_std", image_std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1))

    depth_mean: Tensor
    depth_std: Tensor
    image_mean: Tensor
    image_std: Tensor

    def forward(self, low: Tensor, image: Tensor) -> Tensor:
        output = self.network((low - self.depth_mean) / self.depth_std, (image - self.image_mean) / self.image_std)
        return output * self.depth_std + self.depth_mean
