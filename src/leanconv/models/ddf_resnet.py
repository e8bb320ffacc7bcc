"""ResNets with decoupled dynamic filters (DDF-ResNet).

Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021, arXiv 2104.14107, section 4 and figure 4.

All take the options of `DDFBottleneck`. The multiply-accumulates named are those of convolutions and the classifier;
applying and combining the filters adds about 1 % (6 % in DDF-ResNet-18), which the published figures leave out, too.
"""

from __future__ import annotations

from typing import Any, Literal

from timm.models import generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn

from leanconv.models.resnet import build_resnet, imagenet
from leanconv.nn import DDF

__all__ = ["DDFBasicBlock", "DDFBottleneck"]


class DDFBottleneck(Bottleneck):
    """y = ReLU(x + BN(conv₁(ReLU(BN(ddf(ReLU(BN(conv₁(x)))))))): timm's bottleneck, its 3x3 a `DDF` (paper, figure 4).

    conv₁ is 1x1. The stride is the DDF's; with an anti-aliasing layer it is that layer's. The parameters' names are
    those of the published checkpoints.

    Args:
        arguments, options: as timm's `Bottleneck` takes them. The cardinality counts for the width alone: a DDF mixes
            no channels, so it has no groups.
        combine, heads, squeeze_ratio, eps: as `DDF` takes them.

    Raises:
        ValueError: for a `reduce_first` other than 1, and where `DDF` refuses its arguments.

    >>> block = DDFBottleneck(256, 64, squeeze_ratio=0.3)
    >>> block.conv2.channels, block.conv2.channel_branch[1].out_channels
    (64, 19)
    """

    conv2: Any

    def __init__(
        self,
        *arguments: Any,
        combine: Literal["mul", "add"] = "mul",
        heads: int = 1,
        squeeze_ratio: float = 0.2,
        eps: float | None = None,
        reduce_first: int = 1,
        **options: Any,
    ) -> None:
        if reduce_first != 1:
            raise ValueError(f"reduce_first must be 1, for a DDF has as many output as input channels, "
                             f"got {reduce_first}")
        super().__init__(*arguments, **options)
        self.conv2 = DDF.from_conv(self.conv2, combine=combine, heads=heads, squeeze_ratio=squeeze_ratio, eps=eps)


class DDFBasicBlock(BasicBlock):
    """y = ReLU(x + BN(conv₁(ddf(ReLU(BN(conv₁(ddf(x)))))))): a `DDF` and a 1x1 in the place of each 3x3.

    A reading: the paper has DDF-ResNet-18 in a table, and neither its block nor its code is published. A DDF changes no
    channels, so something has to; with σ = 0.5 this has the parameters and multiply-accumulates of that table.

    Args and Raises: as for `DDFBottleneck`.
    """

    conv1: Any
    conv2: Any

    def __init__(
        self,
        *arguments: Any,
        combine: Literal["mul", "add"] = "mul",
        heads: int = 1,
        squeeze_ratio: float = 0.5,
        eps: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        own = {"combine": combine, "heads": heads, "squeeze_ratio": squeeze_ratio, "eps": eps}
        self.conv1 = filter_and_mix(self.conv1, own)
        self.conv2 = filter_and_mix(self.conv2, own)


def filter_and_mix(conv: nn.Conv2d, own: dict[str, Any]) -> nn.Sequential:
    """A DDF with a convolution's kernel, stride and dilation, and a 1x1 to its output channels."""
    where: dict[str, Any] = {"device": conv.weight.device, "dtype": conv.weight.dtype}
    return nn.Sequential(
        DDF(conv.in_channels, conv.kernel_size, conv.stride, conv.dilation, **own, **where),
        nn.Conv2d(conv.in_channels, conv.out_channels, 1, bias=False, **where),
    )


default_cfgs = generate_default_cfgs({
    "ddf_resnet18.untrained": imagenet(),
    "ddf_mul_resnet50.untrained": imagenet(),
    "ddf_mul_resnet101.untrained": imagenet(),
    "ddf_mul_resnet152.untrained": imagenet(),
    "ddf_add_resnet50.untrained": imagenet(),
    "ddf_add_resnet101.untrained": imagenet(),
    "ddf_add_resnet152.untrained": imagenet(),
    "ddf_mul_resnet50d_wide.untrained": imagenet(first_conv="conv1.0"),
})


@register_model
def ddf_resnet18(pretrained: bool = False, **options: Any) -> nn.Module:
    """DDF-ResNet-18, reconstructed: 7,691,032 parameters, 342.5 M multiply-accumulates.

    How, `DDFBasicBlock` says.
    """
    return build_resnet("ddf_resnet18", pretrained, options, DDFBasicBlock, (2, 2, 2, 2))


@register_model
def ddf_mul_resnet50(pretrained: bool = False, **options: Any) -> nn.Module:
    """DDF-ResNet-50, filters multiplied: 16,843,748 parameters, 2.254 G multiply-accumulates."""
    return build_resnet("ddf_mul_resnet50", pretrained, options, DDFBottleneck, (3, 4, 6, 3), combine="mul")


@register_model
def ddf_mul_resnet101(pretrained: bool = False, **options: Any) -> nn.Module:
    """DDF-ResNet-101, filters multiplied: 28,146,912 parameters, 4.011 G multiply-accumulates."""
    return build_resnet("ddf_mul_resnet101", pretrained, options, DDFBottleneck, (3, 4, 23, 3), combine="mul")


@register_model
def ddf_mul_resnet152(pretrained: bool = False, **options: Any) -> nn.Module:
    """DDF-ResNet-152, filters multiplied: 37,462,900 parameters, 5.769 G multiply-accumulates."""
    return build_resnet("ddf_mul_resnet152", pretrained, options, DDFBottleneck, (3, 8, 36, 3), combine="mul")


@register_model
def ddf_add_resnet50(pretrained: bool = False, **options: Any) -> nn.Module:
    """DDF-ResNet-50, filters added: 16,843,748 parameters, 2.254 G multiply-accumulates."""
    return build_resnet("ddf_add_resnet50", pretrained, options, DDFBottleneck, (3, 4, 6, 3), combine="add")


@register_model
def ddf_add_resnet101(pretrained: bool = False, **options: Any) -> nn.Module:
    """DDF-ResNet-101, filters added: 28,146,912 parameters, 4.011 G multiply-accumulates."""
    return build_resnet("ddf_add_resnet101", pretrained, options, DDFBottleneck, (3, 4, 23, 3), combine="add")


@register_model
def ddf_add_resnet152(pretrained: bool = False, **options: Any) -> nn.Module:
    """DDF-ResNet-152, filters added: 37,462,900 parameters, 5.769 G multiply-accumulates."""
    return build_resnet("ddf_add_resnet152", pretrained, options, DDFBottleneck, (3, 8, 36, 3), combine="add")


@register_model
def ddf_mul_resnet50d_wide(pretrained: bool = False, **options: Any) -> nn.Module:
    """DDF-ResNet-50, double in width, ResNet-D: 33,857,591 parameters, 4.274 G multiply-accumulates.

    A reading of the supplement's best network, wider as ResNeXt is and of ResNet-D's structure: its width isn't
    published. Here it is that of ResNeXt-50 32x4d, with three 3x3 in the stem and shortcuts that average.
    """
    return build_resnet("ddf_mul_resnet50d_wide", pretrained, options, DDFBottleneck, (3, 4, 6, 3), combine="mul",
                        cardinality=32, base_width=4, stem_width=32, stem_type="deep", avg_down=True)
