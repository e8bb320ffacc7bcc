"""The sum over taps for ONNX files: one convolution with kernels of 0 and 1 puts each channel's taps side by side.

That takes a dozen operators, where slices take over a hundred: it is faster to export, and no slower to run, but takes
k² times the memory.
"""

from __future__ import annotations

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from leanconv.ops.dynamic import reference
from leanconv.ops.dynamic.geometry import Geometry


def gathered_sum(x: Tensor, channel: Tensor | None, spatial: Tensor | None, heads: int, geometry: Geometry) -> Tensor:
    """Σ_t K_t X_t over the taps t, as `reference.weighted_sum`."""
    channels, taps = x.shape[1], geometry.taps()
    columns, _, rows, _ = reference.margins(geometry)
    one_hot = torch.eye(taps, dtype=x.dtype, device=x.device).view(taps, 1, *geometry.kernel_size)
    gathered = F.conv2d(x, one_hot.repeat(channels, 1, 1, 1), None, tuple(geometry.stride), (rows, columns),
                        tuple(geometry.dilation), channels).unflatten(1, (heads, -1, taps))
    filters = (None if channel is None else channel.flatten(2).unflatten(1, (heads, -1))[..., None, None],
               None if spatial is None else spatial.unflatten(1, (heads, 1, taps)))
    factors = [each for each in filters if each is not None]
    if geometry.add:
        factors = [reference.combined(*filters, add=True)]
    return reduce(torch.mul, factors, gathered).sum(3).flatten(1, 2)
