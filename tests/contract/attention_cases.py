"""Attention: its definitions in the plainest form, and cases of it."""

from __future__ import annotations

from functools import partial

import torch
from contract.case import Case
from contract.tied_cases import tied_linear
from torch import Tensor

from leanconv.nn import GlobalContext, SqueezeExcite, TiedGlobalContext, TiedSE


def squeeze_excite(layer: TiedSE, input: Tensor) -> Tensor:
    pooled = input.sum((-2, -1)) / (input.shape[-2] * input.shape[-1])
    hidden = tied_linear(layer.reduce, pooled).clamp(min=0)
    return input * (1 / (1 + torch.exp(-tied_linear(layer.expand, hidden))))[..., None, None]


def global_context(layer: TiedGlobalContext, input: Tensor) -> Tensor:
    scores = (input * layer.mask.weight[0]).sum(-3) + layer.mask.bias
    attention = scores.exp() / scores.exp().sum((-2, -1), keepdim=True)
    hidden = tied_linear(layer.reduce, (input * attention.unsqueeze(-3)).sum((-2, -1)))
    centred = hidden - hidden.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.norm.weight + layer.norm.bias
    return input + tied_linear(layer.expand, normed.clamp(min=0))[..., None, None]


CASES = [
    Case("tied se", partial(TiedSE, 16, blocks=2, reduction=4), (2, 16, 5, 6), squeeze_excite, 2 * 2 * 4 * 8, [
        (lambda: TiedSE(16, blocks=3), r"blocks=3, in_features=16"),
        (lambda: TiedSE(16, reduction=0), r"reduction .* got 0"),
    ]),
    Case("se", partial(SqueezeExcite, 16, reduction=4), (2, 16, 5, 6), squeeze_excite, 2 * 2 * 4 * 16),
    Case("tied gcb", partial(TiedGlobalContext, 16, blocks=2), (2, 16, 5, 6), global_context,
         2 * (16 * 30 + 16 * 30 + 2 * 4 * 8), [
             (lambda: TiedGlobalContext(16, blocks=8), r"= 4, got blocks=8"),
             (lambda: TiedGlobalContext(16, ratio=0.01), r"ratio=0.01 of channels=16"),
    ]),
    Case("gcb", partial(GlobalContext, 16), (2, 16, 5, 6), global_context, 2 * (16 * 30 + 16 * 30 + 2 * 4 * 16)),
]
