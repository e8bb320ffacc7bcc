"""The layers: modules shaped like `torch.nn.Conv2d` and `torch.nn.Linear`, one paper one file."""

from leanconv.nn.asymmetric import AsymmetricConv2d
from leanconv.nn.attention import GlobalContext, SqueezeExcite, TiedGlobalContext, TiedSE
from leanconv.nn.dynamic import DDF, DDFUp
from leanconv.nn.filter_norm import FilterNorm
from leanconv.nn.ghost import GhostConv2d
from leanconv.nn.split import SplitConv2d
from leanconv.nn.tied import TiedConv2d, TiedLinear
from leanconv.nn.tied_splits import TiedSplitConv2d

__all__ = [
    "DDF",
    "AsymmetricConv2d",
    "DDFUp",
    "FilterNorm",
    "GhostConv2d",
    "GlobalContext",
    "SplitConv2d",
    "SqueezeExcite",
    "TiedConv2d",
    "TiedGlobalContext",
    "TiedLinear",
    "TiedSE",
    "TiedSplitConv2d",
]
