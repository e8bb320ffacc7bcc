"""The gradients of both filters in Triton, without atomics: each sum is taken by one program in a fixed order.

With X_t the values that tap t reads and gy the gradient of the output, q_t = gy · X_t serves both:

    gS[g,t,i,j] = Σ_{c in head g} q_t · C_t     a program owns pixels and goes through the channels of a head
    gC[c,t]     = Σ_{i,j}         q_t · S_t     a program owns channels and goes through some rows; torch adds the parts

Without the factor C_t or S_t where the filters are added, or there is no other one. A program takes GROUP taps at once.
"""

# mypy: ignore-errors
# ruff: noqa: RUF005 - Triton can't unpack a tuple into another

from __future__ import annotations

import triton
import triton.language as tl

from leanconv.ops.dynamic.triton_parts import block_of_channels, offset, read


@triton.jit
def gradient_of_spatial(
    gradient, source, channel, output,
    heads, channels, source_height, source_width, height, width,
    SUM: tl.constexpr,
    KERNEL_ROWS: tl.constexpr, KERNEL_COLUMNS: tl.constexpr, STRIDE_ROWS: tl.constexpr, STRIDE_COLUMNS: tl.constexpr,
    DILATION_ROWS: tl.constexpr, DILATION_COLUMNS: tl.constexpr,
    GROUP: tl.constexpr, BLOCK_CHANNELS: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
):  # fmt: skip
    """gS of one head at a block of pixels. `channel` is None where no channel filter is multiplied in."""
    TAPS: tl.constexpr = KERNEL_ROWS * KERNEL_COLUMNS
    GROUPS: tl.constexpr = (TAPS + GROUP - 1) // GROUP
    index = tl.program_id(0)
    group, index = index % GROUPS, index // GROUPS
    column_blocks, row_blocks = tl.cdiv(width, BLOCK_COLUMNS), tl.cdiv(height, BLOCK_ROWS)
    column_block, index = index % column_blocks, index // column_blocks
    head, index = index % heads, index // heads
    row_block, image = index % row_blocks, (index // row_blocks).to(tl.int64)

    pixels = tl.arange(0, BLOCK_ROWS * BLOCK_COLUMNS)
    rows = row_block * BLOCK_ROWS + pixels // BLOCK_COLUMNS
    columns = column_block * BLOCK_COLUMNS + pixels % BLOCK_COLUMNS
    within = (rows < height) & (columns < width)

    sums = zeros(GROUP, BLOCK_CHANNELS, BLOCK_ROWS * BLOCK_COLUMNS, SUM)
    for channel_block in range(tl.cdiv(channels, BLOCK_CHANNELS)):
        block, real, safe = block_of_channels(channel_block, channels, BLOCK_CHANNELS)
        place = (head * channels + block).to(tl.int64)[:, None]
        of_gradient = gradient.pointer + image * gradient.batch + place * gradient.channel
        of_source = source.pointer + image * source.batch + place * source.channel
        arriving = read(of_gradient, gradient, rows, columns, real, within, SUM)
        updated = ()
        for each in tl.static_range(GROUP):
            tap = group * GROUP + each
            at_rows, at_columns, inside = where_tap_reads(
                tap, rows, columns, source_height, source_width, within, KERNEL_ROWS, KERNEL_COLUMNS, STRIDE_ROWS,
                STRIDE_COLUMNS, DILATION_ROWS, DILATION_COLUMNS)
            product = arriving * read(of_source, source, at_rows, at_columns, real, inside, SUM)
            if channel is not None:
                filter = (head * channels + safe).to(tl.int64) * channel.channel
                at = channel.pointer + image * channel.batch + filter + tl.minimum(tap, TAPS - 1) * channel.tap
                product *= tl.load(at).to(SUM)[:, None]
            updated = updated + (sums[each] + product,)
        sums = updated

    target = output.pointer + image * output.batch + offset(output, rows, columns)
    for each in tl.static_range(GROUP):
        tap = group * GROUP + each
        values = tl.sum(sums[each], 0).to(output.pointer.dtype.element_ty)
        tl.store(target + (head * TAPS + tap).to(tl.int64) * output.channel, values, mask=within & (tap < TAPS))


@triton.jit
def gradient_of_channel(
    gradient, source, spatial, parts,
    heads, channels, source_height, source_width, height, width, rows_a_part,
    SUM: tl.constexpr,
    KERNEL_ROWS: tl.constexpr, KERNEL_COLUMNS: tl.constexpr, STRIDE_ROWS: tl.constexpr, STRIDE_COLUMNS: tl.constexpr,
    DILATION_ROWS: tl.constexpr, DILATION_COLUMNS: tl.constexpr,
    GROUP: tl.constexpr, BLOCK_CHANNELS: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
):  # fmt: skip
    """The part of gC of some rows, into (B, parts, taps, C). `spatial` is None where none is multiplied in."""
    TAPS: tl.constexpr = KERNEL_ROWS * KERNEL_COLUMNS
    GROUPS: tl.constexpr = (TAPS + GROUP - 1) // GROUP
    index = tl.program_id(0)
    group, index = index % GROUPS, index // GROUPS
    channel_blocks = tl.cdiv(channels, BLOCK_CHANNELS)
    channel_block, index = index % channel_blocks, index // channel_blocks
    head, index = index % heads, index // heads
    count = tl.cdiv(height, rows_a_part)
    part, image = index % count, (index // count).to(tl.int64)

    block, real, _ = block_of_channels(channel_block, channels, BLOCK_CHANNELS)
    place = (head * channels + block).to(tl.int64)[:, None]
    of_gradient = gradient.pointer + image * gradient.batch + place * gradient.channel
    of_source = source.pointer + image * source.batch + place * source.channel
    pixels = tl.arange(0, BLOCK_ROWS * BLOCK_COLUMNS)
    last_row = tl.minimum((part + 1) * rows_a_part, height)
    column_blocks = tl.cdiv(width, BLOCK_COLUMNS)
    steps = tl.cdiv(last_row - part * rows_a_part, BLOCK_ROWS) * column_blocks

    sums = zeros(GROUP, BLOCK_CHANNELS, BLOCK_ROWS * BLOCK_COLUMNS, SUM)
    for step in range(steps):
        rows = part * rows_a_part + step // column_blocks * BLOCK_ROWS + pixels // BLOCK_COLUMNS
        columns = step % column_blocks * BLOCK_COLUMNS + pixels % BLOCK_COLUMNS
        within = (rows < last_row) & (columns < width)
        arriving = read(of_gradient, gradient, rows, columns, real, within, SUM)
        updated = ()
        for each in tl.static_range(GROUP):
            tap = group * GROUP + each
            at_rows, at_columns, inside = where_tap_reads(
                tap, rows, columns, source_height, source_width, within, KERNEL_ROWS, KERNEL_COLUMNS, STRIDE_ROWS,
                STRIDE_COLUMNS, DILATION_ROWS, DILATION_COLUMNS)
            product = arriving * read(of_source, source, at_rows, at_columns, real, inside, SUM)
            if spatial is not None:
                filter = (head * TAPS + tl.minimum(tap, TAPS - 1)).to(tl.int64) * spatial.channel
                at = spatial.pointer + image * spatial.batch + filter + offset(spatial, rows, columns)
                product *= tl.load(at, mask=within, other=0.0).to(SUM)[None, :]
            updated = updated + (sums[each] + product,)
        sums = updated

    for each in tl.static_range(GROUP):
        tap = group * GROUP + each
        row_of_parts = (image * count + part) * TAPS + tap
        target = parts + row_of_parts * heads * channels + head * channels + block
        tl.store(target, tl.sum(sums[each], 1), mask=real & (tap < TAPS))


@triton.jit
def zeros(GROUP: tl.constexpr, BLOCK_CHANNELS: tl.constexpr, PIXELS: tl.constexpr, SUM: tl.constexpr):
    sums = ()
    for _ in tl.static_range(GROUP):
        sums = sums + (tl.zeros((BLOCK_CHANNELS, PIXELS), SUM),)
    return sums


@triton.jit
def where_tap_reads(
    tap, rows, columns, source_height, source_width, within,
    KERNEL_ROWS: tl.constexpr, KERNEL_COLUMNS: tl.constexpr, STRIDE_ROWS: tl.constexpr, STRIDE_COLUMNS: tl.constexpr,
    DILATION_ROWS: tl.constexpr, DILATION_COLUMNS: tl.constexpr,
):  # fmt: skip
    """The pixels of the source that a tap reads for some of the output, and which of them there are."""
    at_rows = rows * STRIDE_ROWS + (tap // KERNEL_COLUMNS - KERNEL_ROWS // 2) * DILATION_ROWS
    at_columns = columns * STRIDE_COLUMNS + (tap % KERNEL_COLUMNS - KERNEL_COLUMNS // 2) * DILATION_COLUMNS
    inside = within & (at_rows >= 0) & (at_rows < source_height) & (at_columns >= 0) & (at_columns < source_width)
    return at_rows, at_columns, inside
