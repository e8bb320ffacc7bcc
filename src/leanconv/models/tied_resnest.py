"""ResNeSt with tied block convolutions: TiedResNeSt.

Wang & Yu, "Tied Block Convolution: Leaner and Better CNNs with Shared Thinner Filters", AAAI 2021, arXiv 2009.12021;
Zhang et al., "ResNeSt: Split-Attention Networks", CVPRW 2022, arXiv 2004.08955.

The paper ties the entrance and the split-attention convolution of each block, B = 2, and gives 59% of the parameters
and 82% of the compute of a "ResNeSt-50-S" that it doesn't define. ResNeSt-50-fast-1s2x40d matches the parameters
(58.8%), but then 70% of the multiply-accumulates are left; no form of ResNeSt-50 matches both.
"""

from __future__ import annotations

from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.resnest import ResNestBottleneck
from torch import nn

from leanconv.models.resnet import build_resnet, imagenet
from leanconv.nn import TiedConv2d
from leanconv.nn.arguments import of_conv

__all__ = ["TiedResNestBottleneck"]


class TiedResNestBottleneck(ResNestBottleneck):
    """timm's ResNeSt bottleneck with its 1x1 entrance and its split-attention 3x3 convolution tied.

    The latter has radix · cardinality groups, each of B blocks: a TGC.

    Args:
        args, options: as in timm's `ResNestBottleneck`.
        blocks: B, in both convolutions.

    Raises:
        ValueError: where blocks doesn't divide the channels of each group, or for options that ResNeSt doesn't have.

    >>> block = TiedResNestBottleneck(256, 64, radix=2)
    >>> block.conv2.conv
    TiedConv2d(
      64, 128, blocks=2
      (conv): Conv2d(32, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), groups=2, bias=False)
    )
    """

    conv1: Any
    conv2: Any

    def __init__(self, *args: Any, blocks: int = 2, **options: Any) -> None:
        for name, only in (("reduce_first", 1), ("attn_layer", None), ("aa_layer", None)):
            if options.get(name, only) != only:
                raise ValueError(f"{name} must be {only} in a ResNeSt, got {options[name]}")
        super().__init__(*args, **options)
        self.conv1 = TiedConv2d(**of_conv(self.conv1), blocks=blocks)
        owner, name = (self.conv2, "conv") if self.radix >= 1 else (self, "conv2")
        setattr(owner, name, TiedConv2d(**of_conv(getattr(owner, name)), blocks=blocks))


default_cfgs = generate_default_cfgs({
    "tied_resnest50_fast_1s2x40d.untrained": imagenet(first_conv="conv1.0"),
})


@register_model
def tied_resnest50_fast_1s2x40d(pretrained: bool = False, **options: Any) -> nn.Module:
    """TiedResNeSt-50-fast-1s2x40d: 15,256,600 parameters, 3.056 G multiply-accumulates."""
    return build_resnet("tied_resnest50_fast_1s2x40d", pretrained, options, TiedResNestBottleneck, (3, 4, 6, 3),
                        radix=1, avd=True, avd_first=True, base_width=40, cardinality=2, stem_type="deep",
                        stem_width=32, avg_down=True)
