"""Joint bilateral upsampling against loops over the pixels, and what it keeps, takes and refuses."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leanconv.ops.joint_bilateral import joint_bilateral_upsample


def by_loops(input: Tensor, guidance: Tensor, sigma_space: float, sigma_range: float, radius: int) -> Tensor:
    batch, channels, height, width = input.shape
    factor = guidance.shape[2] // height
    centre = (factor - 1) // 2
    output = torch.zeros(batch, channels, height * factor, width * factor, dtype=input.dtype)
    for image in range(batch):
        for row in range(height * factor):
            for column in range(width * factor):
                total, weights = torch.zeros(channels, dtype=input.dtype), 0.0
                for i in range(height):
                    for j in range(width):
                        if abs(i - row // factor) > radius or abs(j - column // factor) > radius:
                            continue
                        at = (i * factor + centre, j * factor + centre)
                        far = ((row - at[0]) / factor) ** 2 + ((column - at[1]) / factor) ** 2
                        unlike = float((guidance[image, :, row, column] - guidance[image, :, *at]).square().sum())
                        weight = math.exp(-far / (2 * sigma_space**2)) * math.exp(-unlike / (2 * sigma_range**2))
                        total += weight * input[image, :, i, j]
                        weights += weight
                output[image, :, row, column] = total / weights
    return output


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.sampled_from([0.3, 1.0]))
def test_it_is_its_equation(factor, height, width, radius, sigma) -> None:
    generator = torch.Generator().manual_seed(factor * 100 + height * 10 + width)
    input = torch.rand(2, 2, height, width, generator=generator, dtype=torch.float64)
    guidance = torch.rand(2, 3, height * factor, width * factor, generator=generator, dtype=torch.float64)
    actual = joint_bilateral_upsample(input, guidance, sigma_space=sigma, sigma_range=sigma / 2, radius=radius)
    torch.testing.assert_close(actual, by_loops(input, guidance, sigma, sigma / 2, radius))


def test_an_edge_of_the_guidance_is_an_edge_of_the_output() -> None:
    """Samples on either side of an edge that lies between cells: bilinear would mix them."""
    input = torch.tensor([[[[1.0, 1.0, 9.0, 9.0]]]])
    guidance = torch.zeros(1, 1, 4, 16)
    guidance[..., 7:] = 1
    output = joint_bilateral_upsample(input, guidance, sigma_range=0.02)
    assert output[0, 0].unique(dim=0).tolist() == [[1.0] * 7 + [9.0] * 9]


def test_pixels_unlike_all_samples_get_the_least_unlike() -> None:
    """Weights of exp(-10000) are 0 in float32; what counts is how they compare."""
    input = torch.tensor([[[[1.0, 3.0]]]])
    guidance = torch.tensor([[[[0.0, 0.8, 0.0, 0.9]]]]).repeat(1, 1, 2, 1)
    guidance[..., 2] = 0.1
    output = joint_bilateral_upsample(input, guidance, sigma_range=0.005)
    assert output.isfinite().all()
    assert output[0, 0, 0].tolist() == [1.0, 3.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("guidance", "options", "message"),
    [
        ((1, 3, 8, 9), {}, r"\(4, 4\) times a whole factor, got \(8, 9\)"),
        ((1, 3, 8, 12), {}, r"\(4, 4\) times a whole factor, got \(8, 12\)"),
        ((1, 3, 2, 2), {}, r"times a whole factor, got \(2, 2\)"),
        ((2, 3, 8, 8), {}, r"input and guidance must be"),
        ((1, 3, 8, 8), {"sigma_space": 0}, r"sigma_space must be above 0, got 0"),
        ((1, 3, 8, 8), {"sigma_range": -1.0}, r"sigma_range must be above 0, got -1.0"),
        ((1, 3, 8, 8), {"radius": -1}, r"radius must be at least 0, got -1"),
    ],
)
def test_refused(guidance, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        joint_bilateral_upsample(torch.rand(1, 1, 4, 4), torch.rand(guidance), **options)
