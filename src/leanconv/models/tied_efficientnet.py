"""EfficientNet with tied squeeze-and-excitation.

Wang & Yu, "Tied Block Convolution: Leaner and Better CNNs with Shared Thinner Filters", AAAI 2021, arXiv 2009.12021;
Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019, arXiv 1905.11946.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.efficientnet import _gen_efficientnet
from torch import nn

from leanconv.models.resnet import imagenet
from leanconv.nn import TiedSE


class RatioTiedSE(TiedSE):
    """TiedSE as timm's EfficientNet calls for it: by a ratio of hidden to all channels, 1 / r."""

    def __init__(self, channels: int, blocks: int, rd_ratio: float, act_layer: Any = None, **like: Any) -> None:
        super().__init__(channels, blocks=blocks, reduction=round(1 / rd_ratio), **like)


default_cfgs = generate_default_cfgs({
    "tied_efficientnet_b0.untrained": imagenet(
        interpolation="bicubic", first_conv="conv_stem", classifier="classifier"
    ),
})


@register_model
def tied_efficientnet_b0(pretrained: bool = False, *, blocks: int = 8, **options: Any) -> nn.Module:
    """EfficientNet-B0 with TiedSE: 4,662,771 parameters, 0.385 G multiply-accumulates."""
    if blocks not in (1, 2, 4, 8):
        raise ValueError(f"blocks must be 1, 2, 4 or 8, for EfficientNet's widths are multiples of 8, got {blocks!r}")
    return _gen_efficientnet(
        "tied_efficientnet_b0", pretrained=pretrained, se_layer=partial(RatioTiedSE, blocks=blocks), **options
    )
