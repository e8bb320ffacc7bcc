"""How joint depth upsampling is measured: what is taken from a depth map, and how far off the answer is.

Depth maps are float (..., H, W). What is 0 or below is a hole: no depth is known there, nothing is asked of it.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from leanconv.errors import unknown
from leanconv.tasks.depth_recipe import SAMPLINGS

Sampling = Literal["centre", "bicubic"]
BORDER = 6  # pixels at each side that aren't counted, as in PAC-Net's figures


def low_resolution(depth: Tensor, factor: int, sampling: Sampling = "centre") -> Tensor:
    """What an upsampling method is given: the depth at a lower resolution, without holes.

    "centre" takes one pixel of each cell, row and column (factor − 1) // 2, and then fills the holes among them;
    published figures on NYU v2 are of that. "bicubic" fills the holes first, then reduces with Keys's kernel
    (a = −½) widened by the factor, as published figures on Middlebury do. `filled` tells how holes are filled.

    Args:
        depth: (N, 1, H, W), H and W multiples of the factor.
        factor: between the sizes.
        sampling: "centre" or "bicubic".

    Returns:
        (N, 1, H / factor, W / factor).

    Raises:
        ValueError: for sizes that the factor doesn't divide, and an unknown sampling.

    >>> low_resolution(torch.arange(1.0, 17).view(1, 1, 4, 4), 2).flatten().tolist()
    [1.0, 3.0, 9.0, 11.0]
    """
    if sampling not in SAMPLINGS:
        raise unknown("sampling", sampling, SAMPLINGS)
    height, width = depth.shape[-2:]
    if height % factor or width % factor:
        raise ValueError(f"depth must have sides that {factor} divides, got {height}×{width}")
    if sampling == "centre":
        centre = (factor - 1) // 2
        return filled(depth[..., centre::factor, centre::factor])
    return F.interpolate(filled(depth), (height // factor, width // factor), mode="bicubic", antialias=True)


def filled(depth: Tensor) -> Tensor:
    """The depth (N, 1, H, W) with each hole closed from its rim inwards, by the mean of the neighbours known so far.

    Neighbours are the eight around a pixel. A map that is one hole stays 0.

    >>> filled(torch.tensor([[[[2.0, 0, 0, 4.0]]]])).flatten().tolist()
    [2.0, 2.0, 4.0, 4.0]
    """
    known = (depth > 0).to(depth.dtype)
    depth = depth * known
    while not bool(known.all()):
        around = F.avg_pool2d(known, 3, 1, 1)
        grown = (around > 0).to(depth.dtype)
        if torch.equal(grown, known):
            break
        depth = torch.where(known > 0, depth, F.avg_pool2d(depth, 3, 1, 1) / around.clamp(min=1e-6))
        known = grown
    return depth


def mean_square(prediction: Tensor, depth: Tensor) -> Tensor:
    """The mean of the squared differences over all pixels of a batch whose depth is known: the loss; 0 without any.

    Args:
        prediction, depth: (N, 1, H, W).
    """
    known = depth > 0
    difference = torch.where(known, prediction - depth, 0)
    return difference.square().sum() / known.sum().clamp(min=1)


def rmse(prediction: Tensor, depth: Tensor, *, border: int = BORDER) -> Tensor:
    """The root of the mean squared difference of each image, over the pixels whose depth is known: float64 (N,).

    √(Σ_p (prediction_p − depth_p)² / n), p over the n pixels with a depth that aren't in the border; NaN for n = 0.

    Args:
        prediction, depth: (N, 1, H, W).
        border: pixels at each side that don't count.

    Raises:
        ValueError: for maps of different shapes, and when nothing lies inside the border.

    >>> rmse(torch.full((1, 1, 14, 14), 5.0), torch.full((1, 1, 14, 14), 2.0)).item()
    3.0
    """
    if prediction.shape != depth.shape:
        raise ValueError(f"prediction must have the depth's shape {tuple(depth.shape)}, got {tuple(prediction.shape)}")
    height, width = depth.shape[-2:]
    if min(height, width) <= 2 * border:
        raise ValueError(f"depth must be larger than its border of {border} pixels at each side, got {height}×{width}")
    mask = counted(depth, border)
    squares = torch.where(mask, prediction.double() - depth.double(), 0).square().sum((1, 2, 3))
    return (squares / mask.sum((1, 2, 3))).sqrt()


def counted(depth: Tensor, border: int = BORDER) -> Tensor:
    """Which pixels of (N, 1, H, W) `rmse` looks at: those inside the border whose depth is known."""
    mask = torch.zeros_like(depth, dtype=torch.bool)
    inside = (..., slice(border, depth.shape[-2] - border), slice(border, depth.shape[-1] - border))
    mask[inside] = depth[inside] > 0
    return mask
