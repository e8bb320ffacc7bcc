"""Cifar-quick: the small network of Caffe's CIFAR example, with norms.

Ding et al., "ACNet: Strengthening the Kernel Skeletons for Powerful CNN via Asymmetric Convolution Blocks", ICCV 2019,
arXiv 1908.03930, whose code adds the norms.
"""

from __future__ import annotations

from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from leanconv.models.cifar.network import CifarNetwork, build, configuration, unit

__all__ = ["CifarQuick"]


class CifarQuick(CifarNetwork):
    """Three 5x5 convolutions with norms and ReLUs, each followed by 3x3 pooling with stride 2, and two linear layers.

    The first pooling takes the largest pixel, the others the mean. Images have at least 15 × 15 pixels; the last maps
    of others than 32 × 32 are pooled to its 3 × 3.

    Args:
        num_classes: 0 leaves the classifier out.
        in_chans: channels of the images.
        global_pool: how the last maps are pooled to 3 × 3: "avg", "max", "avgmax" or "" (not at all).
        drop_rate: dropout before the classifier.

    >>> sum(parameter.numel() for parameter in CifarQuick().parameters())
    117034
    """

    def __init__(
        self, num_classes: int = 10, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0
    ) -> None:
        super().__init__(num_classes, in_chans, drop_rate)
        self.layer1 = unit(in_chans, 32, 5)  # H × W
        self.layer2 = nn.Sequential(nn.MaxPool2d(3, 2), unit(32, 32, 5))  # 15 × 15 of 32 × 32
        self.layer3 = nn.Sequential(nn.AvgPool2d(3, 2), unit(32, 64, 5))  # 7 × 7
        self.pool = nn.AvgPool2d(3, 2)  # 3 × 3
        self.feature_info = [
            {"num_chs": channels, "reduction": 2**index, "module": f"layer{index + 1}"}
            for index, channels in enumerate((32, 32, 64))
        ]
        self.add_head(64, global_pool, pooled_size=3, hidden_size=64)

    def stem(self, images: Tensor) -> Tensor:
        return self.layer1(images)

    def blocks(self) -> list[nn.Module]:
        return [self.layer2, self.layer3]

    def tail(self, maps: Tensor) -> Tensor:
        return self.pool(maps)


default_cfgs = generate_default_cfgs({"cifar_quick.untrained": configuration("layer1.conv", pool_size=(3, 3))})


@register_model
def cifar_quick(pretrained: bool = False, **options: Any) -> nn.Module:
    """Cifar-quick with norms: 117,034 parameters, 10.76 M multiply-accumulates at 32 × 32."""
    return build(CifarQuick, "cifar_quick", pretrained, options)
