"""Tied block convolution: its definitions in the plainest form, and cases of it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from contract.case import Case
from torch import Tensor

from leanconv.nn import TiedConv2d, TiedLinear, TiedSplitConv2d


def tied_conv(layer: TiedConv2d, input: Tensor) -> Tensor:
    conv, mode = layer.conv, layer.conv.padding_mode
    padding = conv.padding if mode == "zeros" else 0
    if mode != "zeros":
        input = F.pad(input, conv._reversed_padding_repeated_twice, mode=mode)
    outputs = []
    for group, filters in zip(input.chunk(conv.groups, -3), conv.weight.chunk(conv.groups), strict=True):
        index = len(outputs) // layer.blocks
        bias = None if conv.bias is None else conv.bias.chunk(conv.groups)[index]
        outputs += [F.conv2d(block, filters, bias, conv.stride, padding, conv.dilation)
                    for block in group.chunk(layer.blocks, -3)]
    return torch.cat(outputs, -3)


def tied_linear(layer: TiedLinear, input: Tensor) -> Tensor:
    return torch.cat([block @ layer.weight.T + layer.bias for block in input.chunk(layer.blocks, -1)], -1)


def tied_splits(layer: TiedSplitConv2d, input: Tensor) -> Tensor:
    parts = input.chunk(len(layer.splits), -3)
    return torch.cat([tied_conv(split, part) for split, part in zip(layer.splits, parts, strict=True)], -3)


def tied(*arguments: Any, **options: Any) -> partial[TiedConv2d]:
    return partial(TiedConv2d, *arguments, **options)


CASES = [
    Case("tied 3x3", tied(8, 12, 3, padding=1, blocks=2), (2, 8, 6, 7), tied_conv, 2 * 6 * 7 * 12 * 4 * 9, [
        (tied(8, 12, 3, blocks=3), r"blocks=3, groups=1, in_channels=8"),
        (tied(8, 12, 3, groups=4, blocks=2), r"blocks=2, groups=4, out_channels=12"),
        (tied(8, 12, 3, blocks=0), r"blocks .* got 0"),
        (tied(8, 12, 3, padding="half", blocks=2), r"half"),
        (tied(8, 12, 3, padding_mode="mirror", blocks=2), r"mirror"),
        (lambda: TiedConv2d(8, 12, 3, blocks=2)(torch.randn(2, 6, 5, 5)), r"= 8 channels, got 6 .*\(2, 6, 5, 5\)"),
        (lambda: TiedConv2d(8, 12, 3, blocks=2)(torch.randn(8, 5)), r"got shape \(8, 5\)"),
    ]),
    Case("tied 1x1", tied(8, 16, 1, blocks=4), (2, 8, 5, 6), tied_conv, 2 * 5 * 6 * 16 * 2),
    Case("tied strided", tied(8, 8, 3, 2, 1, bias=False, blocks=2), (2, 8, 7, 9), tied_conv, 2 * 4 * 5 * 8 * 4 * 9),
    Case("tied 1x1 strided", tied(8, 8, 1, 2, blocks=2), (2, 8, 7, 9), tied_conv, 2 * 4 * 5 * 8 * 4),
    Case("tied dilated", tied(6, 6, (3, 1), padding=(2, 0), dilation=(2, 3), blocks=3), (2, 6, 6, 5), tied_conv,
         2 * 6 * 5 * 6 * 2 * 3),
    Case("tied grouped", tied(16, 8, 3, padding=1, groups=2, blocks=2), (2, 16, 5, 5), tied_conv, 2 * 25 * 8 * 4 * 9),
    Case("tied grouped 1x1", tied(16, 8, 1, groups=2, blocks=2), (2, 16, 5, 5), tied_conv, 2 * 25 * 8 * 4),
    Case("tied reflect", tied(8, 8, 3, padding=1, padding_mode="reflect", blocks=2), (2, 8, 6, 5), tied_conv,
         2 * 6 * 5 * 8 * 4 * 9),
    Case("tied splits", partial(TiedSplitConv2d, 24, 12, 3, padding=1, blocks=(1, 2)), (2, 24, 6, 5), tied_splits,
         2 * 30 * (6 * 12 * 9 + 6 * 6 * 9), [
        (lambda: TiedSplitConv2d(24, 12, 3, blocks=(1, 2, 1, 2, 1)), r"in_channels=24, got \(1, 2, 1, 2, 1\)"),
        (lambda: TiedSplitConv2d(24, 12, 3, blocks=()), r"blocks .* got \(\)"),
        (lambda: TiedSplitConv2d(24, 12, 3, blocks=2), r"one number for each split, .* got 2"),
        (lambda: TiedSplitConv2d(24, 12, 3, blocks=(1, 4)), r"blocks=4, groups=1, out_channels=6"),
        (lambda: TiedSplitConv2d(24, 12, 3, blocks=(1, 2))(torch.randn(2, 12, 5, 5)), r"C = 24 .*\(2, 12, 5, 5\)"),
    ]),
    Case("tied linear", partial(TiedLinear, 12, 8, blocks=2), (3, 12), tied_linear, 3 * 8 * 6, [
        (lambda: TiedLinear(12, 7, blocks=2), r"blocks=2, out_features=7"),
        (lambda: TiedLinear(12, 8, blocks=2)(torch.randn(3, 10)), r"= 12 features .* \(3, 10\)"),
    ]),
]
