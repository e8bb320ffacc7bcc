"""Launches the Triton kernels on a GPU."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from leanconv.ops import native
from leanconv.ops.dynamic.geometry import Geometry
from leanconv.ops.dynamic.norms import Norms
from leanconv.ops.dynamic.results import empty_gradients, empty_output, format_of

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
VALUES = 512  # of a tile: four for each thread of four warps; half as many where GROUP sums are held for each
GROUP = 9  # taps whose gradients one program holds in registers
ENOUGH = 528  # programs that fill a large GPU: four for each multiprocessor


def available(dtype: torch.dtype) -> bool:
    """Whether the Triton kernels take a dtype on this machine."""
    return dtype in DTYPES and has_triton()


@functools.cache
def has_triton() -> bool:
    """Whether there are a GPU and Triton, and the environment doesn't turn kernels off (LEANCONV_NATIVE=0)."""
    turned_off = native.flags_of_environment() is None
    return not turned_off and torch.cuda.is_available() and importlib.util.find_spec("triton") is not None


def forward(
    input: Tensor, channel_filter: Tensor | None, spatial_filter: Tensor | None, geometry: Geometry, norms: Norms
) -> Tensor:
    """The filtered input. Filters that have a scale are raw ones, and are normalised on the way."""
    output = empty_output(input, geometry)
    if output.numel():
        launch_sum(input, channel_filter, spatial_filter, output, geometry, norms)
    return output


def backward(
    gradient: Tensor,
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    geometry: Geometry,
    wanted: Sequence[bool],
) -> tuple[Tensor, ...]:
    """The wanted gradients of the input, the channel filter and the spatial filter."""
    gradients = empty_gradients(input, channel_filter, spatial_filter, wanted)
    if not gradient.numel():
        return tuple(each.zero_() for each in gradients)
    of_input, of_channel, of_spatial = gradients
    if of_input.numel():
        launch_sum(gradient, channel_filter, spatial_filter, of_input, geometry, Norms(), mirror=True)
    launch_filter_gradients(gradient, input, channel_filter, spatial_filter, of_channel, of_spatial, geometry)
    return gradients


def launch_sum(
    source: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    output: Tensor,
    geometry: Geometry,
    norms: Norms,
    *,
    mirror: bool = False,
) -> None:
    """The sum over taps: of the input, or, with the taps mirrored, of the gradient of the output."""
    from leanconv.ops.dynamic import triton_forward as kernels
    from leanconv.ops.dynamic.triton_parts import sum_type

    scale, heads = geometry.scale, geometry.heads(spatial_filter)
    height, width = output.shape[2] // scale, output.shape[3] // scale
    channels = output.shape[1] // heads
    tile = Tile.of(channels, height, width, dense_in_channels(output), VALUES)
    tensors = (View.of(source), FilterView.of(channel_filter), View.of(spatial_filter), View.of(output),
               *(None if vector is None else vector.contiguous() for vector in norms[:4]))
    options = {"SUM": sum_type(source.dtype), "ADD": geometry.add, "MIRROR": mirror, "SCALE": scale, "EPS": norms.eps,
               "BLOCK_CHANNELS": tile.channels, "BLOCK_COLUMNS": tile.columns}
    sizes = constants(geometry)
    columns = output.shape[0] * heads * scale * scale * cdiv(channels, tile.channels) * cdiv(width, tile.columns)
    with torch.cuda.device_of(output):
        if sizes == NEIGHBOURS:
            rows = rows_for(height, columns, most=16)
            kernels.slide[(columns * cdiv(height, rows),)](
                *tensors, heads=heads, channels=channels, height=height, width=width, rows=rows, **options)
        else:
            kernels.gather[(columns * cdiv(height, tile.rows),)](
                *tensors, heads=heads, channels=channels, source_height=source.shape[2], source_width=source.shape[3],
                height=height, width=width, BLOCK_ROWS=tile.rows, **options, **sizes)


