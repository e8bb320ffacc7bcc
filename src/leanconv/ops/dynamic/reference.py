"""The decoupled dynamic filter by its equation: one shifted slice of the input for each tap.

    y[b,c,i,j] = Σ_{u,v} K · x[b, c, i·s + (u−r)·d, j·s + (v−r)·d],    r = (k−1)/2,  x = 0 outside
    mul:  K = S[b,g(c),u,v,i,j] · C[b,c,u,v]        add:  K = S[b,g(c),u,v,i,j] + C[b,c,u,v]

All of it is standard ATen, so this is also what `torch.export` sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor


def ddf(
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    add: bool,
    scale: int = 1,
) -> Tensor:
    """The sum over taps; for `scale` > 1 scale² of them, each one sub-pixel of the output.

    Args:
        input: (B, C, H, W).
        channel_filter: (B, scale² · C, kh, kw) or None.
        spatial_filter: (B, scale² · G · kh · kw, Ho, Wo) or None.
    """
    dtype = torch.promote_types(input.dtype, torch.float32)
    x = input.to(dtype)
    branches = scale * scale
    channel = [None] * branches if channel_filter is None else channel_filter.to(dtype).chunk(branches, 1)
    spatial = [None] * branches if spatial_filter is None else spatial_filter.to(dtype).chunk(branches, 1)
    outputs = [
        weighted_sum(x, c, s, kernel_size, stride, dilation, add) for c, s in zip(channel, spatial, strict=True)
    ]
    if scale == 1:
        return outputs[0].to(input.dtype)
    return F.pixel_shuffle(torch.stack(outputs, 2).flatten(1, 2), scale).to(input.dtype)


def weighted_sum(
    x: Tensor,
    channel: Tensor | None,
    spatial: Tensor | None,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    add: bool,
) -> Tensor:
    """Σ_t K_t X_t over the taps t."""
    padded = F.pad(x, margins(kernel_size, dilation))
    total = None
    for tap, window in enumerate(windows(x, kernel_size, stride, dilation)):
        of_channel, of_pixel, heads = kernels(channel, spatial, tap, kernel_size)
        if of_channel is None or of_pixel is None:
            kernel = of_pixel if of_channel is None else of_channel
        else:
            kernel = of_channel + of_pixel if add else of_channel * of_pixel
        term = kernel * padded[window].unflatten(1, (heads, -1))
        total = term if total is None else total + term
    assert total is not None
    return total.flatten(1, 2)


def gradients(
    gradient: Tensor,
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    add: bool,
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of `ddf` with respect to the input and both filters, those of them that are wanted.

    With q_t = gy · X_t:  gx = Σ_t gy · K_t, put where X_t was taken from; mul: gC_t = Σ_ij S_t q_t, gS_t = Σ_c C_t q_t
    over the channels of a head; add: the same without S and C.
    """
    dtype = torch.promote_types(input.dtype, torch.float32)
    gy, x = gradient.to(dtype), input.to(dtype)
    channel, spatial = (None if each is None else each.to(dtype) for each in (channel_filter, spatial_filter))
    padded = F.pad(x, margins(kernel_size, dilation))
    of_padded = torch.zeros_like(padded)
    of_channels, of_spatials = [], []
    for tap, window in enumerate(windows(x, kernel_size, stride, dilation)):
        of_channel, of_pixel, heads = kernels(channel, spatial, tap, kernel_size)
        by_head = gy.unflatten(1, (heads, -1))
        product = by_head * padded[window].unflatten(1, (heads, -1))
        by_pixel = of_pixel is not None and not (add and of_channel is not None)
        by_channel = of_channel is not None and not (add and of_pixel is not None)
        if wanted[0]:
            both = [each for each in (of_channel, of_pixel) if each is not None]
            kernel = both[0] if len(both) == 1 else both[0] + both[1] if add else both[0] * both[1]
            of_padded[window] += (by_head * kernel).flatten(1, 2)
        if wanted[1] and of_channel is not None:
            of_channels.append((product * of_pixel if by_pixel else product).sum((3, 4)).flatten(1))
        if wanted[2] and of_pixel is not None:
            of_spatials.append((product * of_channel if by_channel else product).sum(2))
    left, _, top, _ = margins(kernel_size, dilation)
    height, width = x.shape[2:]
    found = [
        of_padded[:, :, top : top + height, left : left + width] if wanted[0] else None,
        torch.stack(of_channels, 2).unflatten(2, tuple(kernel_size)) if of_channels else None,
        torch.stack(of_spatials, 2).flatten(1, 2) if of_spatials else None,
    ]
    tensors = (input, channel_filter, spatial_filter)
    return [each if each is None or tensor is None else each.to(tensor.dtype)
            for each, tensor in zip(found, tensors, strict=True)]


def margins(kernel_size: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """The zeros around the input, in the order of `torch.nn.functional.pad`."""
    rows, columns = (step * (size - 1) // 2 for step, size in zip(dilation, kernel_size, strict=True))
    return [columns, columns, rows, rows]


def windows(
    x: Tensor, kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Iterator[tuple[slice, ...]]:
    """For each tap, the part of the padded input that it meets."""
    height, width = output_size(x.shape[2:], stride)
    for row, column in product(range(kernel_size[0]), range(kernel_size[1])):
        top, left = row * dilation[0], column * dilation[1]
        yield (slice(None), slice(None), slice(top, top + (height - 1) * stride[0] + 1, stride[0]),
               slice(left, left + (width - 1) * stride[1] + 1, stride[1]))


def kernels(
    channel: Tensor | None, spatial: Tensor | None, tap: int, kernel_size: Sequence[int]
) -> tuple[Tensor | None, Tensor | None, int]:
    """One tap of both filters, to be combined as (B, G, C / G, Ho, Wo), and the number of heads."""
    taps = kernel_size[0] * kernel_size[1]
    heads = 1 if spatial is None else spatial.shape[1] // taps
    of_channel = None if channel is None else channel.flatten(2)[:, :, tap].unflatten(1, (heads, -1))[..., None, None]
    return of_channel, None if spatial is None else spatial[:, tap::taps].unsqueeze(2), heads


def output_size(size: Sequence[int], stride: Sequence[int]) -> tuple[int, int]:
    """ceil(size / stride), as of a convolution padded by half its kernel.

    >>> output_size((7, 8), (2, 2))
    (4, 4)
    """
    return (size[0] - 1) // stride[0] + 1, (size[1] - 1) // stride[1] + 1
