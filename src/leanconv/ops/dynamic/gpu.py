"""Launches the Triton kernels on a GPU."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leanconv.ops import native
from leanconv.ops.dynamic import reference, slices

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
VECTORS = ("channel_scale", "channel_shift", "spatial_scale", "spatial_shift")  # of both norms
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
    """The filtered input. Filters that have a scale are raw ones, and are normalised on the way."""
    height, width = reference.output_size(input.shape[2:], stride)
    output = torch.empty((*input.shape[:2], height * scale, width * scale), dtype=input.dtype, device=input.device,
                         memory_format=slices.format_of(input))
    if output.numel():
        vectors = (channel_scale, channel_shift, spatial_scale, spatial_shift)
        norms = dict(zip(VECTORS, [None if vector is None else vector.contiguous() for vector in vectors], strict=True))
        geometry = Geometry.of(kernel_size, stride, dilation)
        launch_sum(input, channel_filter, spatial_filter, output, geometry, add, {**norms, "EPS": eps}, scale=scale)
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
    """The wanted gradients of the input, the channel filter and the spatial filter."""
    tensors = (input, channel_filter, spatial_filter)
    of_input, of_channel, of_spatial = (
        torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device, memory_format=slices.format_of(tensor))
        if tensor is not None and want else input.new_empty(0)
        for tensor, want in zip(tensors, wanted, strict=True)
    )
    if not gradient.numel():
        return of_input.zero_(), of_channel.zero_(), of_spatial.zero_()
    geometry = Geometry.of(kernel_size, stride, dilation)
    if of_input.numel():
        no_norms = {**dict.fromkeys(VECTORS), "EPS": None}
        launch_sum(gradient, channel_filter, spatial_filter, of_input, geometry, add, no_norms, mirror=True)
    heads = heads_of(spatial_filter, geometry)
    if of_channel.numel():
        launch_channel_gradient(gradient, input, None if add else spatial_filter, of_channel, heads, geometry)
    if of_spatial.numel():
        launch_spatial_gradient(gradient, input, None if add else channel_filter, of_spatial, heads, geometry)
    return of_input, of_channel, of_spatial


def launch_sum(
    source: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    output: Tensor,
    geometry: Geometry,
    add: bool,
    norms: dict[str, Any],
    *,
    scale: int = 1,
    mirror: bool = False,
) -> None:
    """The sum over taps: of the input, or, with the taps mirrored, of the gradient of the output."""
    from leanconv.ops.dynamic import triton_forward as kernels
    from leanconv.ops.dynamic.triton_parts import sum_type

    height, width = output.shape[2] // scale, output.shape[3] // scale
    heads = heads_of(spatial_filter, geometry, scale)
    channels = output.shape[1] // heads
    tile = Tile.of(channels, height, width, dense_in_channels(output), VALUES)
    tensors = (View.of(source), FilterView.of(channel_filter), View.of(spatial_filter), View.of(output))
    options = {**norms, "SUM": sum_type(source.dtype), "ADD": add, "MIRROR": mirror, "SCALE": scale,
               "BLOCK_CHANNELS": tile.channels, "BLOCK_COLUMNS": tile.columns}
    columns = output.shape[0] * heads * scale * scale * cdiv(channels, tile.channels) * cdiv(width, tile.columns)
    with torch.cuda.device_of(output):
        if geometry == NEIGHBOURS:
            rows = rows_for(height, columns, most=16)
            kernels.slide[(columns * cdiv(height, rows),)](
                *tensors, heads=heads, channels=channels, height=height, width=width, rows=rows, **options)
        else:
            kernels.gather[(columns * cdiv(height, tile.rows),)](
                *tensors, heads=heads, channels=channels, source_height=source.shape[2], source_width=source.shape[3],
                height=height, width=width, BLOCK_ROWS=tile.rows, **options, **geometry._asdict())


def launch_channel_gradient(
    gradient: Tensor, input: Tensor, spatial_filter: Tensor | None, output: Tensor, heads: int, geometry: Geometry
) -> None:
    """Parts of the sum over pixels, one for some rows of each image, and their sum."""
    from leanconv.ops.dynamic import triton_backward as kernels
    from leanconv.ops.dynamic.triton_parts import sum_type

    batch, channels, height, width = gradient.shape
    taps = geometry.taps
    tile = Tile.of(channels // heads, height, width, dense_in_channels(input), VALUES // 2)
    group = min(taps, GROUP)
    programs = batch * heads * cdiv(channels // heads, tile.channels) * cdiv(taps, group)
    rows = rows_for(height, programs, least=tile.rows)
    count = cdiv(height, rows)
    dtype = torch.promote_types(input.dtype, torch.float32)
    parts = torch.empty((batch, count, taps, channels), dtype=dtype, device=input.device)
    with torch.cuda.device_of(output):
        kernels.gradient_of_channel[(programs * count,)](
            View.of(gradient), View.of(input), View.of(spatial_filter), parts, heads=heads, channels=channels // heads,
            source_height=input.shape[2], source_width=input.shape[3], height=height, width=width, rows_a_part=rows,
            SUM=sum_type(input.dtype), GROUP=group, **geometry._asdict(), **tile.blocks())
    output.copy_(parts.sum(1).transpose(1, 2).view(output.shape))


def launch_spatial_gradient(
    gradient: Tensor, input: Tensor, channel_filter: Tensor | None, output: Tensor, heads: int, geometry: Geometry
) -> None:
    """The sum over the channels of each head."""
    from leanconv.ops.dynamic import triton_backward as kernels
    from leanconv.ops.dynamic.triton_parts import sum_type

    batch, channels, height, width = gradient.shape
    tile = Tile.of(channels // heads, height, width, dense_in_channels(input), VALUES // 2)
    group = min(geometry.taps, GROUP)
    programs = batch * heads * cdiv(height, tile.rows) * cdiv(width, tile.columns) * cdiv(geometry.taps, group)
    with torch.cuda.device_of(output):
        kernels.gradient_of_spatial[(programs,)](
            View.of(gradient), View.of(input), FilterView.of(channel_filter), View.of(output), heads=heads,
            channels=channels // heads, source_height=input.shape[2], source_width=input.shape[3], height=height,
            width=width, SUM=sum_type(input.dtype), GROUP=group, **geometry._asdict(), **tile.blocks())


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


class Geometry(NamedTuple):
    """The numbers that kernels are compiled for, under their names there."""

    KERNEL_ROWS: int
    KERNEL_COLUMNS: int
    STRIDE_ROWS: int
    STRIDE_COLUMNS: int
    DILATION_ROWS: int
    DILATION_COLUMNS: int

    @classmethod
    def of(cls, *pairs: Sequence[int]) -> Geometry:
        return cls(*(number for pair in pairs for number in pair))

    @property
    def taps(self) -> int:
        return self.KERNEL_ROWS * self.KERNEL_COLUMNS


NEIGHBOURS = Geometry.of((3, 3), (1, 1), (1, 1))


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

    def blocks(self) -> dict[str, int]:
        return {"BLOCK_CHANNELS": self.channels, "BLOCK_ROWS": self.rows, "BLOCK_COLUMNS": self.columns}


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


def heads_of(spatial_filter: Tensor | None, geometry: Geometry, scale: int = 1) -> int:
    return 1 if spatial_filter is None else spatial_filter.shape[1] // (scale * scale * geometry.taps)


def dense_in_channels(tensor: Tensor) -> bool:
    return slices.format_of(tensor) == torch.channels_last


def cdiv(size: int, block: int) -> int:
    return -(-size // block)