def launch_filter_gradients(
    gradient: Tensor,
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    of_channel: Tensor,
    of_spatial: Tensor,
    geometry: Geometry,
) -> None:
    """The sums over pixels, in parts of some rows of each image, and over the channels of each head."""
    from leanconv.ops.dynamic import triton_backward as kernels
    from leanconv.ops.dynamic.triton_parts import sum_type

    batch, channels, height, width = gradient.shape
    taps, heads = geometry.taps(), geometry.heads(spatial_filter)
    tile = Tile.of(channels // heads, height, width, dense_in_channels(input), VALUES // 2)
    tensors = (View.of(gradient), View.of(input))
    options = {"heads": heads, "channels": channels // heads, "height": height, "width": width,
               "source_height": input.shape[2], "source_width": input.shape[3], "SUM": sum_type(input.dtype),
               "GROUP": min(taps, GROUP), "BLOCK_CHANNELS": tile.channels, "BLOCK_ROWS": tile.rows,
               "BLOCK_COLUMNS": tile.columns, **constants(geometry)}
    groups = batch * heads * cdiv(taps, GROUP)
    with torch.cuda.device_of(input):
        if of_channel.numel():
            programs = groups * cdiv(channels // heads, tile.channels)
            rows = rows_for(height, programs, least=tile.rows)
            count = cdiv(height, rows)
            dtype = torch.promote_types(input.dtype, torch.float32)
            parts = input.new_empty((batch, count, taps, channels), dtype=dtype)
            kernels.gradient_of_channel[(programs * count,)](
                *tensors, View.of(None if geometry.add else spatial_filter), parts, rows_a_part=rows, **options)
            of_channel.copy_(parts.sum(1).transpose(1, 2).view(of_channel.shape))
        if of_spatial.numel():
            programs = groups * cdiv(height, tile.rows) * cdiv(width, tile.columns)
            kernels.gradient_of_spatial[(programs,)](
                *tensors, FilterView.of(None if geometry.add else channel_filter), View.of(of_spatial), **options)


class View(NamedTuple):
    """(B, C, H, W) as a kernel sees it: a pointer and strides."""

    pointer: Tensor
    batch: int
    channel: int
    row: int
    column: int

    @classmethod
    def of(cls, tensor: Tensor | None) -> View | None:
        return None if tensor is None else cls(tensor, *tensor.stride())


class FilterView(NamedTuple):
    """(B, C, kh, kw) as a kernel sees it."""

    pointer: Tensor
    batch: int
    channel: int
    tap: int

    @classmethod
    def of(cls, filter: Tensor | None) -> FilterView | None:
        if filter is None:
            return None
        flat = filter.flatten(2)
        return cls(flat, *flat.stride())


def constants(geometry: Geometry) -> dict[str, int]:
    """The numbers that kernels are compiled for, under their names there."""
    kernel, stride, dilation, *_ = geometry
    return {"KERNEL_ROWS": kernel[0], "KERNEL_COLUMNS": kernel[1], "STRIDE_ROWS": stride[0],
            "STRIDE_COLUMNS": stride[1], "DILATION_ROWS": dilation[0], "DILATION_COLUMNS": dilation[1]}


NEIGHBOURS = constants(Geometry((3, 3), (1, 1), (1, 1), add=False))


class Tile(NamedTuple):
    """What a program owns at a time: powers of two.

    Threads lie along the dimension that is dense in memory, and as few of them outside the tensor as may be.

    >>> Tile.of(64, 56, 56, False, 512), Tile.of(64, 56, 56, True, 512)
    (Tile(channels=16, rows=1, columns=32), Tile(channels=64, rows=1, columns=8))
    >>> Tile.of(512, 7, 7, False, 512), Tile.of(8, 14, 14, True, 512)
    (Tile(channels=64, rows=1, columns=8), Tile(channels=8, rows=4, columns=16))
    """

    channels: int
    rows: int
    columns: int

    @classmethod
    def of(cls, channels: int, height: int, width: int, dense_in_channels: bool, values: int) -> Tile:
        channels, height, width = (1 << (extent - 1).bit_length() for extent in (channels, height, width))
        channels = min(channels, 128 if dense_in_channels else values // min(width, 32))
        width = min(width, values // channels)
        return cls(channels, min(height, values // (channels * width)), width)


def rows_for(height: int, programs: int, *, least: int = 1, most: int | None = None) -> int:
    """How many rows a program goes down: as many as leave enough programs. `least` divides them.

    >>> rows_for(56, 32 * 8, most=16), rows_for(56, 8, most=16), rows_for(7, 1024, most=16)
    (16, 2, 16)
    """
    rows = most or 1 << (height - 1).bit_length()
    rows = max(rows, least)
    while rows > max(least, 2) and programs * cdiv(height, rows) < ENOUGH:
        rows //= 2
    return rows


def dense_in_channels(tensor: Tensor) -> bool:
    return format_of(tensor) == torch.channels_last


def cdiv(size: int, block: int) -> int:
    return -(-size // block)
