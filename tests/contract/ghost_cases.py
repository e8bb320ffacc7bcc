"""The Ghost module: its definition in the plainest form, and cases of it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from contract.case import Case
from torch import Tensor, nn

from leanconv.nn import GhostConv2d


def normed(norm: Any, maps: Tensor) -> Tensor:
    if isinstance(norm, nn.Identity):
        return maps
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return (maps - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]


def ghost(layer: GhostConv2d, input: Tensor) -> Tensor:
    """Intrinsic maps, then the ghosts of the first, those of the second and so on, one at a time."""
    conv, cheap, mode = layer.primary, layer.cheap, layer.primary.padding_mode
    padding = conv.padding if mode == "zeros" else 0
    if mode != "zeros":
        input = F.pad(input, conv._reversed_padding_repeated_twice, mode=mode)
    maps = F.conv2d(input, conv.weight, conv.bias, conv.stride, padding, conv.dilation, conv.groups)
    intrinsic = layer.activation(normed(layer.primary_norm, maps))
    if cheap is None:
        return intrinsic
    each, border = layer.ratio - 1, cheap.kernel_size[0] // 2
    ghosts = [F.conv2d(intrinsic[:, [index // each]], cheap.weight[[index]], padding=border)
              for index in range(intrinsic.shape[1] * each)]
    shift = 0 if cheap.bias is None else cheap.bias[:, None, None]
    ghosts = layer.activation(normed(layer.cheap_norm, torch.cat(ghosts, 1) + shift))
    return torch.cat([intrinsic, ghosts], 1)[:, : layer.out_channels]


def build(*arguments: Any, **options: Any) -> partial[GhostConv2d]:
    return partial(GhostConv2d, *arguments, **options)


def fused(*arguments: Any, **options: Any) -> GhostConv2d:
    return GhostConv2d(*arguments, **options).eval().fused()


CASES = [
    Case("ghost 3x3", build(6, 8, 3, padding=1), (2, 6, 6, 7), ghost, 2 * 6 * 7 * (4 * 6 * 9 + 4 * 9), [
        (build(6, 8, 3, bias=True), r"bias must be False.* got bias=True"),
        (build(6, 8, 3, cheap_kernel_size=2), r"cheap_kernel_size must be odd, got 2"),
        (build(6, 8, 3, ratio=0), r"ratio .* got 0"),
        (build(6, 8, 3, ratio=1.5), r"ratio .* got 1.5"),
        (build(6, 9, 3, groups=3, ratio=2), r"⌈9 / 2⌉ = 5, got groups=3"),
        (build(6, 8, 3, groups=4), r"in_channels"),
        (build(6, 8, 3, padding="half"), r"half"),
        (build(6, 8, 3, padding_mode="mirror"), r"mirror"),
        (lambda: GhostConv2d(6, 8, 3)(torch.randn(2, 5, 5, 5)), r"C = 6, got shape \(2, 5, 5, 5\)"),
        (lambda: GhostConv2d(6, 8, 3)(torch.randn(6, 5)), r"got shape \(6, 5\)"),
    ]),
    Case("ghost 1x1 cut", build(6, 10, 1, ratio=4, activation=nn.SiLU), (2, 6, 5, 6), ghost,
         2 * 5 * 6 * (3 * 6 + 9 * 9)),
    Case("ghost strided", build(6, 7, 3, 2, 1, cheap_kernel_size=5, activation=None), (2, 6, 7, 9), ghost,
         2 * 4 * 5 * (4 * 6 * 9 + 4 * 25)),
    Case("ghost grouped", build(8, 12, (3, 1), padding=(2, 0), dilation=(2, 3), groups=2, ratio=3, cheap_kernel_size=1),
         (2, 8, 6, 5), ghost, 2 * 6 * 5 * (4 * 4 * 3 + 8)),
    Case("ghost reflect", build(6, 8, 3, padding=1, padding_mode="reflect"), (2, 6, 6, 5), ghost,
         2 * 6 * 5 * (4 * 6 * 9 + 4 * 9)),
    Case("ghost plain", build(6, 8, 3, padding="same", ratio=1), (2, 6, 6, 5), ghost, 2 * 6 * 5 * 8 * 6 * 9),
    Case("ghost fused", partial(fused, 6, 9, 3, padding=1), (2, 6, 6, 5), ghost, 2 * 6 * 5 * (5 * 6 * 9 + 5 * 9)),
]
