"""Decoupled dynamic filters: the definition in the plainest form, and cases of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from contract.case import Case
from torch import Tensor, nn

from leanconv.nn import DDF, DDFUp


def standardised(filters: Tensor, eps: float | None = None) -> Tensor:
    """FilterNorm of the last dimension, without α and β."""
    centred = filters - filters.mean(-1, keepdim=True)
    variance = centred.square().sum(-1, keepdim=True) / (filters.shape[-1] - 1)
    return centred / (variance.sqrt() + 1e-10 if eps is None else (variance + eps).sqrt())


def one_branch(
    input: Tensor, guidance: Tensor, parameters: Sequence[Tensor], alpha: float, stride: Sequence[int],
    dilation: Sequence[int], kernel_size: Sequence[int], heads: int, combine: str, eps: float | None,
) -> Tensor:
    """Each pixel of each channel by its own kernel. Parameters: W3, b3, W1, b1, W2, b2, α of the channel filter."""
    channels, height, width = input.shape[1:]
    rows, columns = kernel_size
    to_spatial, spatial_bias, to_hidden, hidden_bias, to_channel, channel_bias, channel_alpha = parameters
    sampled = guidance[:, :, :: stride[0], :: stride[1]]
    raw = torch.einsum("oc,nchw->nhwo", to_spatial[:, :, 0, 0], sampled) + spatial_bias
    spatial = alpha * standardised(raw.unflatten(-1, (heads, rows * columns)), eps)  # (N, Ho, Wo, G, taps)
    pooled = input.sum((2, 3)) / (height * width)
    hidden = (pooled @ to_hidden[:, :, 0, 0].T + hidden_bias).clamp(min=0)
    raw = (hidden @ to_channel[:, :, 0, 0].T + channel_bias).unflatten(-1, (channels, rows * columns))
    channel = channel_alpha.view(channels, -1) * standardised(raw, eps)  # (N, C, taps)
    reach = [step * (size - 1) // 2 for step, size in zip(dilation, kernel_size, strict=True)]
    padded = F.pad(input, (reach[1], reach[1], reach[0], reach[0]))
    output = torch.zeros_like(sampled[:, :1]).repeat(1, channels, 1, 1)
    for tap, (row, column) in enumerate(product(range(rows), range(columns))):
        top, left = row * dilation[0], column * dilation[1]
        shifted = padded[:, :, top : top + height : stride[0], left : left + width : stride[1]]
        of_pixel = spatial[..., tap].permute(0, 3, 1, 2).repeat_interleave(channels // heads, 1)
        of_channel = channel[:, :, tap, None, None]
        output = output + (of_pixel * of_channel if combine == "mul" else of_pixel + of_channel) * shifted
    return output


def ddf(layer: DDF, input: Tensor) -> Tensor:
    norm = layer.channel_branch[4]
    convs = (layer.spatial_branch[0], layer.channel_branch[1], layer.channel_branch[3])
    parameters = [parameter for conv in convs for parameter in (conv.weight, conv.bias)]
    return one_branch(input, input, [*parameters, norm.std], layer.spatial_branch[1].scale, layer.stride,
                      layer.dilation, layer.kernel_size, layer.heads, layer.combine, norm.eps)


def ddf_up(layer: DDFUp, input: Tensor, guidance: Tensor | None = None) -> Tensor:
    """Branch by branch, each written to its sub-pixel. Guidance is that of the input's size."""
    branches, norm = layer.scale**2, layer.channel_branch[4]
    convs = (layer.spatial_branch[0], layer.channel_branch[1], layer.channel_branch[3])
    tensors = [tensor.chunk(branches) for conv in convs for tensor in (conv.weight, conv.bias)]
    size = [extent * layer.scale for extent in input.shape[2:]]
    output = input.new_zeros(*input.shape[:2], *size)
    for branch, parameters in enumerate(zip(*tensors, norm.std.chunk(branches), strict=True)):
        guide = guidance
        if guide is None:
            depthwise = layer.depthwise
            weight, bias = (tensor.chunk(branches)[branch] for tensor in (depthwise.weight, depthwise.bias))
            guide = F.conv2d(input, weight, bias, padding=depthwise.padding, groups=layer.channels)
        filtered = one_branch(input, guide, parameters, layer.spatial_branch[1].scale, (1, 1), (1, 1),
                              layer.kernel_size, layer.heads, layer.combine, norm.eps)
        row, column = divmod(branch, layer.scale)
        output[:, :, row :: layer.scale, column :: layer.scale] = filtered
    return output


