"""Wide residual networks for CIFAR.

Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016, arXiv 1605.07146. Its shortcuts have a norm of their own
where the channels change, as in the code of ACNet (arXiv 1908.03930), which the costs of its paper are of.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from leanconv.models.cifar.network import PreActivationNetwork, build, configuration

__all__ = ["CifarWideResNet"]


class PreActivationBlock(nn.Module):
    """y = x + conv(ReLU(BN(conv(ReLU(BN(x)))))), the convolutions 3x3, the first with the stride.

    Where channels or size change, conv(ReLU(BN(x))) with a 1x1 convolution takes the place of x.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.act1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.act2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels or stride > 1:
            self.shortcut = nn.Sequential(OrderedDict(
                bn=nn.BatchNorm2d(in_channels),
                act=nn.ReLU(inplace=True),
                conv=nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
            ))

    def forward(self, input: Tensor) -> Tensor:
        residual = self.conv1(self.act1(self.bn1(input)))
        residual = self.conv2(self.act2(self.bn2(residual)))
        return self.shortcut(input) + residual


class CifarWideResNet(PreActivationNetwork):
    """A 3x3 stem with 16 channels, three stages of n blocks with 16w, 32w and 64w channels, a norm and a ReLU.

    In it, a norm follows the first convolution of each block alone: "asymmetric" and "ghost" take no other, unless
    with `norms=add`, as the code of ACNet does.

    Args:
        depth: 6n + 4.
        widening: w.
        num_classes: 0 leaves the classifier out.
        in_chans: channels of the images.
        global_pool: how the last maps are pooled, a name of timm's: "avg", "max", "" (not at all) and others.
        drop_rate: dropout before the classifier.

    Raises:
        ValueError: where depth isn't 6n + 4, or the widening isn't at least 1.

    >>> sum(parameter.numel() for parameter in CifarWideResNet(16, 1).parameters())
    175162
    """

    def __init__(
        self,
        depth: int,
        widening: int,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"depth must be 6n + 4 for a whole n of at least 1, got {depth}")
        if widening < 1:
            raise ValueError(f"widening must be at least 1, got {widening}")
        blocks = (depth - 4) // 6
        first, second, third = 16 * widening, 32 * widening, 64 * widening
        super().__init__(
            [stage(16, first, 1, blocks), stage(first, second, 2, blocks), stage(second, third, 2, blocks)],
            (16, first, second, third), num_classes, in_chans, global_pool, drop_rate,
        )


def stage(in_channels: int, out_channels: int, stride: int, blocks: int) -> nn.Sequential:
    """Blocks of one width; the first changes the channels and the size."""
    first = PreActivationBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(PreActivationBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)))


default_cfgs = generate_default_cfgs({"cifar_wrn16_8.untrained": configuration()})


@register_model
def cifar_wrn16_8(pretrained: bool = False, **options: Any) -> nn.Module:
    """WRN-16-8 for CIFAR: 10,962,170 parameters, 1,548.1 M multiply-accumulates at 32 × 32."""
    return build(partial(CifarWideResNet, depth=16, widening=8), "cifar_wrn16_8", pretrained, options)
