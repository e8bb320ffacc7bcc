"""The decoupled dynamic filter by its equation: one shifted slice of the input for each tap.

    y[b,c,i,j] = Σ_{u,v} K · x[b, c, i·s + (u−r)·d, j·s + (v−r)·d],    r = (k−1)/2,  x = 0 outside
    mul:  K = S[b,g(c),u,v,i,j] · C[b,c,u,v]        add:  K = S[b,g(c),u,v,i,j] + C[b,c,u,v]

All of it is standard ATen, so this is also what `torch.export` sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from leanconv.ops.dynamic.geometry import Geometry


def ddf(input: Tensor, channel_filter: Tensor | None, spatial_filter: Tensor | None, geometry: Geometry) -> Tensor:
    """The sum over taps; for `scale` > 1 scale² of them, each one sub-pixel of the output.

    Args:
        input: (B, C, H, W).
        channel_filter: (B, scale² · C, kh, kw) or None.
        spatial_filter: (B, scale² · G · kh · kw, Ho, Wo) or None.
    """
    dtype = torch.promote_types(input.dtype, torch.float32)
    x = input.to(dtype)
    filters = [None if filter is None else filter.to(dtype) for filter in (channel_filter, spatial_filter)]
    heads = geometry.heads(spatial_filter)
    outputs = [weighted_sum(x, channel, spatial, heads, geometry)
               for channel, spatial in branches(filters, geometry.scale)]
    if geometry.scale == 1:
        return outputs[0].to(input.dtype)
    return F.pixel_shuffle(torch.stack(outputs, 2).flatten(1, 2), geometry.scale).to(input.dtype)


def branches(filters: Sequence[Tensor | None], scale: int) -> Iterator[tuple[Tensor | None, ...]]:
    """Both filters of each sub-pixel, in row-major order."""
    count = scale * scale
    return zip(*([None] * count if filter is None else filter.chunk(count, 1) for filter in filters), strict=True)


def weighted_sum(x: Tensor, channel: Tensor | None, spatial: Tensor | None, heads: int, geometry: Geometry) -> Tensor:
    """Σ_t K_t X_t over the taps t."""
    padded = F.pad(x, margins(geometry))
    terms = (
        combined(*kernels(channel, spatial, tap, heads), geometry.add) * padded[window].unflatten(1, (heads, -1))
        for tap, window in enumerate(windows(x, geometry))
    )
    return reduce(torch.add, terms).flatten(1, 2)


def gradients(
    gradient: Tensor,
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    geometry: Geometry,
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of `ddf` with respect to the input and both filters, those of them that are wanted.

    With q_t = gy · X_t:  gx = Σ_t gy · K_t, put where X_t was taken from; mul: gC_t = Σ_ij S_t q_t, gS_t = Σ_c C_t q_t
    over the channels of a head; add: the same without S and C. In the dtype that the sums are taken in.
    """
    dtype = torch.promote_types(input.dtype, torch.float32)
    gy, x = gradient.to(dtype), input.to(dtype)
    channel, spatial = (None if each is None else each.to(dtype) for each in (channel_filter, spatial_filter))
    padded, heads = F.pad(x, margins(geometry)), geometry.heads(spatial)
    by_head = gy.unflatten(1, (heads, -1))
    of_padded = torch.zeros_like(padded)
    of_channels, of_spatials = [], []
    for tap, window in enumerate(windows(x, geometry)):
        of_channel, of_pixel = kernels(channel, spatial, tap, heads)
        q = by_head * padded[window].unflatten(1, (heads, -1))
        if wanted[0]:
            of_padded[window] += (by_head * combined(of_channel, of_pixel, geometry.add)).flatten(1, 2)
        if wanted[1] and of_channel is not None:
            of_channels.append((q if of_pixel is None or geometry.add else q * of_pixel).sum((3, 4)).flatten(1))
        if wanted[2] and of_pixel is not None:
            of_spatials.append((q if of_channel is None or geometry.add else q * of_channel).sum(2))
    left, _, top, _ = margins(geometry)
    height, width = x.shape[2:]
    return [
        of_padded[:, :, top : top + height, left : left + width] if wanted[0] else None,
        torch.stack(of_channels, 2).unflatten(2, tuple(geometry.kernel_size)) if of_channels else None,
        torch.stack(of_spatials, 2).flatten(1, 2) if of_spatials else None,
    ]


def margins(geometry: Geometry) -> list[int]:
    """The zeros around the input, in the order of `torch.nn.functional.pad`."""
    rows, columns = (step * (size - 1) // 2 for step, size in zip(geometry.dilation, geometry.kernel_size, strict=True))
    return [columns, columns, rows, rows]


def windows(x: Tensor, geometry: Geometry) -> Iterator[tuple[slice, ...]]:
    """For each tap, the part of the padded input that it meets."""
    height, width = geometry.output_size(x.shape[2:])
    stride, dilation = geometry.stride, geometry.dilation
    for row, column in product(*map(range, geometry.kernel_size)):
        top, left = row * dilation[0], column * dilation[1]
        yield (slice(None), slice(None), slice(top, top + (height - 1) * stride[0] + 1, stride[0]),
               slice(left, left + (width - 1) * stride[1] + 1, stride[1]))


def kernels(
    channel: Tensor | None, spatial: Tensor | None, tap: int, heads: int
) -> tuple[Tensor | None, Tensor | None]:
    """One tap of both filters, as parts of (B, G, C / G, Ho, Wo)."""
    return (None if channel is None else channel.flatten(2)[:, :, tap].unflatten(1, (heads, -1))[..., None, None],
            None if spatial is None else spatial.unflatten(1, (heads, -1))[:, :, tap, None])


def combined(of_channel: Tensor | None, of_pixel: Tensor | None, add: bool) -> Tensor:
    """K_t of both filters, or of the one that there is."""
    return reduce(torch.add if add else torch.mul, [each for each in (of_channel, of_pixel) if each is not None])
