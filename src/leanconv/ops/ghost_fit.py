"""The cheap kernels of a Ghost module that come nearest to given filters.

A cheap kernel K on the map of a source filter S, with stride s, is one filter of larger support: Σ_u K_u S(· − s u). On
inputs of independent pixels, its distance from a filter T is that of the filters, least for

    K = G⁺ b        with G_uv = ⟨S(· − s u), S(· − s v)⟩ and b_u = ⟨T, S(· − s u)⟩

An activation φ between S and K changes both. For a Gaussian map z, the covariance of φ(z) with any other one is that of
z times the slope E φ'(z) (Bussgang's theorem), and φ(z) keeps from z's correlation ρ

    cov(φ(z_p), φ(z_q)) ≈ slope² ρ + (variance of φ(z) − slope²) ρ²        (z of variance 1; exact at ρ = 0 and 1)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def ghost_kernels(
    filters: Tensor,
    mean: Tensor,
    scale: Tensor,
    source: Tensor,
    target: Tensor,
    cheap_kernel_size: int,
    stride: tuple[int, int],
    dilation: tuple[int, int],
    activation: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Cheap kernels which predict, from the activated maps of source filters, the maps of target filters.

    Args:
        filters: (O, C, kh, kw), all filters of a convolution, in float64.
        mean, scale: (O,), those of each filter's map where the activation takes it.
        source, target: (Q,), for each cheap kernel, the numbers of its filters.
        cheap_kernel_size: d, odd.
        stride, dilation: of the convolution.
        activation: φ, elementwise.

    Returns:
        (Q, d, d) kernels that best predict a target map of mean 0 and variance 1; (Q,) the mean of what they give; (Q,)
        their correlation with the target, 0 to 1, whose square is the variance of what they give.

    >>> filters = torch.tensor([[1.0, 2.0, 0.0], [0.0, -2.0, -4.0]], dtype=torch.float64)[:, None, None]
    >>> zero, one, size = torch.zeros(2).double(), torch.ones(2).double(), (1, 1)
    >>> kernels, means, correlation = ghost_kernels(
    ...     filters, zero, one, torch.tensor([0]), torch.tensor([1]), 3, size, size, torch.nn.Identity())
    >>> kernels[0, 1].round(decimals=3) + 0, round(correlation.item(), 3)  # minus the source, one column to the right
    (tensor([ 0.,  0., -1.], dtype=torch.float64), 1.0)
    """
    auto, cross = correlations(filters, source, target, cheap_kernel_size, stride, dilation)
    level, slope, variance = moments(mean[source], scale[source], activation)
    slope, variance = slope[:, None], variance[:, None, None]
    gram = slope[..., None].square() * auto + (variance - slope[..., None].square()) * auto.square()
    right = slope * cross
    kernels = (torch.linalg.pinv(gram, hermitian=True) @ right[..., None])[..., 0]
    explained = (kernels * right).sum(1).clamp(0, 1)
    size = cheap_kernel_size
    return kernels.view(-1, size, size), kernels.sum(1) * level, explained.sqrt()


def correlations(
    filters: Tensor, source: Tensor, target: Tensor, size: int, stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """How sources, shifted by each of the size² offsets, correlate with one another and with the targets.

    Returns:
        (Q, size², size²) and (Q, size²); zero for filters that are zero.
    """
    reach = [step * (k - 1) + 1 for step, k in zip(dilation, filters.shape[2:], strict=True)]
    canvas = [extent + step * (size - 1) for extent, step in zip(reach, stride, strict=True)]
    dense = filters.new_zeros(*filters.shape[:2], *reach)
    length = filters.flatten(1).norm(dim=1).clamp(min=1e-30)
    dense[..., :: dilation[0], :: dilation[1]] = filters / length[:, None, None, None]
    spectra = torch.fft.rfft2(dense, s=canvas)

    def overlap(one: Tensor, other: Tensor) -> Tensor:
        """Σ_p one(p) · other(p + lag), for every lag."""
        return torch.fft.irfft2((spectra[one].conj() * spectra[other]).sum(1), s=canvas)

    offset = torch.arange(size, device=filters.device) - size // 2
    offsets = torch.cartesian_prod(offset, offset) * torch.tensor(stride, device=filters.device)
    lags = offsets[:, None] - offsets
    return (overlap(source, source)[:, lags[..., 0], lags[..., 1]],
            overlap(source, target)[:, offsets[:, 0], offsets[:, 1]])


def moments(mean: Tensor, scale: Tensor, activation: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Of φ(mean + scale · x) for x of the normal distribution: its mean, its covariance with x, and its variance."""
    x = torch.linspace(-6, 6, 1201, dtype=mean.dtype, device=mean.device)
    weight = torch.exp(-x.square() / 2)
    weight = weight / weight.sum()
    x = x / (weight @ x.square()).sqrt()
    values = activation(mean[:, None] + scale[:, None] * x)
    level = values @ weight
    centred = values - level[:, None]
    return level, (centred * x) @ weight, centred.square() @ weight
