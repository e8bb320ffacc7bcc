"""VGG-16 for CIFAR, with norms and two small linear layers.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
arXiv 1409.1556. This form of it is the baseline of Ghost-VGG-16 (arXiv 1911.11907), of ACNet (1908.03930) and of SPConv
(2006.12085).
"""

from __future__ import annotations

from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from leanconv.models.cifar.network import CifarNetwork, build, configuration, unit

__all__ = ["CifarVgg"]

WIDTHS = (64, 128, 256, 512, 512)


class CifarVgg(CifarNetwork):
    """Thirteen 3x3 convolutions with norms and ReLUs in five stages, max pooling after each, and two linear layers.

    Args:
        num_classes: 0 leaves the classifier out.
        in_chans: channels of the images.
        global_pool: how the last map is pooled, where the image has more than 32 × 32 pixels: "avg", "max", "avgmax" or
            "" (not at all).
        drop_rate: dropout before the classifier.

    >>> sum(parameter.numel() for parameter in CifarVgg().parameters())
    14986698
    """

    def __init__(
        self, num_classes: int = 10, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0
    ) -> None:
        super().__init__(num_classes, in_chans, drop_rate)
        self.layer1 = nn.Sequential(*units(in_chans, 64, 2))  # H × W
        self.layer2 = nn.Sequential(halving(), *units(64, 128, 2))  # ⌈H/2⌉ × ⌈W/2⌉
        self.layer3 = nn.Sequential(halving(), *units(128, 256, 3))  # ⌈H/4⌉ × ⌈W/4⌉
        self.layer4 = nn.Sequential(halving(), *units(256, 512, 3))  # ⌈H/8⌉ × ⌈W/8⌉
        self.layer5 = nn.Sequential(halving(), *units(512, 512, 3))  # ⌈H/16⌉ × ⌈W/16⌉
        self.pool = halving()  # ⌈H/32⌉ × ⌈W/32⌉
        self.feature_info = [
            {"num_chs": width, "reduction": 2**index, "module": f"layer{index + 1}"}
            for index, width in enumerate(WIDTHS)
        ]
        self.add_head(512, global_pool, hidden_size=512)

    def stem(self, images: Tensor) -> Tensor:
        return self.layer1(images)

    def blocks(self) -> list[nn.Module]:
        return [*self.layer2, *self.layer3, *self.layer4, *self.layer5]

    def tail(self, maps: Tensor) -> Tensor:
        return self.pool(maps)


def units(in_channels: int, width: int, count: int) -> list[nn.Module]:
    """3x3 convolutions of one width, each with its norm and ReLU."""
    return [unit(width if index else in_channels, width, 3) for index in range(count)]


def halving() -> nn.MaxPool2d:
    """The largest of each 2x2 pixels, of those that there are at an odd edge."""
    return nn.MaxPool2d(2, ceil_mode=True)


default_cfgs = generate_default_cfgs({"cifar_vgg16.untrained": configuration("layer1.0.conv", pool_size=(1, 1))})


@register_model
def cifar_vgg16(pretrained: bool = False, **options: Any) -> nn.Module:
    """VGG-16 for CIFAR: 14,986,698 parameters, 313.46 M multiply-accumulates at 32 × 32."""
    return build(CifarVgg, "cifar_vgg16", pretrained, options, taps=5)
