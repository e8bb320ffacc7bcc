"""Asymmetric convolution: its definition in the plainest form, and cases of it.

Norms go by their running statistics here, so a layer computes one convolution: the MACs of the plain one.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from contract.case import Case
from torch import Tensor

from leanconv.nn import AsymmetricConv2d


def asymmetric_conv(layer: AsymmetricConv2d, input: Tensor, cross: tuple[int, int] | None = None) -> Tensor:
    """Each branch convolves the padded input, cut so that it starts where its kernel lies in the square, and norms."""
    if input.dim() == 3:
        return asymmetric_conv(layer, input[None], cross)[0]
    (height, width), (down, right) = layer.kernel_size, layer.dilation
    rows, columns = layer.padding if layer.padding != "same" else (down * (height // 2), right * (width // 2))
    mode = {"zeros": "constant"}.get(layer.padding_mode, layer.padding_mode)
    wide = F.pad(input, (columns, columns, rows, rows), mode=mode)
    row, column = cross or (height // 2, width // 2)
    total = 0
    for name, branch in layer.branches.items():
        top, left = {"square": (0, 0), "horizontal": (row, 0), "vertical": (0, column)}[name]
        tall, broad = branch.conv.kernel_size
        below, beyond = down * (height - tall - top), right * (width - broad - left)
        window = wide[:, :, top * down : wide.shape[2] - below, left * right : wide.shape[3] - beyond]
        z = F.conv2d(window, branch.conv.weight, None, layer.stride, 0, layer.dilation, layer.groups)
        norm = branch.norm
        if norm.training or norm.running_mean is None:
            mean, variance = z.mean((0, 2, 3)), z.var((0, 2, 3), correction=0)
        else:
            mean, variance = norm.running_mean, norm.running_var
        z = (z - mean[:, None, None]) / torch.sqrt(variance + norm.eps)[:, None, None]
        total = total + (z if norm.weight is None else norm.weight[:, None, None] * z + norm.bias[:, None, None])
    return total


def asymmetric(*arguments: Any, **options: Any) -> partial[AsymmetricConv2d]:
    return partial(AsymmetricConv2d, *arguments, **options)


def border(layer: AsymmetricConv2d, input: Tensor) -> Tensor:
    return asymmetric_conv(layer, input, cross=(2, 2))


CASES = [
    Case("asymmetric 3x3", asymmetric(6, 8, 3, padding=1), (2, 6, 6, 7), asymmetric_conv, 2 * 6 * 7 * 8 * 6 * 9, [
        (asymmetric(6, 8, 4), r"kernel_size must be odd.* got \(4, 4\)"),
        (asymmetric(6, 8, (3, 2)), r"kernel_size must be odd.* got \(3, 2\)"),
        (asymmetric(6, 8, -1), r"kernel_size must be odd.* got \(-1, -1\)"),
        (asymmetric(6, 8, 3, bias=True), r"bias must be False.* got True"),
        (asymmetric(6, 8, 3, groups=4), r"in_channels must be divisible by groups"),
        (asymmetric(6, 8, 3, groups=0), r"groups .* got 0"),
        (asymmetric(0, 8, 3), r"in_channels .* got 0"),
        (asymmetric(6, 8, 3, padding="half"), r"half"),
        (asymmetric(6, 8, 3, 2, "same"), r"same"),
        (asymmetric(6, 8, 3, padding=(1, -1)), r"padding must be at least 0, got \(1, -1\)"),
        (asymmetric(6, 8, 3, stride=0), r"stride must be at least 1, got \(0, 0\)"),
        (asymmetric(6, 8, 3, dilation=(0, 1)), r"dilation must be at least 1, got \(0, 1\)"),
        (asymmetric(6, 8, 3, padding_mode="mirror"), r"mirror"),
        (asymmetric(6, 8, 3, branches=()), r"branches must be some of .* got \(\)"),
        (asymmetric(6, 8, 3, branches="square"), r"branches must be some of .* got 'square'"),
        (asymmetric(6, 8, 3, branches=["square", "diagonal"]), r"unknown branch 'diagonal'"),
        (asymmetric(6, 8, 3, cross=(1, 3)), r"cross .* 3 x 3 kernel, got \(1, 3\)"),
        (asymmetric(6, 8, 3, cross=(-1, 0)), r"cross .* got \(-1, 0\)"),
        (asymmetric(6, 8, 3, cross=(1, 1, 1)), r"cross .* got \(1, 1, 1\)"),
    ]),
    Case("asymmetric strided", asymmetric(4, 8, 3, 2, 1), (2, 4, 7, 9), asymmetric_conv, 2 * 4 * 5 * 8 * 4 * 9),
    Case("asymmetric dilated", asymmetric(4, 4, (3, 5), padding="same", dilation=(2, 1), groups=2), (2, 4, 6, 5),
         asymmetric_conv, 2 * 6 * 5 * 4 * 2 * 15),
    Case("asymmetric depthwise", asymmetric(6, 6, 5, padding=2, groups=6), (2, 6, 6, 5), asymmetric_conv,
         2 * 6 * 5 * 6 * 25),
    Case("asymmetric reflect", asymmetric(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 6, 5), asymmetric_conv,
         2 * 6 * 5 * 6 * 4 * 9),
    Case("asymmetric circular", asymmetric(4, 6, 3, padding=1, padding_mode="circular"), (2, 4, 6, 5), asymmetric_conv,
         2 * 6 * 5 * 6 * 4 * 9),
    Case("asymmetric skeleton", asymmetric(4, 6, 3, padding=1, branches=("horizontal", "vertical")), (2, 4, 6, 5),
         asymmetric_conv, 2 * 6 * 5 * 6 * 4 * 9),
    Case("asymmetric border", asymmetric(4, 6, 3, padding=1, cross=(2, 2)), (2, 4, 6, 5), border,
         2 * 6 * 5 * 6 * 4 * 9),
    Case("asymmetric 1x1", asymmetric(8, 6, 1, 2), (2, 8, 5, 6), asymmetric_conv, 2 * 3 * 3 * 6 * 8),
]
