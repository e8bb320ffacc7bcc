"""The tensors that kernels write to, in the memory formats of those that they belong to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from leanconv.ops.dynamic.geometry import Geometry


def format_of(tensor: Tensor) -> torch.memory_format:
    """The memory format that a result takes over.

    >>> format_of(torch.empty(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)[:, 1:])
    torch.channels_last
    """
    dense_in_channels = tensor.stride(1) == 1 and tensor.shape[1] > 1 and not tensor.is_contiguous()
    return torch.channels_last if dense_in_channels else torch.contiguous_format


def empty_output(input: Tensor, geometry: Geometry) -> Tensor:
    """What the filtered input is written to."""
    batch, channels, *size = input.shape
    height, width = geometry.output_size(size)
    return empty(input, (batch, channels, height * geometry.scale, width * geometry.scale))


def empty_gradients(
    input: Tensor, channel_filter: Tensor | None, spatial_filter: Tensor | None, wanted: Sequence[bool]
) -> tuple[Tensor, ...]:
    """What the gradients are written to; without values where none is wanted."""
    return tuple(
        empty(tensor, tensor.shape) if tensor is not None and want else input.new_empty(0)
        for tensor, want in zip((input, channel_filter, spatial_filter), wanted, strict=True)
    )


def empty(like: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=format_of(like))
