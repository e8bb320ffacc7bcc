"""The definition with the interface of the kernels: it runs where there are none, or none that takes the arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from leanconv.ops.dynamic import reference
from leanconv.ops.dynamic.norms import Norms


def format_of(input: Tensor) -> torch.memory_format:
    """The memory format that the output takes over from the input.

    >>> format_of(torch.empty(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)[:, 1:])
    torch.channels_last
    """
    dense_in_channels = input.stride(1) == 1 and input.shape[1] > 1 and not input.is_contiguous()
    return torch.channels_last if dense_in_channels else torch.contiguous_format


def forward(
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    add: bool,
    scale: int,
    *norms: Any,
) -> Tensor:
    """The reference as the operator's implementation."""
    channel_filter, spatial_filter = Norms(*norms).apply(channel_filter, spatial_filter, tuple(kernel_size))  # type: ignore[arg-type]
    output = reference.ddf(input, channel_filter, spatial_filter, kernel_size, stride, dilation, add, scale)
    return output.contiguous(memory_format=format_of(input))


def backward(
    gradient: Tensor,
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    add: bool,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """The reference as the operator's implementation: each gradient in the memory format of its tensor."""
    tensors = (input, channel_filter, spatial_filter)
    found = reference.gradients(gradient, *tensors, kernel_size, stride, dilation, add, wanted)
    return tuple(  # type: ignore[return-value]
        input.new_empty(0) if each is None or tensor is None else each.contiguous(memory_format=format_of(tensor))
        for each, tensor in zip(found, tensors, strict=True)
    )
