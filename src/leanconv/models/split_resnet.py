"""ResNets with split convolutions (SPConv-ResNet).

Zhang et al., "Split to Be Slim: An Overlooked Redundancy in Vanilla Convolution", IJCAI 2020, arXiv 2006.12085.

All take the options of `SplitBottleneck`.
"""

from __future__ import annotations

from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.resnet import Bottleneck
from torch import nn

from leanconv.models.resnet import build_resnet, imagenet, take_over
from leanconv.nn import SplitConv2d
from leanconv.nn.arguments import of_conv

__all__ = ["SplitBottleneck"]


class SplitBottleneck(Bottleneck):
    """y = ReLU(x + BN(conv₁(ReLU(BN(split(ReLU(BN(conv₁(x)))))))): timm's bottleneck, its 3x3 a `SplitConv2d`.

    conv₁ is 1x1. The split convolution has a norm for each of its two parts, and the block's follows.

    Args:
        arguments, options: as timm's `Bottleneck` takes them; the cardinality must be 1.
        alpha, group_count: as `SplitConv2d` takes them.

    Raises:
        ValueError: for norms other than `nn.BatchNorm2d`, and where `SplitConv2d` refuses its arguments.

    >>> SplitBottleneck(256, 64, alpha=0.25).conv2.representative_channels
    16
    """

    conv2: Any

    def __init__(self, *arguments: Any, alpha: float = 0.5, group_count: int = 2, **options: Any) -> None:
        super().__init__(*arguments, **options)
        split = SplitConv2d(**of_conv(self.conv2) | {"bias": True}, alpha=alpha, group_count=group_count)
        self.conv2 = take_over(split, self.bn2)


default_cfgs = generate_default_cfgs({
    f"split_resnet{depth}_a{share}.untrained": imagenet() for depth in (50, 101) for share in (2, 4, 8)
})


@register_model
def split_resnet50_a2(pretrained: bool = False, **options: Any) -> nn.Module:
    """SPConv-ResNet-50, α = 1/2: 18,345,448 parameters, 2.907 G multiply-accumulates."""
    return build_resnet("split_resnet50_a2", pretrained, options, SplitBottleneck, (3, 4, 6, 3), alpha=1 / 2)


@register_model
def split_resnet50_a4(pretrained: bool = False, **options: Any) -> nn.Module:
    """SPConv-ResNet-50, α = 1/4: 16,930,792 parameters, 2.676 G multiply-accumulates."""
    return build_resnet("split_resnet50_a4", pretrained, options, SplitBottleneck, (3, 4, 6, 3), alpha=1 / 4)


@register_model
def split_resnet50_a8(pretrained: bool = False, **options: Any) -> nn.Module:
    """SPConv-ResNet-50, α = 1/8: 16,223,464 parameters, 2.561 G multiply-accumulates."""
    return build_resnet("split_resnet50_a8", pretrained, options, SplitBottleneck, (3, 4, 6, 3), alpha=1 / 8)


@register_model
def split_resnet101_a2(pretrained: bool = False, **options: Any) -> nn.Module:
    """SPConv-ResNet-101, α = 1/2: 30,953,192 parameters, 5.364 G multiply-accumulates."""
    return build_resnet("split_resnet101_a2", pretrained, options, SplitBottleneck, (3, 4, 23, 3), alpha=1 / 2)


@register_model
def split_resnet101_a4(pretrained: bool = False, **options: Any) -> nn.Module:
    """SPConv-ResNet-101, α = 1/4: 28,285,160 parameters, 4.887 G multiply-accumulates."""
    return build_resnet("split_resnet101_a4", pretrained, options, SplitBottleneck, (3, 4, 23, 3), alpha=1 / 4)


@register_model
def split_resnet101_a8(pretrained: bool = False, **options: Any) -> nn.Module:
    """SPConv-ResNet-101, α = 1/8: 26,951,144 parameters, 4.649 G multiply-accumulates."""
    return build_resnet("split_resnet101_a8", pretrained, options, SplitBottleneck, (3, 4, 23, 3), alpha=1 / 8)
