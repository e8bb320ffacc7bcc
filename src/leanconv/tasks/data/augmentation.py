"""Random changes to batches of small images, by PyTorch's global generator.

torchvision's transforms draw one offset for a whole batch, or take an image at a time and ten times as long.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class ShiftAndFlip:
    """Shifts each image of a batch by its own offset, then mirrors it with probability 1/2.

    The padded crop of He et al., Deep Residual Learning (2016), section 4.2: 4 pixels for CIFAR's 32.

    Args:
        padding: shifts go up to so many pixels along each axis; zeros come in at the edge.
        flip: whether left and right may be exchanged.

    >>> ShiftAndFlip(padding=2, flip=True)(torch.zeros(5, 3, 16, 16, dtype=torch.uint8)).shape
    torch.Size([5, 3, 16, 16])
    """

    padding: int
    flip: bool

    def __call__(self, images: Tensor) -> Tensor:
        images = random_shift(images, self.padding)
        return random_flip(images) if self.flip else images


def random_shift(images: Tensor, padding: int) -> Tensor:
    """Shifts each image [N, C, H, W] by -padding..padding pixels along each axis."""
    height, width = images.shape[-2:]
    padded = F.pad(images, (padding,) * 4)
    offsets = torch.randint(2 * padding + 1, (len(images), 2)).tolist()
    return torch.stack([
        image[:, top : top + height, left : left + width]
        for image, (top, left) in zip(padded, offsets, strict=True)
    ])


def random_flip(images: Tensor) -> Tensor:
    """Exchanges left and right in each image [N, C, H, W] with probability 1/2."""
    flipped = torch.rand(len(images)) < 0.5
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)
