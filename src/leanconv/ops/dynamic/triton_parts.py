"""What the Triton kernels of the dynamic filter have in common.

A tensor comes as a view: its pointer and its strides, of which those that are 1 are known when a kernel is compiled. A
filter that is None is left out. Offsets are int64: one image may have more than 2³¹ values.
"""

# mypy: ignore-errors

from __future__ import annotations

import torch
import triton
import triton.language as tl

from leanconv.ops.dynamic.filter_norm import PUBLISHED as published

PUBLISHED = tl.constexpr(published)


def sum_type(dtype: torch.dtype) -> tl.dtype:
    """The type that an input's sums are taken in."""
    return tl.float64 if dtype == torch.float64 else tl.float32


@triton.jit
def offset(view, rows, columns):
    return tl.cast(rows, tl.int64) * view.row + tl.cast(columns, tl.int64) * view.column


@triton.jit
def read(at, view, rows, columns, real, within, SUM: tl.constexpr):
    """A tile of channels by pixels, zeros outside. `at` points to each channel."""
    return tl.load(at + offset(view, rows, columns)[None, :], mask=real[:, None] & within[None, :], other=0.0).to(SUM)


@triton.jit
def filtered(value, of_channel, of_pixel, ADD: tl.constexpr):
    """A value times its kernel, where either filter may be None."""
    if of_channel is None:
        product = value * of_pixel
    elif of_pixel is None:
        product = value * of_channel
    elif ADD:
        product = value * (of_channel + of_pixel)
    else:
        product = value * of_pixel * of_channel
    return product


@triton.jit
def reciprocal_deviation(squares, TAPS: tl.constexpr, EPS: tl.constexpr):
    """What FilterNorm multiplies by, from the sum of squared distances to the mean."""
    variance = squares / (TAPS - 1)
    if EPS is None:  # noqa: SIM108 - Triton compiles one side of an `if` alone
        divisor = tl.sqrt(variance) + PUBLISHED
    else:
        divisor = tl.sqrt(variance + EPS)
    return 1.0 / divisor


@triton.jit
def scaled_and_shifted(standard, scale, shift, index):
    """α · standard + β, where β may be None."""
    standard *= tl.load(scale + index)
    if shift is not None:
        standard += tl.load(shift + index)
    return standard


@triton.jit
def block_of_channels(index, channels, BLOCK: tl.constexpr):
    """Channels within a head, which of them are real, and the same with real ones in place of the others."""
    block = index * BLOCK + tl.arange(0, BLOCK)
    return block, block < channels, tl.minimum(block, channels - 1)
