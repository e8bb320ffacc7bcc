"""FilterNorm: each dynamic filter standardised over its own taps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from leanconv.ops.transforms import transformed

PUBLISHED = 1e-10  # added to the standard deviation by the published formula


def filter_norm(
    filters: Tensor, taps: int, scale: Tensor | float = 1.0, shift: Tensor | None = None, *, eps: float | None = None
) -> Tensor:
    """Standardises each filter over its taps (FilterNorm): y = α (x − mean) / (std + 1e-10) + β.

    Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021, arXiv 2104.14107, Eq. 3. The standard deviation is the
    unbiased one, over the taps of one filter; nothing is shared between samples, so training and inference agree.

    Args:
        filters: (N, F · taps, ...): F filters, each a run of `taps` values along the second dimension.
        taps: values of one filter, kh · kw; at least 2.
        scale: α, one number or a vector of F · taps values.
        shift: β, a vector of F · taps values, or None.
        eps: None for the formula above, which for a flat filter gives the rounding of its mean at full size, and a
            gradient of up to 1e10; a number for the safe form, (x − mean) / √(var + eps).

    Returns:
        The shape and memory format of `filters`, in float32, or float64 where that comes in.

    Raises:
        ValueError: where taps is below 2 or doesn't divide the second dimension.

    >>> filter_norm(torch.tensor([[1.0, 2.0, 3.0, 10.0, 20.0, 30.0]]), 3)
    tensor([[-1.,  0.,  1., -1.,  0.,  1.]])
    """
    if taps < 2:
        raise ValueError(f"taps must be at least 2, as one value has no spread, got {taps}")
    if filters.dim() < 2 or filters.shape[1] % taps:
        raise ValueError(f"filters must be (N, F · {taps}, ...), got shape {tuple(filters.shape)}")
    values = filters.to(torch.promote_types(filters.dtype, torch.float32)).unflatten(1, (-1, taps))
    gain = 1.0 if isinstance(scale, Tensor) else scale
    traced = torch.compiler.is_compiling() or transformed()
    standardise = definition if traced else Standardise.apply
    normed = standardise(values, gain, eps).flatten(1, 2)
    along = (-1,) + (1,) * (filters.dim() - 2)
    if isinstance(scale, Tensor):
        normed = normed * scale.view(along)
    return normed if shift is None else normed + shift.view(along)


def definition(values: Tensor, gain: float, eps: float | None) -> Tensor:
    """The standardised values along dimension 2, times a number. This is what compilers and exporters trace."""
    centred, freedom = values - values.mean(2, keepdim=True), values.shape[2] - 1
    if eps is None:
        deviation = torch.linalg.vector_norm(centred, dim=2, keepdim=True) / math.sqrt(freedom)
        return centred * (gain / (deviation + PUBLISHED))
    variance = centred.square().sum(2, keepdim=True) / freedom
    return centred * (gain * (variance + eps).rsqrt())


class Standardise(torch.autograd.Function):
    """`definition` in a few passes over memory: `torch.std_mean` alone takes many times as long along short dimensions.

    With z = (x − mean) / d over n taps, where d = σ + 1e-10 or √(σ² + eps), and g the gradient of z:

        gx = (g − mean(g) − κ z · Σ(g z) / (n − 1)) / d,    κ = d / σ = 1 / (1 − 1e-10 / d), or 1
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, gain: float, eps: float | None) -> Tensor:
        mean = values.mean(2, keepdim=True)
        centred = values - mean
        variance = centred.square().sum(2, keepdim=True).div_(values.shape[2] - 1)
        inverse = variance.sqrt_().add_(PUBLISHED).reciprocal_() if eps is None else variance.add_(eps).rsqrt_()
        ctx.save_for_backward(values, mean, inverse)
        ctx.gain, ctx.eps = gain, eps
        return centred.mul_(gain * inverse)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        values, mean, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():
            output = definition(values, ctx.gain, ctx.eps)
            return torch.autograd.grad(output, values, gradient, create_graph=True)[0], None, None
        standard = (values - mean).mul_(inverse)
        slope = (gradient * standard).sum(2, keepdim=True).div_(1 - values.shape[2])
        if ctx.eps is None:
            slope.div_((1 - PUBLISHED * inverse).clamp_(min=PUBLISHED))  # 0 for a flat filter, whose z is 0 as well
        found = gradient - gradient.mean(2, keepdim=True)
        return found.addcmul_(standard, slope).mul_(inverse.mul(ctx.gain)), None, None
