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
from leanconv.ops.dynamic.geometry import Geometry
from leanconv.ops.dynamic.norms import Norms
from leanconv.ops.dynamic.results import empty_gradients, empty_output, format_of

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
    input: Tensor, channel_filter: Tensor | None, spatial_filter: Tensor | None, geometry: Geometry, norms: Norms
) -> Tensor:
    """All branches, straight into the output; filters are normalised on the way."""
    if too_large(geometry):
        return slices.forward(input, channel_filter, spatial_filter, geometry, norms)
    output = empty_output(input, geometry)
    if output.numel():
        call("ddf_forward", input, (channel_filter, spatial_filter), output, (None, None, None), geometry, norms)
    return output


def backward(
    gradient: Tensor,
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    geometry: Geometry,
    wanted: Sequence[bool],
) -> tuple[Tensor, ...]:
    """The wanted gradients in one pass over the images."""
    if too_large(geometry):
        return slices.backward(gradient, input, channel_filter, spatial_filter, geometry, wanted)
    gradients = empty_gradients(input, channel_filter, spatial_filter, wanted)
    if not gradient.numel():
        return tuple(each.zero_() for each in gradients)
    if gradient.stride(1) != 1 and format_of(input) == torch.channels_last:
        gradient = gradient.contiguous(memory_format=torch.channels_last)
    targets = [each if each.numel() else None for each in gradients]
    call("ddf_backward", input, (channel_filter, spatial_filter), gradient, targets, geometry, Norms())
    return gradients


def too_large(geometry: Geometry) -> bool:
    return math.prod((*geometry.kernel_size, *geometry.stride)) > MOST


def call(
    function: str,
    input: Tensor,
    filters: Sequence[Tensor | None],
    output: Tensor,
    gradients: Sequence[Tensor | None],
    geometry: Geometry,
    norms: Norms,
) -> None:
    """Packs the arguments for a function of `ddf.c`. `output` is the gradient for the backward."""
    batch, channels, *size = input.shape
    vectors = [None if vector is None else vector.to(torch.promote_types(input.dtype, torch.float32)).contiguous()
               for vector in norms[:4]]
    packed = ARGUMENTS.pack(
        *native.team(), batch, channels, geometry.heads(filters[1]), geometry.scale, geometry.add,
        *size, *geometry.output_size(size), *geometry.kernel_size, *geometry.stride, *geometry.dilation,
        *sum(map(described, (input, *filters, output, *gradients)), ()),
        *(0 if vector is None else vector.data_ptr() for vector in vectors), -1.0 if norms.eps is None else norms.eps,
    )
    if getattr(kernels_for(input.dtype), function)(packed):
        raise MemoryError(f"{function} had no memory for what it keeps between its sums")


def described(tensor: Tensor | None) -> tuple[int, ...]:
    """`struct tensor` of ddf.c."""
    if tensor is None:
        return NOTHING
    return tensor.data_ptr(), DTYPES[tensor.dtype], *tensor.stride()
