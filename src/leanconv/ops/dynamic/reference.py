"""The decoupled dynamic filter by its equation: one shifted slice of the input for each tap.

    y[b,c,i,j] = Σ_{u,v} K · x[b, c, i·s + (u−r)·d, j·s + (v−r)·d],    r = (k−1)/2,  x = 0 outside
    mul:  K = S[b,g(c),u,v,i,j] · C[b,c,u,v]        add:  K = S[b,g(c),u,v,i,j] + C[b,c,u,v]

All of it is standard ATen, so this is also what `torch.export` sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from leanconv.ops.dynamic.geometry import Geometry


def ddf(
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    geometry: Geometry,
    summed: Callable[..., Tensor] | None = None,
) -> Tensor:
    """The sum over taps; for `scale` > 1 scale² of them, each one sub-pixel of the output.

    Args:
        input: (B, C, H, W).
        channel_filter: (B, scale² · C, kh, kw) or None.
        spatial_filter: (B, scale² · G · kh · kw, Ho, Wo) or None.
        summed: what sums over the taps, with the arguments of `weighted_sum`, which does by default.
    """
    total: Callable[..., Tensor] = summed or weighted_sum
    dtype = torch.promote_types(input.dtype, torch.float32)
    x = input.to(dtype)
    filters = [None if filter is None else filter.to(dtype) for filter in (channel_filter, spatial_filter)]
    heads = geometry.heads(spatial_filter)
    if geometry.scale == 1:
        return total(x, *filters, heads, geometry).to(input.dtype)
    outputs = [total(x, *each, heads, geometry) for each in branches(filters, geometry.scale)]
    return F.pixel_shuffle(torch.stack(outputs, 2).flatten(1, 2), geometry.scale).to(input.dtype)


def branches(filters: Sequence[Tensor | None], scale: int) -> Iterator[tuple[Tensor | None, ...]]:
    """Both filters of each sub-pixel, in row-major order."""
    count = scale * scale
    return zip(*([None] * count if filter is None else filter.chunk(count, 1) for filter in filters), strict=True)


def weighted_sum(x: Tensor, channel: Tensor | None, spatial: Tensor | None, heads: int, geometry: Geometry) -> Tensor:
    """Σ_t K_t X_t over the taps t."""
    padded = F.pad(x, margins(geometry)).unflatten(1, (heads, -1))
    taps = zip(kernels(channel, spatial, heads, geometry.taps()), windows(geometry), strict=True)
    terms = (combined(*kernel, geometry.add) * padded[window] for kernel, window in taps)
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
    heads = geometry.heads(spatial)
    padded, by_head = (each.unflatten(1, (heads, -1)) for each in (F.pad(x, margins(geometry)), gy))
    of_padded = torch.zeros_like(padded)
    of_channels, of_spatials = [], []
    taps = zip(kernels(channel, spatial, heads, geometry.taps()), windows(geometry), strict=True)
    for (of_channel, of_pixel), window in taps:
        q = by_head * padded[window]
        if wanted[0]:
            of_padded[window] += by_head * combined(of_channel, of_pixel, geometry.add)
        if wanted[1] and of_channel is not None:
            of_channels.append((q if of_pixel is None or geometry.add else q * of_pixel).sum((3, 4)).flatten(1))
        if wanted[2] and of_pixel is not None:
            of_spatials.append((q if of_channel is None or geometry.add else q * of_channel).sum(2))
    left, _, top, _ = margins(geometry)
    height, width = x.shape[2:]
    return [
        of_padded.flatten(1, 2)[:, :, top : top + height, left : left + width] if wanted[0] else None,
        torch.stack(of_channels, 2).unflatten(2, tuple(geometry.kernel_size)) if of_channels else None,
        torch.stack(of_spatials, 2).flatten(1, 2) if of_spatials else None,
    ]


def margins(geometry: Geometry) -> list[int]:
    """The zeros around the input, in the order of `torch.nn.functional.pad`."""
    rows, columns = (step * (size - 1) // 2 for step, size in zip(geometry.dilation, geometry.kernel_size, strict=True))
    return [columns, columns, rows, rows]


def windows(geometry: Geometry) -> Iterator[tuple[Any, ...]]:
    """For each tap, the part of the padded input that it meets: up to as many steps from its end as the tap is from the
    last, so that no sizes of the input, which an export leaves open, take part.
    """
    ranges = (
        [slice(first, first - last or None, step) for first in range(0, last + 1, dilation)]
        for size, step, dilation in zip(geometry.kernel_size, geometry.stride, geometry.dilation, strict=True)
        for last in [dilation * (size - 1)]
    )
    return ((..., *window) for window in product(*ranges))


def kernels(
    channel: Tensor | None, spatial: Tensor | None, heads: int, taps: int
) -> Iterator[tuple[Tensor | None, Tensor | None]]:
    """Each tap of both filters, as parts of (B, G, C / G, Ho, Wo)."""
    neither = [None] * taps
    of_channels = neither if channel is None else channel.flatten(2).unflatten(1, (heads, -1))[..., None].split(1, 3)
    of_pixels = neither if spatial is None else spatial.unflatten(1, (heads, taps)).split(1, 2)
    return zip(of_channels, of_pixels, strict=True)


def combined(of_channel: Tensor | None, of_pixel: Tensor | None, add: bool) -> Tensor:
    """K_t of both filters, or of the one that there is."""
    return reduce(torch.add if add else torch.mul, [each for each in (of_channel, of_pixel) if each is not None])
