"""Residual networks for CIFAR.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385, section 4.2.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch.nn.functional as F
from timm.models import clean_state_dict, generate_default_cfgs, register_model
from torch import Tensor, nn

from leanconv.errors import unknown
from leanconv.models.cifar.network import CifarNetwork, build, configuration

__all__ = ["CifarResNet"]

WIDTHS = (16, 32, 64)


class SubsampleAndPad(nn.Module):
    """The shortcut without parameters (option A): every second pixel; new channels are zeros, half on either side."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before

    def forward(self, input: Tensor) -> Tensor:
        # Pooling single pixels is slicing, but the result is dense: padding a slice can lose channels_last.
        pixels = F.avg_pool2d(input, 1, self.stride)
        return F.pad(pixels, (0, 0, 0, 0, self.before, self.after))


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """The shortcut with parameters (option B): a 1x1 convolution and its norm."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


SHORTCUTS = {"A": SubsampleAndPad, "B": projection}


class Block(nn.Module):
    """y = ReLU(x + BN(conv(ReLU(BN(conv(x)))))), the convolutions 3x3, the first with the stride."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        same = in_channels == out_channels and stride == 1
        self.shortcut = nn.Identity() if same else SHORTCUTS[shortcut](in_channels, out_channels, stride)
        self.act2 = nn.ReLU(inplace=True)

    def forward(self, input: Tensor) -> Tensor:
        residual = self.act1(self.bn1(self.conv1(input)))
        residual = self.bn2(self.conv2(residual))
        return self.act2(self.shortcut(input) + residual)


class CifarResNet(CifarNetwork):
    """A residual network of 6n + 2 layers: a 3x3 stem, then three stages of n blocks with 16, 32 and 64 channels.

    Takes images of any size; made for 32 × 32.

    Args:
        depth: 6n + 2.
        num_classes: 0 leaves the classifier out.
        in_chans: channels of the images.
        global_pool: how the last map is pooled, a name of timm's: "avg", "max", "" (not at all) and others.
        drop_rate: dropout before the classifier.
        shortcut: where the number of channels changes, "A" (no parameters, as in the paper's CIFAR networks) or "B"
            (1x1 convolution).

    Raises:
        ValueError: where depth isn't 6n + 2, or the shortcut is unknown.

    >>> sum(parameter.numel() for parameter in CifarResNet(20).parameters())
    269722
    """

    def __init__(
        self,
        depth: int,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        shortcut: str = "A",
    ) -> None:
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"depth must be 6n + 2 for a whole n of at least 1, got {depth}")
        if shortcut not in SHORTCUTS:
            raise unknown("shortcut", shortcut, SHORTCUTS)
        blocks = (depth - 2) // 6
        super().__init__(num_classes, in_chans, drop_rate)
        self.conv1 = nn.Conv2d(in_chans, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.act1 = nn.ReLU(inplace=True)
        self.layer1 = stage(WIDTHS[0], WIDTHS[0], 1, blocks, shortcut)  # H × W
        self.layer2 = stage(WIDTHS[0], WIDTHS[1], 2, blocks, shortcut)  # ⌈H/2⌉ × ⌈W/2⌉
        self.layer3 = stage(WIDTHS[1], WIDTHS[2], 2, blocks, shortcut)  # ⌈H/4⌉ × ⌈W/4⌉
        self.feature_info = [
            {"num_chs": width, "reduction": 2**index, "module": f"layer{index + 1}"}
            for index, width in enumerate(WIDTHS)
        ]
        self.add_head(WIDTHS[-1], global_pool)

    def stem(self, images: Tensor) -> Tensor:
        return self.act1(self.bn1(self.conv1(images)))

    def blocks(self) -> list[nn.Module]:
        return [*self.layer1, *self.layer2, *self.layer3]


def stage(in_channels: int, out_channels: int, stride: int, blocks: int, shortcut: str) -> nn.Sequential:
    """Blocks of one width; the first changes the channels and the size."""
    first = Block(in_channels, out_channels, stride, shortcut)
    return nn.Sequential(first, *(Block(out_channels, out_channels, 1, shortcut) for _ in range(blocks - 1)))


def checkpoint_filter_fn(state: dict[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """Renames the weights of github.com/akamaster/pytorch_resnet_cifar10 to those of `CifarResNet`."""
    bare = clean_state_dict(state.get("state_dict", state))
    return {name.replace("linear.", "fc."): tensor for name, tensor in bare.items()}


def published(file: str) -> dict[str, Any]:
    """What timm knows of weights published by github.com/akamaster/pytorch_resnet_cifar10."""
    return configuration(url=f"https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/{file}")


default_cfgs = generate_default_cfgs({
    "cifar_resnet20.akamaster_cifar10": published("resnet20-12fca82f.th"),
    "cifar_resnet32.akamaster_cifar10": published("resnet32-d509ac18.th"),
    "cifar_resnet44.akamaster_cifar10": published("resnet44-014dd654.th"),
    "cifar_resnet56.akamaster_cifar10": published("resnet56-4bfd9763.th"),
})


@register_model
def cifar_resnet20(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-20 for CIFAR: 269,722 parameters, 40.55 M multiply-accumulates at 32 × 32."""
    return build(partial(CifarResNet, depth=20), "cifar_resnet20", pretrained, options, renamed=checkpoint_filter_fn)


@register_model
def cifar_resnet32(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-32 for CIFAR: 464,154 parameters, 68.86 M multiply-accumulates at 32 × 32."""
    return build(partial(CifarResNet, depth=32), "cifar_resnet32", pretrained, options, renamed=checkpoint_filter_fn)


@register_model
def cifar_resnet44(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-44 for CIFAR: 658,586 parameters, 97.17 M multiply-accumulates at 32 × 32."""
    return build(partial(CifarResNet, depth=44), "cifar_resnet44", pretrained, options, renamed=checkpoint_filter_fn)


@register_model
def cifar_resnet56(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-56 for CIFAR: 853,018 parameters, 125.49 M multiply-accumulates at 32 × 32."""
    return build(partial(CifarResNet, depth=56), "cifar_resnet56", pretrained, options, renamed=checkpoint_filter_fn)
