"""Joint bilateral upsampling: a small map enlarged along the edges of a large image."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def joint_bilateral_upsample(
    input: Tensor,
    guidance: Tensor,
    *,
    sigma_space: float = 0.5,
    sigma_range: float = 0.1,
    radius: int = 2,
) -> Tensor:
    """Enlarges a map: each pixel is the mean of the samples around it that are near and look alike in the guidance.

    S̃_p = Σ_q S_q f(‖p − q‖) g(‖I_p − I_q‖) / Σ_q f(‖p − q‖) g(‖I_p − I_q‖), f and g Gaussian; q runs over the samples
    up to `radius` cells away that lie in the map. Sample (i, j) stands at pixel (i · factor + (factor − 1) // 2, …) of
    the guidance, and I_q is the guidance there. Kopf et al., "Joint Bilateral Upsampling", SIGGRAPH 2007, Eq. 3.
    It takes the memory of a few maps of the guidance's size, however wide the window.

    Args:
        input: S, (N, C, h, w).
        guidance: I, (N, K, h · factor, w · factor), any factor; sigma_range is in its unit.
        sigma_space: deviation of f, in cells of the input.
        sigma_range: deviation of g.
        radius: of the window, in cells.

    Returns:
        (N, C, h · factor, w · factor).

    Raises:
        ValueError: the guidance isn't as many times as high as it is wide, or a deviation isn't above 0.

    >>> joint_bilateral_upsample(torch.rand(1, 1, 5, 6), torch.rand(1, 3, 20, 24)).shape
    torch.Size([1, 1, 20, 24])
    """
    factor = check(input, guidance, sigma_space, sigma_range, radius)
    height, width = input.shape[2:]
    centre = (factor - 1) // 2
    cells = guidance.unflatten(3, (width, factor)).unflatten(2, (height, factor)).permute(0, 1, 3, 5, 2, 4).contiguous()
    anchors = cells[:, :, centre, None, centre, None]
    samples = input[:, :, None, None]
    within = (torch.arange(factor, dtype=guidance.dtype, device=guidance.device) - centre) / factor
    highest = torch.full_like(cells[:, :1], -math.inf)  # the largest exponent so far, which the sums are relative to
    weights = torch.zeros_like(highest)
    sums = torch.zeros_like(samples) * weights
    for down in range(-min(radius, height - 1), min(radius, height - 1) + 1):
        for right in range(-min(radius, width - 1), min(radius, width - 1) + 1):
            to = (..., overlap(-down, height), overlap(-right, width))
            source = (..., overlap(down, height), overlap(right, width))
            apart = (within - down).square()[:, None] + (within - right).square()
            unlike = (cells[to] - anchors[source]).square().sum(1, keepdim=True)
            exponent = -unlike / (2 * sigma_range**2) - apart[:, :, None, None] / (2 * sigma_space**2)
            top = torch.maximum(highest[to], exponent)
            keep, weight = (highest[to] - top).exp(), (exponent - top).exp()
            sums[to] = sums[to] * keep + weight * samples[source]
            weights[to] = weights[to] * keep + weight
            highest[to] = top
    return (sums / weights).permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)


def overlap(offset: int, size: int) -> slice:
    """Which of a line's cells have another `offset` places before them; behind them, where that is negative."""
    return slice(max(offset, 0), size + min(offset, 0))


def check(input: Tensor, guidance: Tensor, sigma_space: float, sigma_range: float, radius: int) -> int:
    """The factor between the sizes; raises ValueError where there is none."""
    if input.dim() != 4 or guidance.dim() != 4 or input.shape[0] != guidance.shape[0]:
        raise ValueError(f"input and guidance must be (N, C, h, w) and (N, K, H, W), "
                         f"got {tuple(input.shape)} and {tuple(guidance.shape)}")
    for name, value in (("sigma_space", sigma_space), ("sigma_range", sigma_range)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0, got {value}")
    if radius < 0:
        raise ValueError(f"radius must be at least 0, got {radius}")
    small, large = input.shape[2:], guidance.shape[2:]
    factor = large[0] // max(small[0], 1)
    if factor < 1 or large != (small[0] * factor, small[1] * factor):
        raise ValueError(f"guidance must be the input's size {tuple(small)} times a whole factor, got {tuple(large)}")
    return factor
