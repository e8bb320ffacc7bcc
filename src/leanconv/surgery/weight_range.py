"""How far apart the weights of a convolution's output channels are: what 8 bits with one scale for all have to span."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class WeightRange:
    """The range of a layer's weights over its output channels.

    Args:
        largest: the largest |w|.
        over_median: that over the max |w| of the median channel. With one scale for all channels, the weights of that
            one have about 256 / over_median of the 256 levels of 8 bits.
        over_smallest: the same of the smallest channel. It is large where a norm has all but switched a channel off,
            which loses nothing.
    """

    largest: float
    over_median: float
    over_smallest: float


def weight_range(layer: nn.Module) -> WeightRange:
    """The range of the convolutions in a layer; of several, that with the most to span. Channels of zeros don't count.

    >>> conv = nn.Conv2d(1, 3, 1)
    >>> with torch.no_grad():
    ...     _ = conv.weight.copy_(torch.tensor([-3.0, 1.5, 0.5]).view(3, 1, 1, 1))
    >>> weight_range(conv)
    WeightRange(largest=3.0, over_median=2.0, over_smallest=6.0)
    """
    ranges = [range_of(part.weight) for part in layer.modules() if isinstance(part, nn.Conv2d)]
    return max(ranges, key=lambda each: each.over_median)


def range_of(weight: torch.Tensor) -> WeightRange:
    """The range of a convolution's weights."""
    peaks = weight.detach().abs().flatten(1).amax(1)
    peaks = peaks[peaks > 0]
    if not len(peaks):
        return WeightRange(0.0, 1.0, 1.0)
    largest = peaks.max()
    return WeightRange(float(largest), float(largest / peaks.median()), float(largest / peaks.min()))
