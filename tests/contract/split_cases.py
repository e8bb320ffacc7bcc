"""Split convolution: its definition in the plainest form, and cases of it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from contract.case import Case
from torch import Tensor, nn

from leanconv.nn import SplitConv2d


def centres(conv: nn.Conv2d, input: Tensor) -> Tensor:
    """Pixel by pixel: where the centre tap of each window is, and the stride's pixels from there on."""
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    padded = F.pad(input, conv._reversed_padding_repeated_twice, mode=mode)
    reach = [step * (size // 2) for step, size in zip(conv.dilation, conv.kernel_size, strict=True)]
    seen = padded[:, :, reach[0]: padded.shape[2] - reach[0], reach[1]: padded.shape[3] - reach[1]]
    rows = [part.mean(2, keepdim=True) for part in seen.split(conv.stride[0], 2)]
    return torch.cat([part.mean(3, keepdim=True) for part in torch.cat(rows, 2).split(conv.stride[1], 3)], 3)


def normed(norm: nn.Module, maps: Tensor) -> Tensor:
    if isinstance(norm, nn.Identity):
        return maps
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return (maps - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]


def split_conv(layer: SplitConv2d, input: Tensor) -> Tensor:
    """The paper's equation with its softmax over two paths; norms in eval mode."""
    size = layer.representative_channels
    seen = centres(layer.grouped, input)
    first = layer.grouped(input[:, :size].contiguous()) + F.conv2d(seen[:, :size], layer.pointwise.weight)
    first = normed(layer.representative_norm, first)
    if layer.redundant is None:
        return first
    second = normed(layer.redundant_norm, F.conv2d(seen[:, size:], layer.redundant.weight, layer.redundant.bias))
    shares = torch.stack([first.mean((2, 3)), second.mean((2, 3))], 2).softmax(2)[..., None, None]
    return shares[:, :, 0] * first + shares[:, :, 1] * second


def split(*arguments: Any, **options: Any) -> partial[SplitConv2d]:
    return partial(SplitConv2d, *arguments, **options)


def folded(**options: Any) -> SplitConv2d:
    return SplitConv2d(8, 12, 3, 1, 1, **options).eval().fused()


CASES = [
    Case("split 3x3", split(8, 12, 3, padding=1), (2, 8, 6, 7), split_conv, 2 * 6 * 7 * 12 * (2 * 9 + 4 + 4), [
        (split(8, 12, 3, alpha=0), r"alpha .* got 0"),
        (split(8, 12, 3, alpha=1.5), r"alpha .* got 1\.5"),
        (split(8, 12, 3, alpha="half"), r"alpha .* got 'half'"),
        (split(8, 12, 3, alpha=True), r"alpha .* got True"),
        (split(8, 12, 3, alpha=0.1), r"group_count=2, 0 channels by alpha=0\.1"),
        (split(8, 12, 3, alpha=0.4), r"group_count=2, 3 channels by alpha=0\.4"),
        (split(8, 9, 3), r"group_count=2, out_channels=9"),
        (split(8, 12, 3, group_count=0), r"group_count .* got 0"),
        (split(8, 12, 3, groups=2), r"groups must be 1, .* got 2"),
        (split(8, 12, 2), r"kernel_size must be odd, .* got \(2, 2\)"),
        (split(8, 12, (3, 4)), r"kernel_size must be odd, .* got \(3, 4\)"),
        (split(8, 12, 3, padding="half"), r"half"),
        (split(8, 12, 3, padding_mode="mirror"), r"mirror"),
        (lambda: SplitConv2d(8, 12, 3)(torch.randn(2, 6, 5, 5)), r"C = 8, got shape \(2, 6, 5, 5\)"),
        (lambda: SplitConv2d(8, 12, 3)(torch.randn(8, 5)), r"got shape \(8, 5\)"),
        (lambda: SplitConv2d(8, 12, 3).fused(), r"eval mode"),
    ]),
    Case("split strided", split(8, 8, 3, 2, 1, bias=False, alpha=0.25), (2, 8, 7, 9), split_conv,
         2 * 4 * 5 * 8 * (1 * 9 + 2 + 6)),
    Case("split dilated", split(12, 6, (3, 1), (1, 3), (2, 1), (2, 3), alpha=0.5, group_count=3), (2, 12, 6, 5),
         split_conv, 2 * 6 * 3 * 6 * (2 * 3 + 6 + 6)),
    Case("split reflect", split(8, 8, 3, padding=1, padding_mode="reflect"), (2, 8, 6, 5), split_conv,
         2 * 6 * 5 * 8 * (2 * 9 + 4 + 4)),
    Case("split whole", split(8, 8, 3, padding="same", alpha=1), (2, 8, 6, 5), split_conv,
         2 * 6 * 5 * 8 * (4 * 9 + 8)),
    Case("split folded", folded, (2, 8, 6, 7), split_conv, 2 * 6 * 7 * 12 * (2 * 9 + 4 + 4)),
]
