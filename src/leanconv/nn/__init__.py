"""The layers: modules shaped like `torch.nn.Conv2d` and `torch.nn.Linear`, one paper one file."""

from leanconv.nn.attention import GlobalContext, SqueezeExcite, TiedGlobalContext, TiedSE
from leanconv.nn.tied import TiedConv2d, TiedLinear

__all__ = ["GlobalContext", "SqueezeExcite", "TiedConv2d", "TiedGlobalContext", "TiedLinear", "TiedSE"]
