"""Residual networks of tied block convolutions: TiedResNet and TiedResNeXt.

Wang & Yu, "Tied Block Convolution: Leaner and Better CNNs with Shared Thinner Filters", AAAI 2021, arXiv 2009.12021.

A reconstruction. The paper's text fixes tied entrances with 2 blocks, plain exits, parallel splits with 1, 2, 4 and 8
blocks, a mixer that reads their sum, and names such as 4s×32w: 4 splits of base width 32. It doesn't fix the mixer's
form or what an odd width does. Those are chosen so that TiedResNet-50-S comes nearest to 54% of ResNet-50's parameters
and 60% of its multiply-accumulates: here 54.6% and 60.5%. One choice has no ground but these counts: entrances that
see the change of width, the first of each stage, are left untied. `tie_first=True` ties them, as the text has it
(52.3% and 56.1%). No natural form of TiedResNeXt has fewer parameters than ResNeXt at its 4s×64w.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from functools import reduce
from typing import Any, Literal

import torch
from timm.models import generate_default_cfgs, register_model
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from leanconv.errors import unknown
from leanconv.models.resnet import build_resnet, imagenet
from leanconv.nn import TiedConv2d, TiedSplitConv2d
from leanconv.nn.arguments import of_conv, require_positive

__all__ = ["TiedBottleneck"]

MIXERS = ("sum", "concat", "none")


class TiedBottleneck(Bottleneck):
    """The bottleneck whose 3x3 convolution is split into thinner ones, tied in more and more blocks.

    With w = ⌊planes · base_width / 64⌋ and s splits:

        u = ReLU BN TBC_1x1(x)                        (C → s·w, B = entrance_blocks; 1 in the first block of a stage)
        v = ReLU BN ⊕_i TBC_3x3(u_i)                  (w → w each with the stride, B = blocks_per_split[i])
        m = ReLU BN conv_1x1(v_1 + … + v_s)           (w → s·w; mixer="concat" reads v instead)
        y = ReLU(BN conv_1x1(v + m) + shortcut(x))    (s·w → 4 · planes)

    Args:
        inplanes, planes, stride, downsample: as in timm's `Bottleneck`.
        cardinality: G, groups in each split's convolution, that must divide w.
        base_width: w at planes = 64.
        act_layer, norm_layer: as in timm's `Bottleneck`.
        splits: s.
        blocks_per_split: B of each split; None for 1, 2, 4, … A number that doesn't divide w / G is reduced to the
            next smaller power of two that does.
        entrance_blocks: B of the entrance.
        mixer: what fuses the splits: "sum", "concat" or "none" (m = 0).
        tie_first: tie the entrance in the first block of a stage too.
        options: timm's `Bottleneck`'s other arguments. An anti-aliasing layer stands before the exit.

    Raises:
        ValueError: for an unknown mixer, numbers below 1, or blocks or groups that don't divide the channels.

    >>> block = TiedBottleneck(256, 64, base_width=18)
    >>> block(torch.randn(1, 256, 7, 7)).shape, [split.blocks for split in block.conv2.splits]
    (torch.Size([1, 256, 7, 7]), [1, 2, 2, 2])
    """

    conv1: Any
    conv2: Any

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        cardinality: int = 1,
        base_width: int = 32,
        act_layer: Any = nn.ReLU,
        norm_layer: Any = nn.BatchNorm2d,
        *,
        splits: int = 4,
        blocks_per_split: Sequence[int] | None = None,
        entrance_blocks: int = 2,
        mixer: Literal["sum", "concat", "none"] = "sum",
        tie_first: bool = False,
        **options: Any,
    ) -> None:
        require_positive(cardinality=cardinality, splits=splits, entrance_blocks=entrance_blocks)
        blocks_per_split = [2**index for index in range(splits)] if blocks_per_split is None else blocks_per_split
        if len(blocks_per_split) != splits or min(blocks_per_split) < 1:
            raise ValueError(f"blocks_per_split must be {splits} numbers of at least 1, got {tuple(blocks_per_split)}")
        if mixer not in MIXERS:
            raise unknown("mixer", mixer, MIXERS)
        if planes * base_width < 64:
            raise ValueError(f"base_width must be at least 64 / planes = 64 / {planes}, got {base_width}")
        # timm's grouped bottleneck has the splits' widths, and the norm and activation of all of them.
        super().__init__(inplanes, planes, stride, downsample, splits, base_width, act_layer=act_layer,
                         norm_layer=norm_layer, **options)
        if tie_first or downsample is None:
            self.conv1 = TiedConv2d(**of_conv(self.conv1), blocks=entrance_blocks)
        whole = of_conv(self.conv2)
        width, thin = whole["out_channels"] // splits, whole["in_channels"] // splits
        if math.gcd(width, thin) % cardinality:
            raise ValueError(f"cardinality must divide the channels of a split, got {cardinality} of {width} channels")
        shared = math.gcd(width, thin) // cardinality
        like = {"device": whole["device"], "dtype": whole["dtype"]}
        self.splits = splits
        self.mixer = mixer
        self.conv2 = TiedSplitConv2d(**whole | {"groups": cardinality},
                                     blocks=[fitting(blocks, shared) for blocks in blocks_per_split])
        if mixer != "none":
            read = width if mixer == "sum" else splits * width
            self.mix = nn.Sequential(OrderedDict(
                conv=nn.Conv2d(read, splits * width, 1, bias=False, **like),
                bn=norm_layer(splits * width, **like),
                act=act_layer(inplace=True),
            ))

    def forward(self, input: Tensor) -> Tensor:
        entered = self.act1(self.bn1(self.conv1(input)))
        middle = self.act2(self.drop_block(self.bn2(self.conv2(entered))))
        if self.mixer == "sum":
            middle = middle + self.mix(reduce(torch.add, middle.chunk(self.splits, 1)))
        elif self.mixer == "concat":
            middle = middle + self.mix(middle)
        output = self.bn3(self.conv3(self.aa(middle)))
        if self.se is not None:
            output = self.se(output)
        if self.drop_path is not None:
            output = self.drop_path(output)
        output += input if self.downsample is None else self.downsample(input)
        return self.act3(output)


def fitting(blocks: int, channels: int) -> int:
    """The number of blocks where it divides the channels, else the next smaller power of two that does.

    >>> fitting(8, 64), fitting(8, 36), fitting(6, 18), fitting(6, 64)
    (8, 4, 6, 4)
    """
    return blocks if channels % blocks == 0 else math.gcd(channels, 2 ** (blocks.bit_length() - 1))


default_cfgs = generate_default_cfgs({
    "tied_resnet50.untrained": imagenet(),
    "tied_resnet50_s.untrained": imagenet(),
    "tied_resnet101.untrained": imagenet(),
    "tied_resnet101_s.untrained": imagenet(),
    "tied_resnext50.untrained": imagenet(),
    "tied_resnext50_s.untrained": imagenet(),
})


@register_model
def tied_resnet50(pretrained: bool = False, **options: Any) -> nn.Module:
    """TiedResNet-50, 4s×32w: 23,188,632 parameters, 4.455 G multiply-accumulates."""
    return build_resnet("tied_resnet50", pretrained, options, TiedBottleneck, (3, 4, 6, 3), base_width=32)


@register_model
def tied_resnet50_s(pretrained: bool = False, **options: Any) -> nn.Module:
    """TiedResNet-50-S, 4s×18w: 13,943,863 parameters, 2.474 G multiply-accumulates."""
    return build_resnet("tied_resnet50_s", pretrained, options, TiedBottleneck, (3, 4, 6, 3), base_width=18)


@register_model
def tied_resnet101(pretrained: bool = False, **options: Any) -> nn.Module:
    """TiedResNet-101, 4s×32w: 38,860,184 parameters, 8.215 G multiply-accumulates."""
    return build_resnet("tied_resnet101", pretrained, options, TiedBottleneck, (3, 4, 23, 3), base_width=32)


@register_model
def tied_resnet101_s(pretrained: bool = False, **options: Any) -> nn.Module:
    """TiedResNet-101-S, 4s×18w: 21,680,852 parameters, 4.308 G multiply-accumulates."""
    return build_resnet("tied_resnet101_s", pretrained, options, TiedBottleneck, (3, 4, 23, 3), base_width=18)


@register_model
def tied_resnext50(pretrained: bool = False, **options: Any) -> nn.Module:
    """TiedResNeXt-50, 4s×64w, 8 groups a split: 38,390,368 parameters, 7.541 G multiply-accumulates."""
    return build_resnet("tied_resnext50", pretrained, options, TiedBottleneck, (3, 4, 6, 3), base_width=64,
                        cardinality=8)


@register_model
def tied_resnext50_s(pretrained: bool = False, **options: Any) -> nn.Module:
    """TiedResNeXt-50-S, 4s×36w, 4 groups a split: 22,673,620 parameters, 4.368 G multiply-accumulates."""
    return build_resnet("tied_resnext50_s", pretrained, options, TiedBottleneck, (3, 4, 6, 3), base_width=36,
                        cardinality=4)
