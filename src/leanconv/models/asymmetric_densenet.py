"""DenseNet-121 with asymmetric convolution blocks (ACNet).

Ding, Guo, Ding & Han, "ACNet: Strengthening the Kernel Skeletons for Powerful CNN via Asymmetric Convolution Blocks",
ICCV 2019, arXiv 1908.03930, section 4.2.

A reading: the paper has its accuracy, no code is published. In a DenseNet no norm follows a 3x3 convolution: norms come
before convolutions, and read the maps of all layers so far. An asymmetric block brings its own along, so each dense
layer's new maps are normed here before the others read them. Plain weights don't fit for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.layers import BatchNormAct2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.densenet import DenseLayer, DenseNet
from torch import nn

from leanconv.models.resnet import imagenet, take_over
from leanconv.nn import AsymmetricConv2d
from leanconv.nn.arguments import of_conv
from leanconv.nn.asymmetric import BRANCHES

__all__ = ["AsymmetricDenseNet"]


class AsymmetricDenseNet(DenseNet):
    """timm's DenseNet whose dense layers give acb(ReLU(BN(conv₁(ReLU(BN(x)))))), conv₁ a 1x1.

    Args:
        arguments, options: as timm's `DenseNet` takes them.
        gamma_init, branches: as `AsymmetricConv2d` takes them.

    Raises:
        ValueError: for norms other than `nn.BatchNorm2d`, and where `AsymmetricConv2d` refuses its arguments.

    >>> network = AsymmetricDenseNet(block_config=(1, 1), num_classes=10)
    >>> type(network.features.denseblock2.denselayer1.conv2).__name__
    'AsymmetricConv2d'
    """

    def __init__(
        self, *arguments: Any, gamma_init: float = 1.0, branches: Sequence[str] = BRANCHES, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        for layer in self.modules():
            if isinstance(layer, DenseLayer):
                block: Any = AsymmetricConv2d(**of_conv(layer.conv2), gamma_init=gamma_init, branches=branches)
                layer.conv2 = take_over(block, layer.norm2, BatchNormAct2d)
                for branch in block.branches.values():
                    nn.init.kaiming_normal_(branch.conv.weight)


default_cfgs = generate_default_cfgs({
    "ac_densenet121.untrained": imagenet(
        first_conv="features.conv0", classifier="classifier", interpolation="bicubic"
    ),
})


@register_model
def ac_densenet121(pretrained: bool = False, **options: Any) -> nn.Module:
    """ACNet's DenseNet-121: 9,415,400 parameters, 3.663 G multiply-accumulates; fused, 7,980,712 and 2.834 G."""
    return build_model_with_cfg(AsymmetricDenseNet, "ac_densenet121", pretrained,
                                feature_cfg={"flatten_sequential": True}, **options)
