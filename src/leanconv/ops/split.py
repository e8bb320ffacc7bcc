"""Split convolution (SPConv): the fusion of its two paths, and what its 1x1 convolutions read.

Zhang et al., "Split to Be Slim: An Overlooked Redundancy in Vanilla Convolution", IJCAI 2020, arXiv 2006.12085.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from leanconv.ops.tied import in_nchw, pointwise_columns, product_pays


def fuse_by_means(representative: Tensor, redundant: Tensor, *, inplace: bool = False) -> Tensor:
    """Adds two paths, weighted for each image and channel by the softmax of their means (SPConv's fusion).

    With m₁, m₂ the means of both paths' maps: y = β·y₁ + (1 − β)·y₂, β = e^m₁ / (e^m₁ + e^m₂) = σ(m₁ − m₂). Since a
    mean is linear, one of y₁ − y₂ will do.

    Args:
        representative: y₁, (N, C, H, W).
        redundant: y₂, of the same shape.
        inplace: whether both may be overwritten: then no new map is made.

    >>> one, other = torch.randn(2, 4, 5, 5), torch.randn(2, 4, 5, 5)
    >>> first, second = torch.stack([one, other]).mean((3, 4), keepdim=True).softmax(0)
    >>> torch.allclose(fuse_by_means(one, other), first * one + second * other, atol=1e-6)
    True
    """
    difference = representative.sub_(redundant) if inplace else representative - redundant
    share = difference.mean((2, 3), keepdim=True).sigmoid()
    return redundant.addcmul_(difference, share) if inplace else torch.addcmul(redundant, difference, share)


def pointwise(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 1x1 convolution that doesn't copy a slice of channels: a matrix product on a view, in either memory format.

    Args:
        input: (N, C, H, W); in channels_last a slice of channels is a matrix whose rows are far apart.
        weight: (O, C, 1, 1).
        bias: (O,).

    Returns:
        (N, O, H, W), in the input's memory format and of new memory.
    """
    if input.stride(1) == 1:
        batch, _, height, width = input.shape
        rows = F.linear(input.permute(0, 2, 3, 1).flatten(0, 2), weight.flatten(1), bias)
        return rows.view(batch, height, width, weight.shape[0]).permute(0, 3, 1, 2)
    if product_pays(input, weight, (1, 1)):
        return pointwise_columns(input, weight, bias, (1, 1), 1)
    return F.conv2d(input, in_nchw(weight), bias)


def window_centres(
    input: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    padding_mode: str = "zeros",
) -> Tensor:
    """The map that the centre tap of a convolution with an odd kernel slides over, averaged over its stride.

    The padded map without the d·(k//2) rows and columns that only outer taps reach: where p = d·(k//2) the input
    itself, with less padding a crop of it, with more a padded one. With stride s each s x s pixels become their mean,
    the last ones that of what is left. So it has the convolution's output size, always.

    Args:
        input: (N, C, H, W).
        kernel_size, stride, padding, dilation: the convolution's, in pixels, vertical and horizontal.
        padding_mode: the convolution's.

    >>> window_centres(torch.arange(5.0).view(1, 1, 1, 5), (1, 3), (1, 2), (0, 1), (1, 1)).flatten().tolist()
    [0.5, 2.5, 4.0]
    """
    excess = [wide - step * (size // 2) for wide, step, size in zip(padding, dilation, kernel_size, strict=True)]
    if padding_mode != "zeros" and max(excess) > 0:
        layout = torch.channels_last if input.stride(1) == 1 else torch.contiguous_format
        input = F.pad(input, around([max(0, wide) for wide in excess]), padding_mode).contiguous(memory_format=layout)
        excess = [min(0, wide) for wide in excess]
    if any(excess):
        input = F.pad(input, around(excess))
    if tuple(stride) == (1, 1):
        return input
    if input.stride(1) == 1 and not torch.compiler.is_exporting():
        return F.avg_pool2d(input, tuple(stride), ceil_mode=True, count_include_pad=False)
    return averaged(input, stride)


def averaged(input: Tensor, stride: Sequence[int]) -> Tensor:
    """The same means, as a sum of strided views over how many pixels it has.

    In NCHW PyTorch's pooling runs pixel by pixel, several times as slow; ONNX Runtime's rounds sizes down.
    """
    vertical, horizontal = stride
    high, wide = (
        (size - step * torch.arange((size + step - 1) // step, device=input.device)).clamp(max=step).to(input.dtype)
        for size, step in zip(input.shape[2:], stride, strict=True)
    )
    input = F.pad(input, (0, -input.shape[3] % horizontal, 0, -input.shape[2] % vertical))
    rows = functools.reduce(torch.add, [input[:, :, row::vertical] for row in range(vertical)])
    columns = functools.reduce(torch.add, [rows[..., column::horizontal] for column in range(horizontal)])
    return columns / (high[:, None] * wide)


def around(padding: Sequence[int]) -> list[int]:
    """The same padding on both sides, in the order of `torch.nn.functional.pad`: left, right, top, bottom."""
    vertical, horizontal = padding
    return [horizontal, horizontal, vertical, vertical]
