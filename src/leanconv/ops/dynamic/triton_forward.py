"""The dynamic filter in Triton, and its gradient to the input, which is the same sum with the taps mirrored.

    forward:   y[c,i,j]  = Σ_t K_t[c,i,j] · x at the place that tap t reads for (i,j)
    mirrored:  gx[c,p,q] = Σ_t K_t[c,i,j] · gy[c,i,j] at the place (i,j), if there is one, whose tap t reads (p,q)

Both kernels sum at an output pixel over values of a source: x, or gy for the mirrored sum. A program owns a block of
channels of one head and a block of pixels. For 3×3 kernels of stride and dilation 1 `slide` keeps three rows of the
source in registers and loads each value three times, once for each column of the kernel; `gather` takes any geometry.
"""

# mypy: ignore-errors
# ruff: noqa: RUF005 - Triton can't unpack a tuple into another

from __future__ import annotations

import triton
import triton.language as tl

from leanconv.ops.dynamic.triton_parts import (
    block_of_channels,
    filtered,
    offset,
    read,
    reciprocal_deviation,
    scaled_and_shifted,
)


@triton.jit
def slide(
    source, channel, spatial, output, channel_scale, channel_shift, spatial_scale, spatial_shift,
    heads, channels, height, width, rows,
    SUM: tl.constexpr, ADD: tl.constexpr, MIRROR: tl.constexpr, SCALE: tl.constexpr, EPS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
):  # fmt: skip
    """3×3, stride 1, dilation 1. A program goes down `rows` rows."""
    index = tl.program_id(0)
    branch, index = index % (SCALE * SCALE), index // (SCALE * SCALE)
    column_blocks, channel_blocks = tl.cdiv(width, BLOCK_COLUMNS), tl.cdiv(channels, BLOCK_CHANNELS)
    column_block, index = index % column_blocks, index // column_blocks
    channel_block, index = index % channel_blocks, index // channel_blocks
    head, index = index % heads, index // heads
    row_blocks = tl.cdiv(height, rows)
    first_row, image = index % row_blocks * rows, (index // row_blocks).to(tl.int64)

    columns = column_block * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    block, real, safe = block_of_channels(channel_block, channels, BLOCK_CHANNELS)
    inside = real[:, None] & (columns < width)[None, :]
    place = (head * channels + block).to(tl.int64)[:, None]
    of_source = source.pointer + image * source.batch + place * source.channel
    of_output = output.pointer + image * output.batch + place * output.channel
    of_output += branch // SCALE * output.row + branch % SCALE * output.column

    channel_taps, spatial_at = None, None
    if channel is not None:
        filter = (branch * heads + head) * channels + safe
        channel_taps = nine_of_channel(channel, image, filter, channel_scale, channel_shift, SUM, MIRROR, EPS)
    if spatial is not None:
        first_tap = (branch * heads + head).to(tl.int64) * 9
        spatial_at = spatial.pointer + image * spatial.batch + first_tap * spatial.channel

    above = three_of_row(of_source, source, first_row - 1, columns, height, width, inside, SUM)
    here = three_of_row(of_source, source, first_row, columns, height, width, inside, SUM)
    for row in range(first_row, tl.minimum(first_row + rows, height)):
        below = three_of_row(of_source, source, row + 1, columns, height, width, inside, SUM)
        window = above + here + below
        total = tl.zeros((BLOCK_CHANNELS, BLOCK_COLUMNS), SUM)
        if spatial is not None:
            spatial_taps = nine_of_pixel(spatial, spatial_at, row, columns, height, width, branch * heads + head,
                                         spatial_scale, spatial_shift, SUM, MIRROR, EPS)
        for tap in tl.static_range(9):
            of_channel, of_pixel = None, None
            if channel is not None:
                of_channel = channel_taps[tap][:, None]
            if spatial is not None:
                of_pixel = spatial_taps[tap][None, :]
            total += filtered(window[tap], of_channel, of_pixel, ADD)
        target = of_output + offset(output, row * SCALE, columns * SCALE)[None, :]
        tl.store(target, total.to(output.pointer.dtype.element_ty), mask=inside)
        above = here
        here = below


@triton.jit
def three_of_row(of_source, source, row, columns, height, width, inside, SUM: tl.constexpr):
    """A row's values left of, at and right of the columns."""
    inside = inside & (row >= 0) & (row < height)
    at = of_source + offset(source, row, columns)[None, :]
    left = tl.load(at - source.column, mask=inside & (columns > 0)[None, :], other=0.0).to(SUM)
    middle = tl.load(at, mask=inside, other=0.0).to(SUM)
    right = tl.load(at + source.column, mask=inside & (columns < width - 1)[None, :], other=0.0).to(SUM)
    return left, middle, right


@triton.jit
def nine_of_channel(
    channel, image, filter, scale, shift, SUM: tl.constexpr, MIRROR: tl.constexpr, EPS: tl.constexpr
):  # fmt: skip
    """The taps of the channels' filters in the order of the window."""
    at = channel.pointer + image * channel.batch + filter.to(tl.int64) * channel.channel
    taps = ()
    for tap in tl.static_range(9):
        taps = taps + (tl.load(at + (8 - tap if MIRROR else tap) * channel.tap).to(SUM),)
    if scale is not None:
        taps = normalised(taps, scale, shift, filter, EPS)
    return taps


@triton.jit
def nine_of_pixel(
    spatial, spatial_at, row, columns, height, width, filter, scale, shift,
    SUM: tl.constexpr, MIRROR: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    """The taps of the pixels' filters in the order of the window; mirrored, each one's of the pixel that it meets."""
    taps = ()
    for tap in tl.static_range(9):
        if MIRROR:
            at_row, at_columns, number = row + (tap // 3 - 1), columns + (tap % 3 - 1), 8 - tap
        else:
            at_row, at_columns, number = row, columns, tap
        inside = (at_row >= 0) & (at_row < height) & (at_columns >= 0) & (at_columns < width)
        at = spatial_at + tl.cast(number, tl.int64) * spatial.channel + offset(spatial, at_row, at_columns)
        taps = taps + (tl.load(at, mask=inside, other=0.0).to(SUM),)
    if scale is not None:
        taps = normalised(taps, scale, shift, filter, EPS)
    return taps


@triton.jit
def normalised(taps, scale, shift, filter, EPS: tl.constexpr):
    """FilterNorm of nine taps. The mean is taken as distance from the first tap: flat filters are flat exactly."""
    total = taps[0] - taps[0]
    for tap in tl.static_range(1, 9):
        total += taps[tap] - taps[0]
    mean = taps[0] + total / 9
    squares = taps[0] - taps[0]
    for tap in tl.static_range(9):
        squares += (taps[tap] - mean) * (taps[tap] - mean)
    factor = reciprocal_deviation(squares, 9, EPS)
    results = ()
    for tap in tl.static_range(9):
        results = results + (scaled_and_shifted((taps[tap] - mean) * factor, scale, shift, filter * 9 + tap),)
    return results


@triton.jit
def gather(
    source, channel, spatial, output, channel_scale, channel_shift, spatial_scale, spatial_shift,
    heads, channels, source_height, source_width, height, width,
    SUM: tl.constexpr, ADD: tl.constexpr, MIRROR: tl.constexpr, SCALE: tl.constexpr, EPS: tl.constexpr,
    KERNEL_ROWS: tl.constexpr, KERNEL_COLUMNS: tl.constexpr, STRIDE_ROWS: tl.constexpr, STRIDE_COLUMNS: tl.constexpr,
    DILATION_ROWS: tl.constexpr, DILATION_COLUMNS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
):  # fmt: skip
    """Any kernel, stride and dilation. Height and width are the output's, before an upsampling."""
    TAPS: tl.constexpr = KERNEL_ROWS * KERNEL_COLUMNS
    index = tl.program_id(0)
    branch, index = index % (SCALE * SCALE), index // (SCALE * SCALE)
    column_blocks, channel_blocks = tl.cdiv(width, BLOCK_COLUMNS), tl.cdiv(channels, BLOCK_CHANNELS)
    column_block, index = index % column_blocks, index // column_blocks
    channel_block, index = index % channel_blocks, index // channel_blocks
    head, index = index % heads, index // heads
    row_blocks = tl.cdiv(height, BLOCK_ROWS)
    row_block, image = index % row_blocks, (index // row_blocks).to(tl.int64)

    pixels = tl.arange(0, BLOCK_ROWS * BLOCK_COLUMNS)
    rows = row_block * BLOCK_ROWS + pixels // BLOCK_COLUMNS
    columns = column_block * BLOCK_COLUMNS + pixels % BLOCK_COLUMNS
    within = (rows < height) & (columns < width)
    block, real, safe = block_of_channels(channel_block, channels, BLOCK_CHANNELS)
    place = (head * channels + block).to(tl.int64)[:, None]
    of_source = source.pointer + image * source.batch + place * source.channel

    if channel is not None:
        channel_filter = (branch * heads + head) * channels + safe
        channel_at = channel.pointer + image * channel.batch + channel_filter.to(tl.int64) * channel.channel
        if channel_scale is not None:
            channel_mean, channel_factor = statistics(channel_at, channel.tap, real, TAPS, SUM, EPS)
    if spatial is not None:
        spatial_filter = branch * heads + head
        spatial_at = spatial.pointer + image * spatial.batch + spatial_filter.to(tl.int64) * TAPS * spatial.channel
        pixel_at = spatial_at + offset(spatial, rows, columns)
        if spatial_scale is not None:
            spatial_mean, spatial_factor = statistics(pixel_at, spatial.channel, within, TAPS, SUM, EPS)

    total = tl.zeros((BLOCK_CHANNELS, BLOCK_ROWS * BLOCK_COLUMNS), SUM)
    for tap in range(TAPS):
        down = (tap // KERNEL_COLUMNS - KERNEL_ROWS // 2) * DILATION_ROWS
        right = (tap % KERNEL_COLUMNS - KERNEL_COLUMNS // 2) * DILATION_COLUMNS
        if MIRROR:
            at_rows, at_columns = (rows - down) // STRIDE_ROWS, (columns - right) // STRIDE_COLUMNS
            met = within & (rows >= down) & (columns >= right)
            met = met & ((rows - down) % STRIDE_ROWS == 0) & ((columns - right) % STRIDE_COLUMNS == 0)
        else:
            at_rows, at_columns = rows * STRIDE_ROWS + down, columns * STRIDE_COLUMNS + right
            met = within & (at_rows >= 0) & (at_columns >= 0)
        met = met & (at_rows < source_height) & (at_columns < source_width)
        value = read(of_source, source, at_rows, at_columns, real, met, SUM)
        of_channel, of_pixel = None, None
        if channel is not None:
            of_channel = tl.load(channel_at + tap * channel.tap).to(SUM)
            if channel_scale is not None:
                of_channel = (of_channel - channel_mean) * channel_factor
                of_channel = scaled_and_shifted(of_channel, channel_scale, channel_shift, channel_filter * TAPS + tap)
            of_channel = of_channel[:, None]
        if spatial is not None:
            if MIRROR:
                pixel_at, has_filter = spatial_at + offset(spatial, at_rows, at_columns), met
            else:
                has_filter = within
            of_pixel = tl.load(pixel_at + tl.cast(tap, tl.int64) * spatial.channel, mask=has_filter, other=0.0).to(SUM)
            if spatial_scale is not None:
                of_pixel = (of_pixel - spatial_mean) * spatial_factor
                of_pixel = scaled_and_shifted(of_pixel, spatial_scale, spatial_shift, spatial_filter * TAPS + tap)
            of_pixel = of_pixel[None, :]
        total += filtered(value, of_channel, of_pixel, ADD)
    target = output.pointer + image * output.batch + place * output.channel
    target += offset(output, rows * SCALE + branch // SCALE, columns * SCALE + branch % SCALE)[None, :]
    tl.store(target, total.to(output.pointer.dtype.element_ty), mask=real[:, None] & within[None, :])


@triton.jit
def statistics(at, stride, inside, TAPS: tl.constexpr, SUM: tl.constexpr, EPS: tl.constexpr):
    """FilterNorm's mean and factor of filters with any number of taps, which are read twice."""
    first = tl.load(at, mask=inside, other=0.0).to(SUM)
    total = first - first
    for tap in range(1, TAPS):
        total += tl.load(at + tl.cast(tap, tl.int64) * stride, mask=inside, other=0.0).to(SUM) - first
    mean = first + total / TAPS
    squares = first - first
    for tap in range(TAPS):
        distance = tl.load(at + tl.cast(tap, tl.int64) * stride, mask=inside, other=0.0).to(SUM) - mean
        squares += distance * distance
    return mean, reciprocal_deviation(squares, TAPS, EPS)