def filtering(outputs: int, taps: int) -> int:
    """Multiply-accumulates of combining and applying both filters: half of three operations a tap."""
    return outputs * taps * 3 // 2


CASES = [
    Case("ddf", partial(DDF, 8), (2, 8, 6, 7), ddf, 2 * 42 * 8 * 9 + 2 * (8 + 72) + filtering(2 * 42 * 8, 9), [
        (lambda: DDF(8, 2), r"kernel_size must be odd.*\(2, 2\)"),
        (lambda: DDF(8, 1), r"kernel_size must have at least two taps.*\(1, 1\)"),
        (lambda: DDF(8, heads=3), r"heads=3, channels=8"),
        (lambda: DDF(8, heads=0), r"heads .* got 0"),
        (lambda: DDF(8, stride=0), r"stride .* got 0"),
        (lambda: DDF(8, dilation=(1, 0)), r"dilation .* got 0"),
        (lambda: DDF(8, squeeze_ratio=0), r"squeeze_ratio must be above 0, got 0"),
        (lambda: DDF(8, combine="sum"), r"combine 'sum'"),
        (lambda: DDF(8, nonlinearity="tanh"), r"nonlinearity 'tanh'"),
        (lambda: DDF(8, eps=0.0), r"eps .* got 0.0"),
        (lambda: DDF.from_conv(nn.Conv2d(8, 4, 3, padding=1)), r"as many output as input channels.*8, 4"),
        (lambda: DDF.from_conv(nn.Conv2d(8, 8, 3)), r"padding=\(1, 1\), which"),
        (lambda: DDF.from_conv(nn.Conv2d(8, 8, 3, padding="valid")), r"padding=\(1, 1\), which"),
        (lambda: DDF.from_conv(nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")), r"of zeros.*reflect"),
        (lambda: DDF.from_conv(nn.Conv2d(8, 8, 1)), r"at least two taps"),
        (lambda: DDF(8)(torch.randn(8, 5)), r"8 channels, got shape \(8, 5\)"),
        (lambda: DDF(8)(torch.randn(2, 6, 5, 5)), r"8 channels, got shape \(2, 6, 5, 5\)"),
    ]),
    Case("ddf add", partial(DDF, 8, stride=2, heads=2, combine="add"), (2, 8, 7, 9), ddf,
         2 * 20 * 8 * 18 + 2 * (8 + 72) + filtering(2 * 20 * 8, 9)),
    Case("ddf dilated", partial(DDF, 6, (3, 5), dilation=(2, 3), squeeze_ratio=0.5, eps=1e-5), (2, 6, 6, 5), ddf,
         2 * 30 * 6 * 15 + 2 * (6 * 3 + 3 * 90) + filtering(2 * 30 * 6, 15)),
    Case("ddf up", partial(DDFUp, 6, heads=2), (2, 6, 4, 5), ddf_up,
         4 * (2 * 20 * 6 * 9 + 2 * 20 * 6 * 18 + 2 * (6 + 54) + filtering(2 * 20 * 6, 9)), [
             (lambda: DDFUp(8, 1), r"scale must be at least 2, got 1"),
             (lambda: DDFUp(8, 2, 4), r"kernel_size must be odd.*\(4, 4\)"),
             (lambda: DDFUp(8, heads=3), r"heads=3, channels=8"),
             (lambda: DDFUp(8, guide_channels=0), r"guide_channels .* got 0"),
             (lambda: DDFUp(8, depthwise_kernel_size=2), r"depthwise_kernel_size must be odd.*\(2, 2\)"),
             (lambda: DDFUp(8, combine="sum"), r"combine 'sum'"),
             (lambda: DDFUp(8)(torch.randn(2, 6, 5, 5)), r"8 channels, got shape \(2, 6, 5, 5\)"),
         ]),
]
