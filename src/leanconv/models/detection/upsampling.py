"""Ways to double the size of a feature map in a feature pyramid's top-down path."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn

from leanconv.nn import DDFUp
from leanconv.ops.dynamic import ddf_up

SCALE = 2


class SpatialDDFUp(nn.Module):
    """Upsampling by filters made from the content, another for each output pixel, the same for all channels.

    A 1x1 convolution compresses the map, a 3x3 convolution makes scale² · k² weights for each pixel, and a softmax over
    the k² taps normalises each filter: `leanconv.ops.ddf_up` without the channels' filters. That is the upsampling of
    Wang et al., "CARAFE: Content-Aware ReAssembly of FEatures", ICCV 2019, arXiv 1905.02188, Eq. 1 and 2.

    Args:
        channels: C, of input and output.
        kernel_size: k, odd.
        compressed: channels after the 1x1 convolution.

    Shape:
        (N, C, H, W) to (N, C, 2 H, 2 W).

    >>> import torch
    >>> SpatialDDFUp(8)(torch.randn(1, 8, 5, 6)).shape
    torch.Size([1, 8, 10, 12])
    """

    def __init__(self, channels: int, kernel_size: int = 5, compressed: int = 64) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.compress = nn.Conv2d(channels, compressed, 1)
        self.encode = nn.Conv2d(compressed, SCALE**2 * kernel_size**2, 3, padding=1)
        nn.init.normal_(self.encode.weight, std=0.001)  # at first, each filter is nearly a mean of its taps
        nn.init.zeros_(cast(Tensor, self.encode.bias))

    def forward(self, input: Tensor) -> Tensor:
        filters = self.encode(self.compress(input)).unflatten(1, (SCALE**2, -1)).softmax(2).flatten(1, 2)
        return ddf_up(input, None, filters, SCALE, self.kernel_size)


def pixel_shuffle(channels: int) -> nn.Module:
    """A 3x3 convolution to four times the channels, which become the four sub-pixels."""
    expand = nn.Conv2d(channels, SCALE**2 * channels, 3, padding=1)
    nn.init.kaiming_uniform_(expand.weight, a=1)
    nn.init.zeros_(cast(Tensor, expand.bias))
    return nn.Sequential(expand, nn.PixelShuffle(SCALE))


UPSAMPLINGS: dict[str, Callable[[int], nn.Module]] = {
    "nearest": lambda channels: nn.Upsample(scale_factor=SCALE, mode="nearest"),
    "bilinear": lambda channels: nn.Upsample(scale_factor=SCALE, mode="bilinear"),
    "pixel-shuffle": pixel_shuffle,
    "spatial-ddf": SpatialDDFUp,
    "ddf-up": lambda channels: DDFUp(channels, SCALE, 3),
}
