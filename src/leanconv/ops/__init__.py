"""The maths: functions of tensors. Each is defined by its reference, a few lines of plain PyTorch."""

from leanconv.ops.dynamic import ddf, ddf_up, filter_norm
from leanconv.ops.tied import tied_conv2d, tied_linear

__all__ = ["ddf", "ddf_up", "filter_norm", "tied_conv2d", "tied_linear"]
