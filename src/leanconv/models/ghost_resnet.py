"""ResNets whose convolutions are Ghost modules (Ghost-ResNet).

Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020, arXiv 1911.11907, section 4.2.

All take the options of `GhostBottleneck`. The published parameters, 13.0 M and 6.5 M, belong to no known construction:
multiply-accumulates agree with the paper's, and what others count for the authors' description is what is here.
"""

from __future__ import annotations

from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.resnet import Bottleneck
from torch import nn

from leanconv.models.resnet import build_resnet, imagenet, take_over
from leanconv.nn import GhostConv2d
from leanconv.nn.arguments import of_conv

__all__ = ["GhostBottleneck"]


class GhostBottleneck(Bottleneck):
    """y = ReLU(S(x) + G₁'(G₃(G₁(x)))): timm's bottleneck, each convolution a `GhostConv2d`, that of the shortcut S too.

    G₁ and G₃ are Ghost modules of a 1x1 and a 3x3 with norms and ReLU; G₁' and the shortcut's projection have norms
    only. The network's stem is a plain convolution.

    Args:
        arguments, options: as timm's `Bottleneck` takes them.
        ratio, cheap_kernel_size: as `GhostConv2d` takes them.

    Raises:
        ValueError: for norms other than `nn.BatchNorm2d`, and where `GhostConv2d` refuses its arguments.

    >>> GhostBottleneck(256, 64, ratio=4).conv2.primary.weight.shape
    torch.Size([16, 64, 3, 3])
    """

    conv1: Any
    conv2: Any
    conv3: Any
    downsample: Any

    def __init__(self, *arguments: Any, ratio: int = 2, cheap_kernel_size: int = 3, **options: Any) -> None:
        super().__init__(*arguments, **options)

        def ghost(conv: nn.Conv2d, norm: nn.Module) -> GhostConv2d:
            layer = GhostConv2d(**of_conv(conv), ratio=ratio, cheap_kernel_size=cheap_kernel_size, activation=None)
            return take_over(layer, norm)

        self.conv1 = ghost(self.conv1, self.bn1)
        self.conv1.activation = self.act1
        self.conv2 = ghost(self.conv2, self.bn2)
        self.conv2.activation = self.act2
        self.conv3 = ghost(self.conv3, self.bn3)
        for inside in ("bn1", "act1", "bn2", "act2", "bn3"):
            setattr(self, inside, nn.Identity())
        if self.downsample is not None:
            *pool, conv, norm = self.downsample
            self.downsample = nn.Sequential(*pool, ghost(conv, norm))

    def zero_init_last(self) -> None:
        """The block starts as its shortcut: the last norms scale by 0.

        The ghosts' norm too: it would be one of maps that are all 0, through which gradients grow by 1 / √ε.
        """
        nn.init.zeros_(self.conv3.primary_norm.weight)
        if self.conv3.cheap_norm is not None:
            nn.init.zeros_(self.conv3.cheap_norm.weight)


default_cfgs = generate_default_cfgs({
    "ghost_resnet50_s2.untrained": imagenet(),
    "ghost_resnet50_s4.untrained": imagenet(),
})


@register_model
def ghost_resnet50_s2(pretrained: bool = False, **options: Any) -> nn.Module:
    """Ghost-ResNet-50, half of the maps ghosts: 13,953,512 parameters, 2.151 G multiply-accumulates."""
    return build_resnet("ghost_resnet50_s2", pretrained, options, GhostBottleneck, (3, 4, 6, 3), ratio=2)


@register_model
def ghost_resnet50_s4(pretrained: bool = False, **options: Any) -> nn.Module:
    """Ghost-ResNet-50, three quarters of the maps ghosts: 8,151,752 parameters, 1.182 G multiply-accumulates."""
    return build_resnet("ghost_resnet50_s4", pretrained, options, GhostBottleneck, (3, 4, 6, 3), ratio=4)
