"""What networks that enlarge a depth map along an image have in common, whatever does the enlarging."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = 32  # of the depth's features
GUIDE_CHANNELS = 16  # of the image's features, for each step


class JointUpsamplingNet(nn.Module):
    """Depth features are enlarged twofold, step by step, each step guided by features of the image.

    Three 5x5 convolutions make features of the depth, three those of the image: 16 channels for each step, brought to
    the size of its output. A ReLU follows each step; two 5x5 convolutions make the depth. After PAC-Net: Su et al.,
    "Pixel-Adaptive Convolutional Neural Networks", CVPR 2019, arXiv 1904.05373.

    Args:
        factor: between the sizes of the depth and the image: 2, 4, 8, 16 and so on.
        step: makes a module that takes features (N, 32, h, w) and a guidance (N, 16, 2h, 2w) to (N, 32, 2h, 2w).
        depth_channels: of the depth, 1, or of another map to be enlarged.
        image_channels: of the image.

    Shape:
        (N, depth_channels, h, w) and (N, image_channels, h · factor, w · factor) to
        (N, depth_channels, h · factor, w · factor).

    Raises:
        ValueError: the factor isn't a power of two from 2 on; in `forward`, for maps of other shapes.
    """

    def __init__(
        self, factor: int, step: Callable[[], nn.Module], *, depth_channels: int = 1, image_channels: int = 3
    ) -> None:
        super().__init__()
        if factor < 2 or factor & (factor - 1):
            raise ValueError(f"factor must be a power of two, 2 or more, got {factor}")
        self.factor, self.depth_channels, self.image_channels = factor, depth_channels, image_channels
        steps = factor.bit_length() - 1
        self.depth_features = convolutions(depth_channels, CHANNELS, CHANNELS, CHANNELS)
        self.image_features = convolutions(image_channels, CHANNELS, CHANNELS, steps * GUIDE_CHANNELS)
        self.steps = nn.ModuleList(step() for _ in range(steps))
        self.head = convolutions(CHANNELS, CHANNELS, depth_channels)

    def forward(self, depth: Tensor, image: Tensor) -> Tensor:
        self.check(depth, image)
        features = self.depth_features(depth)
        guidances = self.image_features(image).chunk(len(self.steps), 1)
        for step, guidance in zip(self.steps, guidances, strict=True):
            size = (2 * features.shape[-2], 2 * features.shape[-1])
            features = F.relu(step(features, F.interpolate(guidance, size, mode="bilinear")))
        return self.head(features)

    def check(self, depth: Tensor, image: Tensor) -> None:
        if depth.dim() != 4 or depth.shape[1] != self.depth_channels:
            raise ValueError(f"depth must be (N, {self.depth_channels}, h, w), got {tuple(depth.shape)}")
        batch, _, height, width = depth.shape
        expected = (batch, self.image_channels, height * self.factor, width * self.factor)
        if image.shape != expected:
            raise ValueError(
                f"image must be {expected}, {self.factor} times the depth's size, got {tuple(image.shape)}")


def convolutions(*channels: int) -> nn.Sequential:
    """5x5 convolutions from each number of channels to the next, with a ReLU between."""
    layers: list[nn.Module] = []
    for ins, outs in pairwise(channels):
        layers += [nn.ReLU(), nn.Conv2d(ins, outs, 5, padding=2)]
    return nn.Sequential(*layers[1:])
