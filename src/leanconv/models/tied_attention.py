"""Residual networks with tied channel attention: TiedSENet and TiedGCNet.

Wang & Yu, "Tied Block Convolution: Leaner and Better CNNs with Shared Thinner Filters", AAAI 2021, arXiv 2009.12021.

The attention stands after a block's last norm, before the addition. At its published settings it reproduces the paper's
counts: 64 times fewer weights than squeeze-and-excitation (B = 8, r = 16: 0.04 M of 2.53 M parameters), and 2.5 M
parameters instead of 10 M for global context (B = 2, ratio 1/4, in the last three stages). The paper doesn't say
whether its TiedSENet is TiedResNet with TiedSE or ResNet with it: both are here.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.resnet import Bottleneck
from torch import nn

from leanconv.models.resnet import build_resnet, imagenet
from leanconv.models.tied_resnet import TiedBottleneck
from leanconv.nn import TiedGlobalContext, TiedSE

LAYERS = (3, 4, 6, 3)


class PlainBottleneck(Bottleneck):
    """timm's bottleneck without the attention that the other stages have."""

    def __init__(self, *args: Any, attn_layer: Any, **options: Any) -> None:
        super().__init__(*args, **options)


default_cfgs = generate_default_cfgs({
    "tied_senet50.untrained": imagenet(),
    "tied_seresnet50.untrained": imagenet(),
    "tied_gcresnet50.untrained": imagenet(),
})


@register_model
def tied_senet50(pretrained: bool = False, *, blocks: int = 8, reduction: int = 16, **options: Any) -> nn.Module:
    """TiedResNet-50 with TiedSE: 23,229,934 parameters, 4.456 G multiply-accumulates."""
    attention = partial(TiedSE, blocks=blocks, reduction=reduction)
    return build_resnet("tied_senet50", pretrained, options, TiedBottleneck, LAYERS, attn_layer=attention,
                        base_width=32)


@register_model
def tied_seresnet50(pretrained: bool = False, *, blocks: int = 8, reduction: int = 16, **options: Any) -> nn.Module:
    """ResNet-50 with TiedSE: 25,598,334 parameters, 4.089 G multiply-accumulates."""
    attention = partial(TiedSE, blocks=blocks, reduction=reduction)
    return build_resnet("tied_seresnet50", pretrained, options, Bottleneck, LAYERS, attn_layer=attention)


@register_model
def tied_gcresnet50(pretrained: bool = False, *, blocks: int = 2, ratio: float = 1 / 4, **options: Any) -> nn.Module:
    """ResNet-50 with TiedGCB in its last three stages: 28,077,877 parameters, 4.100 G multiply-accumulates."""
    attention = partial(TiedGlobalContext, blocks=blocks, ratio=ratio)
    stages = (PlainBottleneck, Bottleneck, Bottleneck, Bottleneck)
    return build_resnet("tied_gcresnet50", pretrained, options, stages, LAYERS, attn_layer=attention)
