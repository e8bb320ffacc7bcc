"""Densely connected networks for CIFAR, without bottlenecks and compression.

Huang et al., "Densely Connected Convolutional Networks", CVPR 2017, arXiv 1608.06993.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from leanconv.models.cifar.network import PreActivationNetwork, build, configuration

__all__ = ["CifarDenseNet"]

STEM = 16


class DenseLayer(nn.Module):
    """y = x ⊕ conv(ReLU(BN(x))), a 3x3 convolution to `growth` channels; ⊕ concatenates channels."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(in_channels)
        self.act = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(in_channels, growth, 3, padding=1, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat([input, self.conv(self.act(self.bn(input)))], 1)


def transition(channels: int) -> nn.Sequential:
    """The mean of each 2x2 pixels of conv(ReLU(BN(x))), a 1x1 convolution; all of those that there are at an edge."""
    return nn.Sequential(OrderedDict(
        bn=nn.BatchNorm2d(channels),
        act=nn.ReLU(inplace=True),
        conv=nn.Conv2d(channels, channels, 1, bias=False),
        pool=nn.AvgPool2d(2, ceil_mode=True),
    ))


class CifarDenseNet(PreActivationNetwork):
    """A 3x3 stem with 16 channels, three blocks of n dense layers with transitions in between, a norm and a ReLU.

    A norm follows none of its convolutions alone: "asymmetric" and "ghost" need `norms=add` to take any.

    Args:
        depth: 3n + 4.
        growth: channels that each layer adds.
        num_classes: 0 leaves the classifier out.
        in_chans: channels of the images.
        global_pool: how the last maps are pooled, a name of timm's: "avg", "max", "" (not at all) and others.
        drop_rate: dropout before the classifier.

    Raises:
        ValueError: where depth isn't 3n + 4, or the growth isn't at least 1.

    >>> sum(parameter.numel() for parameter in CifarDenseNet(40, 12).parameters())
    1019722
    """

    def __init__(
        self,
        depth: int,
        growth: int,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        if depth < 7 or depth % 3 != 1:
            raise ValueError(f"depth must be 3n + 4 for a whole n of at least 1, got {depth}")
        if growth < 1:
            raise ValueError(f"growth must be at least 1, got {growth}")
        layers = (depth - 4) // 3
        first, second, third = (STEM + index * layers * growth for index in (1, 2, 3))
        super().__init__(
            [
                nn.Sequential(*dense_layers(STEM, growth, layers)),
                nn.Sequential(transition(first), *dense_layers(first, growth, layers)),
                nn.Sequential(transition(second), *dense_layers(second, growth, layers)),
            ],
            (STEM, first, second, third), num_classes, in_chans, global_pool, drop_rate,
        )


def dense_layers(in_channels: int, growth: int, count: int) -> list[nn.Module]:
    return [DenseLayer(in_channels + index * growth, growth) for index in range(count)]


default_cfgs = generate_default_cfgs({"cifar_densenet40.untrained": configuration()})


@register_model
def cifar_densenet40(pretrained: bool = False, **options: Any) -> nn.Module:
    """DenseNet-40 for CIFAR, with a growth of 12: 1,019,722 parameters, 264.81 M multiply-accumulates at 32 × 32."""
    return build(partial(CifarDenseNet, depth=40, growth=12), "cifar_densenet40", pretrained, options)
