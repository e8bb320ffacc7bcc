"""What a filter sums over, in the order of the operators' arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Geometry(NamedTuple):
    """Which values meet in the sum of a dynamic filter.

    Args:
        kernel_size, stride, dilation: along rows and columns.
        add: whether both filters are added; else they are multiplied.
        scale: sub-pixels along each side of an upsampling. Each has a branch of both filters.
    """

    kernel_size: Sequence[int]
    stride: Sequence[int]
    dilation: Sequence[int]
    add: bool
    scale: int = 1

    def taps(self) -> int:
        return self.kernel_size[0] * self.kernel_size[1]

    def heads(self, spatial_filter: Tensor | None) -> int:
        """The heads of a spatial filter of all branches; one where there is none."""
        return 1 if spatial_filter is None else spatial_filter.size(1) // (self.scale * self.scale * self.taps())

    def output_size(self, size: Sequence[int]) -> tuple[int, int]:
        """ceil(size / stride), as of a convolution padded by half its kernel; before an upsampling.

        >>> Geometry((3, 3), (2, 2), (1, 1), False).output_size((7, 8))
        (4, 4)
        """
        return (size[0] - 1) // self.stride[0] + 1, (size[1] - 1) // self.stride[1] + 1
