"""Launches the native kernels on the CPU: `ddf.c`, compiled at the first use."""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from leanconv.ops import native
from leanconv.ops.dynamic import slices

SOURCE = Path(__file__).with_name("ddf.c")
DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
ARGUMENTS = struct.Struct("=" + 7 * "q" + 10 * "q" + 7 * "6q" + 4 * "q" + "d")  # struct arguments of ddf.c
NOTHING = (0,) * 6
MOST = 4096  # taps times steps of the stride, for which a thread's stack has room


def available(dtype: torch.dtype) -> bool:
    """Whether the native kernels take a dtype on this machine. The first call compiles them, or loads them."""
    kernels = kernels_for(dtype) if dtype in DTYPES else None
    return kernels is not None and (dtype != torch.float16 or bool(kernels.ddf_takes_half()))


def kernels_for(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The kernels whose sums are in float64 for that input, else in float32: each compiled when it is first wanted."""
    return native.load(SOURCE, "SUMS_IN_DOUBLE") if dtype == torch.float64 else native.load(SOURCE)


def forward(
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    add: bool,
    scale: int,
    channel_scale: Tensor | None = None,
    channel_shift: Tensor | None = None,
    spatial_scale: Tensor | None = None,
    spatial_shift: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """All branches, straight into the output; filters are normalised on the way."""
    if too_large(kernel_size, stride):
        return slices.forward(input, channel_filter, spatial_filter, kernel_size, stride, dilation, add, scale,
                              channel_scale, channel_shift, spatial_scale, spatial_shift, eps)
    batch, channels, height, width = input.shape
    size = ((height - 1) // stride[0] + 1, (width - 1) // stride[1] + 1)
    output = torch.empty((batch, channels, size[0] * scale, size[1] * scale), dtype=input.dtype,
                         memory_format=slices.format_of(input))
    vectors = [None if vector is None else vector.to(torch.promote_types(input.dtype, torch.float32)).contiguous()
               for vector in (channel_scale, channel_shift, spatial_scale, spatial_shift)]
    call("ddf_forward", input, channel_filter, spatial_filter, output, (None,) * 3, kernel_size, stride, dilation, add,
         scale, vectors, eps)
    return output


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
    """The wanted gradients in one pass over the images."""
    if too_large(kernel_size, stride):
        return slices.backward(gradient, input, channel_filter, spatial_filter, kernel_size, stride, dilation, add,
                               wanted)
    tensors = (input, channel_filter, spatial_filter)
    gradients = [torch.empty(tensor.shape, dtype=tensor.dtype, memory_format=slices.format_of(tensor))
                 if tensor is not None and want else None for tensor, want in zip(tensors, wanted, strict=True)]
    if not gradient.numel():
        return tuple(input.new_empty(0) if each is None else each.zero_() for each in gradients)  # type: ignore[return-value]
    if gradient.stride(1) != 1 and slices.format_of(input) == torch.channels_last:
        gradient = gradient.contiguous(memory_format=torch.channels_last)
    call("ddf_backward", input, channel_filter, spatial_filter, gradient, gradients, kernel_size, stride, dilation, add,
         1, (None,) * 4, None)
    return tuple(input.new_empty(0) if each is None else each for each in gradients)  # type: ignore[return-value]


def too_large(kernel_size: Sequence[int], stride: Sequence[int]) -> bool:
    return math.prod((*kernel_size, *stride)) > MOST


def call(
    function: str,
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    output: Tensor,
    gradients: Sequence[Tensor | None],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    add: bool,
    scale: int,
    vectors: Sequence[Tensor | None],
    eps: float | None,
) -> None:
    """Packs the arguments for a function of `ddf.c`. `output` is the gradient for the backward."""
    if not output.numel():
        return
    kernels = kernels_for(input.dtype)
    assert kernels is not None
    launch, threads = native.team()
    batch, channels, height, width = input.shape
    taps = kernel_size[0] * kernel_size[1] * scale * scale
    heads = 1 if spatial_filter is None else spatial_filter.shape[1] // taps
    packed = ARGUMENTS.pack(
        launch, threads, batch, channels, heads, scale, add,
        height, width, output.shape[2] // scale, output.shape[3] // scale, *kernel_size, *stride, *dilation,
        *described(input), *described(channel_filter), *described(spatial_filter), *described(output),
        *described(gradients[0]), *described(gradients[1]), *described(gradients[2]),
        *(0 if vector is None else vector.data_ptr() for vector in vectors), -1.0 if eps is None else eps,
    )
    if getattr(kernels, function)(packed):
        raise MemoryError(f"{function} had no memory for what it keeps between its sums")


def described(tensor: Tensor | None) -> tuple[int, ...]:
    """`struct tensor` of ddf.c."""
    if tensor is None:
        return NOTHING
    return tensor.data_ptr(), DTYPES[tensor.dtype], *tensor.stride()
