"""GhostNet: a network for small devices whose 1x1 convolutions are Ghost modules.

Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020, arXiv 1911.11907, table 1.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import timm.models.ghostnet
from timm.layers import SelectAdaptivePool2d, make_divisible
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import Tensor, nn

from leanconv.errors import unknown
from leanconv.models.resnet import imagenet
from leanconv.nn import GhostConv2d

__all__ = ["GhostNet"]

STEM, HEAD = 16, 1280
STAGES = (  # a row a bottleneck: kernel, expanded channels, channels, squeeze-and-excitation, stride
    ((3, 16, 16, False, 1),),
    ((3, 48, 24, False, 2),),
    ((3, 72, 24, False, 1),),
    ((5, 72, 40, True, 2),),
    ((5, 120, 40, True, 1),),
    ((3, 240, 80, False, 2),),
    ((3, 200, 80, False, 1), (3, 184, 80, False, 1), (3, 184, 80, False, 1), (3, 480, 112, True, 1),
     (3, 672, 112, True, 1)),
    ((5, 672, 160, True, 2),),
    ((5, 960, 160, False, 1), (5, 960, 160, True, 1), (5, 960, 160, False, 1), (5, 960, 160, True, 1)),
)
TAPS = {2: 4, 4: 8, 6: 16, 8: 32}  # the last stage of each size, and how many times smaller than the image that is

Rounding = Callable[[float], int]


def round_as_pytorch(channels: float) -> int:
    """The nearest multiple of 4, the next one where that loses more than a tenth."""
    return make_divisible(channels, 4)


def round_as_tensorflow(channels: float) -> int:
    """The multiple of 4 nearest to the whole part, 8 at least.

    >>> round_as_tensorflow(52.8), round_as_pytorch(52.8), round_as_tensorflow(26.4), round_as_pytorch(26.4)
    (52, 52, 24, 28)
    """
    return round(max(int(channels), 8) / 4) * 4


ROUNDINGS: dict[str, tuple[Rounding, Rounding]] = {  # of channels, and of those in squeeze-and-excitation
    "pytorch": (round_as_pytorch, round_as_pytorch),
    "tensorflow": (round_as_tensorflow, int),
}


class GhostBottleneck(nn.Module):
    """y = shortcut(x) + Ghost(SE(BN(depthwise(ReLU(Ghost(x)))))), without an activation after the sum.

    Only a bottleneck with a stride has the depthwise convolution, and only some have squeeze-and-excitation. The
    shortcut is a depthwise and a 1x1 convolution with norms where the size or the channels change.
    """

    def __init__(
        self, in_channels: int, expanded: int, out_channels: int, kernel_size: int, stride: int, squeezed: int | None
    ) -> None:
        super().__init__()
        self.ghost1 = GhostConv2d(in_channels, expanded, 1)
        self.conv_dw: nn.Module = nn.Identity()
        self.bn_dw: nn.Module = nn.Identity()
        if stride > 1:
            self.conv_dw = depthwise(expanded, kernel_size, stride)
            self.bn_dw = nn.BatchNorm2d(expanded)
        self.se = nn.Identity()
        if squeezed:
            self.se = SqueezeExcite(expanded, rd_channels=squeezed, gate_layer="hard_sigmoid")
        self.ghost2 = GhostConv2d(expanded, out_channels, 1, activation=None)
        self.shortcut = nn.Sequential()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                depthwise(in_channels, kernel_size, stride),
                nn.BatchNorm2d(in_channels),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, input: Tensor) -> Tensor:
        maps = self.bn_dw(self.conv_dw(self.ghost1(input)))
        return self.ghost2(self.se(maps)) + self.shortcut(input)


def depthwise(channels: int, kernel_size: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel_size, stride, kernel_size // 2, groups=channels, bias=False)


class GhostNet(timm.models.ghostnet.GhostNet):
    """GhostNet, of `GhostConv2d`; what it does, timm's interface included, is timm's.

    Weights of timm's `ghostnet_050`, `ghostnet_100` and `ghostnet_130` load, and give the same.

    Args:
        num_classes: 0 leaves the classifier out.
        in_chans: channels of the images.
        width: scales all channels but the 1280 before the classifier.
        rounding: how scaled channels are rounded: "pytorch", as in the authors' PyTorch code and timm, or "tensorflow",
            as in their first code, which the paper's costs are of. Only that: the norm in place of the head's bias, the
            norms' eps of 1e-3 and momentum, the gate clip(x, 0, 1), the padding "SAME" and the first weights of their
            TensorFlow code aren't followed.
        global_pool: how the last maps are pooled, a name of timm's that keeps the channels.
        drop_rate: dropout before the classifier.
        output_stride: 32; nothing else is known.

    Raises:
        ValueError: for a width that isn't above 0 or finite, an unknown rounding, a pooling that changes the channels,
            or another output stride.

    >>> sum(parameter.numel() for parameter in GhostNet(width=0.5).parameters())
    2587292
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        width: float = 1.0,
        rounding: str = "pytorch",
        global_pool: str = "avg",
        drop_rate: float = 0.2,
        output_stride: int = 32,
    ) -> None:
        nn.Module.__init__(self)  # the parent's builds its own layers
        if rounding not in ROUNDINGS:
            raise unknown("rounding", rounding, ROUNDINGS)
        if not 0 < width < math.inf:
            raise ValueError(f"width must be above 0 and finite, got {width}")
        if output_stride != 32:
            raise ValueError(f"output_stride must be 32, got {output_stride}")
        rounded, squeezed = ROUNDINGS[rounding]
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.grad_checkpointing = False

        channels = rounded(STEM * width)
        self.conv_stem = nn.Conv2d(in_chans, channels, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU(inplace=True)
        self.feature_info = [{"num_chs": channels, "reduction": 2, "module": "conv_stem"}]

        stages = []
        for index, rows in enumerate(STAGES):
            blocks = []
            for kernel_size, expanded, out_channels, excites, stride in rows:
                wide, narrow = rounded(expanded * width), rounded(out_channels * width)
                squeeze = squeezed(wide / 4) if excites else None
                blocks.append(GhostBottleneck(channels, wide, narrow, kernel_size, stride, squeeze))
                channels = narrow
            stages.append(nn.Sequential(*blocks))
            if index in TAPS:
                self.feature_info.append({"num_chs": channels, "reduction": TAPS[index], "module": f"blocks.{index}"})
        self.stage_ends = [-1, *TAPS]
        last = nn.Sequential(OrderedDict(
            conv=nn.Conv2d(channels, wide, 1, bias=False), bn1=nn.BatchNorm2d(wide), act1=nn.ReLU(inplace=True)
        ))
        self.blocks = nn.Sequential(*stages, nn.Sequential(last))

        self.num_features = wide
        self.head_hidden_size = HEAD
        self.conv_head = nn.Conv2d(wide, HEAD, 1)
        self.act2 = nn.ReLU(inplace=True)
        self.reset_classifier(num_classes, global_pool)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Puts in a new classifier, and another pooling when one is named."""
        pool = self.global_pool.pool_type if global_pool is None else global_pool
        if SelectAdaptivePool2d(pool_type=pool).feat_mult() != 1:
            raise ValueError(f"global_pool must keep the number of channels, got {pool!r}")
        super().reset_classifier(num_classes, pool)


NAMES = {"primary_conv.0": "primary", "primary_conv.1": "primary_norm", "cheap_operation.0": "cheap",
         "cheap_operation.1": "cheap_norm"}


def checkpoint_filter_fn(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Renames the weights of timm's GhostNet, or of the authors', to those of `GhostNet`.

    The names are timm's but for those in a Ghost module.
    """
    renamed = {}
    for name, value in state.items():
        for theirs, ours in NAMES.items():
            name = name.replace(f".{theirs}.", f".{ours}.")
        renamed[name] = value
    return renamed


def configuration(**where: str) -> dict[str, Any]:
    """What timm knows of a GhostNet and its weights."""
    return imagenet(interpolation="bicubic", first_conv="conv_stem", classifier="classifier", license="apache-2.0",
                    **where)


default_cfgs = generate_default_cfgs({
    "ghostnet_x050.untrained": configuration(),
    "ghostnet_x100.in1k": configuration(hf_hub_id="timm/ghostnet_100.in1k"),
    "ghostnet_x110.untrained": configuration(),
    "ghostnet_x130.untrained": configuration(),
})


def build(name: str, width: float, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    return build_model_with_cfg(
        GhostNet,
        name,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"flatten_sequential": True},
        **{"width": width, **options},
    )


@register_model
def ghostnet_x050(pretrained: bool = False, **options: Any) -> nn.Module:
    """GhostNet 0.5×: 2,587,292 parameters, 42.33 M multiply-accumulates."""
    return build("ghostnet_x050", 0.5, pretrained, options)


@register_model
def ghostnet_x100(pretrained: bool = False, **options: Any) -> nn.Module:
    """GhostNet 1.0×: 5,182,508 parameters, 141.15 M multiply-accumulates."""
    return build("ghostnet_x100", 1.0, pretrained, options)


@register_model
def ghostnet_x110(pretrained: bool = False, **options: Any) -> nn.Module:
    """GhostNet 1.1×, for detection: 5,855,650 parameters, 166.99 M multiply-accumulates."""
    return build("ghostnet_x110", 1.1, pretrained, options)


@register_model
def ghostnet_x130(pretrained: bool = False, **options: Any) -> nn.Module:
    """GhostNet 1.3×: 7,358,820 parameters, 227.00 M multiply-accumulates."""
    return build("ghostnet_x130", 1.3, pretrained, options)
