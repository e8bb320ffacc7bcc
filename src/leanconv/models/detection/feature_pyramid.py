"""The feature pyramid, with a choice of how its top-down path doubles the maps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from leanconv.errors import unknown
from leanconv.models.detection.upsampling import UPSAMPLINGS

EXTRAS = ("none", "pool", "convolutions")
Upsample = Literal["nearest", "bilinear", "pixel-shuffle", "spatial-ddf", "ddf-up"]
Extra = Literal["none", "pool", "convolutions"]


class FeaturePyramid(FeaturePyramidNetwork):
    """Feature maps of one width at all levels, each with what the coarser ones know.

        T_l = conv_1x1(C_l) + up(T_{l+1})        (no second term at the coarsest level)
        P_l = conv_3x3(T_l)

    Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, arXiv 1612.03144, Fig. 3. Each step from
    level to level has an `up` of its own. With "ddf-up" it is that of Zhou et al., "Decoupled Dynamic Filter Networks",
    CVPR 2021, arXiv 2104.14107, Fig. 6a. The parameters' names are torchvision's, and with "nearest" so is the result.

    Args:
        in_channels: channels of each C_l, from fine to coarse.
        channels: C, of all P_l.
        upsample: "nearest", "bilinear", "pixel-shuffle" (a 3x3 convolution to 4 C channels), "spatial-ddf" (filters for
            each pixel, `SpatialDDFUp`) or "ddf-up" (filters for each pixel and channel, `leanconv.nn.DDFUp`).
        extra: what comes after the coarsest level: "none"; "pool", every second pixel of it, for proposals; or
            "convolutions", two convolutions of stride 2 one after the other, for RetinaNet.

    Shape:
        (N, C_l, H_l, W_l), each half the size of the one before, rounded up, to (N, C, H_l, W_l).

    Raises:
        ValueError: for an unknown upsampling or extra; in `forward`, where a map is larger than twice the next one.

    >>> import torch
    >>> maps = {"fine": torch.randn(1, 8, 7, 9), "coarse": torch.randn(1, 16, 4, 5)}
    >>> {name: tuple(map.shape) for name, map in FeaturePyramid([8, 16], 4, upsample="ddf-up")(maps).items()}
    {'fine': (1, 4, 7, 9), 'coarse': (1, 4, 4, 5)}
    """

    def __init__(
        self, in_channels: Sequence[int], channels: int = 256, *, upsample: Upsample = "nearest", extra: Extra = "none"
    ) -> None:
        if upsample not in UPSAMPLINGS:
            raise unknown("upsampling", upsample, UPSAMPLINGS)
        if extra not in EXTRAS:
            raise unknown("extra", extra, EXTRAS)
        last = {"none": lambda: None, "pool": LastLevelMaxPool,
                "convolutions": lambda: LastLevelP6P7(channels, channels)}[extra]()
        super().__init__(list(in_channels), channels, last)
        self.upsamplers = nn.ModuleList(UPSAMPLINGS[upsample](channels) for _ in in_channels[1:])

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        names, inputs = list(maps), list(maps.values())
        tops = [self.inner_blocks[-1](inputs[-1])]
        for level in reversed(range(len(inputs) - 1)):
            lateral = self.inner_blocks[level](inputs[level])
            tops.insert(0, lateral + cropped(self.upsamplers[level](tops[0]), lateral))
        results = [smooth(top) for smooth, top in zip(self.layer_blocks, tops, strict=True)]
        if self.extra_blocks is not None:
            results, names = self.extra_blocks(results, inputs, names)
        return OrderedDict(zip(names, results, strict=True))


def cropped(map: Tensor, like: Tensor) -> Tensor:
    """The top left part of a map, of another's size."""
    height, width = like.shape[-2:]
    if map.shape[-2] < height or map.shape[-1] < width:
        raise ValueError(f"maps must be at most twice the size of the next coarser one, got {height} x {width} pixels "
                         f"where that makes {map.shape[-2]} x {map.shape[-1]}")
    return map[..., :height, :width]
