"""Sampling, filling and scores, against loops over pixels."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from leanconv.tasks.depth import BASELINES, DepthRMSE, low_resolution, mean_square, rmse
from leanconv.tasks.depth.protocol import filled

MIDDLEBURY = Path(os.environ.get("LEANCONV_DATA", "nowhere")) / "rgbd_middlebury"


def with_holes(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    depth = 1 + torch.rand(shape, generator=generator)
    return depth * (torch.rand(shape, generator=generator) < 0.7)


def rmse_by_loops(prediction: Tensor, depth: Tensor, border: int) -> float:
    squares = []
    for row in range(border, depth.shape[0] - border):
        for column in range(border, depth.shape[1] - border):
            if depth[row, column] > 0:
                squares.append((float(prediction[row, column]) - float(depth[row, column])) ** 2)
    return math.sqrt(sum(squares) / len(squares)) if squares else math.nan


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 3), st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
def test_rmse_is_that_of_loops(border, height, width, seed) -> None:
    depth = with_holes(2, 1, height + 2 * border, width + 2 * border, seed=seed)
    prediction = torch.randn(depth.shape)
    expected = [rmse_by_loops(prediction[image, 0], depth[image, 0], border) for image in range(2)]
    assert rmse(prediction, depth, border=border).tolist() == pytest.approx(expected, nan_ok=True)


def test_holes_and_border_are_not_looked_at() -> None:
    depth, prediction = torch.full((1, 1, 20, 20), 4.0), torch.full((1, 1, 20, 20), 5.0)
    depth[..., 8, 8], prediction[..., 8, 8] = 0, math.nan
    prediction[..., :6, :], prediction[..., -1, 3] = math.inf, math.nan
    assert rmse(prediction, depth).tolist() == [1.0]
    prediction[..., 6, 6] = 9
    assert rmse(prediction, depth).item() == pytest.approx(math.sqrt((62 + 25) / 63))


@pytest.mark.parametrize(
    ("prediction", "depth", "message"),
    [((1, 1, 20, 20), (1, 1, 20, 21), r"shape \(1, 1, 20, 21\), got \(1, 1, 20, 20\)"),
     ((1, 1, 20, 12), (1, 1, 20, 12), r"border of 6 pixels at each side, got 20×12")],
)
def test_refused_maps(prediction, depth, message) -> None:
    with pytest.raises(ValueError, match=message):
        rmse(torch.ones(prediction), torch.ones(depth))


def test_the_score_is_a_mean_of_images_not_of_pixels() -> None:
    score = DepthRMSE(border=1)
    sizes, errors = [(3, 3), (12, 12), (12, 12)], [1.0, 2.0, 6.0]
    for size, error in zip(sizes, errors, strict=True):
        depth = torch.full((1, 1, *size), 10.0)
        score.update(depth + error, depth)
    score.update(torch.ones(1, 1, 5, 5), torch.zeros(1, 1, 5, 5))
    assert score.compute().item() == pytest.approx(3.0)


def test_a_network_that_gives_nan_has_no_score() -> None:
    score = DepthRMSE(border=0)
    score.update(torch.tensor([[[[math.nan]]], [[[2.0]]]]), torch.ones(2, 1, 1, 1))
    assert score.compute().isnan()


def test_the_loss_is_the_mean_over_known_pixels() -> None:
    depth = torch.tensor([[[[2.0, 0.0]]], [[[4.0, 3.0]]]])
    prediction = torch.tensor([[[[1.0, 50.0]]], [[[6.0, 3.0]]]], requires_grad=True)
    loss = mean_square(prediction, depth)
    loss.backward()
    assert loss.item() == pytest.approx((1 + 4 + 0) / 3)
    assert prediction.grad.flatten().tolist() == pytest.approx([-2 / 3, 0, 4 / 3, 0])
    assert mean_square(prediction, torch.zeros_like(depth)).item() == 0


@pytest.mark.parametrize(("factor", "first"), [(2, 0), (4, 1), (8, 3), (16, 7)])
def test_a_pixel_of_each_cell_is_taken(factor, first) -> None:
    depth = 1 + torch.arange(32.0 * 48).view(1, 1, 32, 48)
    expected = [[1 + row * 48 + column for column in range(first, 48, factor)] for row in range(first, 32, factor)]
    assert low_resolution(depth, factor)[0, 0].tolist() == expected


def test_bicubic_sampling_is_pillows() -> None:
    """Keys's kernel with a = -1/2, widened by the factor, is what Pillow's BICUBIC is."""
    depth = 1 + torch.rand(1, 1, 24, 40)
    pillow = Image.fromarray(depth[0, 0].numpy()).resize((10, 6), Image.Resampling.BICUBIC)
    torch.testing.assert_close(low_resolution(depth, 4, "bicubic")[0, 0], torch.from_numpy(np.array(pillow)))


def test_refused_samplings() -> None:
    with pytest.raises(ValueError, match=r"sides that 4 divides, got 8×10"):
        low_resolution(torch.ones(1, 1, 8, 10), 4)
    with pytest.raises(ValueError, match=r"unknown sampling 'center': did you mean 'centre'"):
        low_resolution(torch.ones(1, 1, 8, 8), 4, "center")  # type: ignore[arg-type]


def filled_by_loops(depth: Tensor) -> Tensor:
    depth = depth.clone()
    while (depth == 0).any():
        grown = depth.clone()
        for row, column in (depth == 0).nonzero().tolist():
            around = depth[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            if (around > 0).any():
                grown[row, column] = around[around > 0].mean()
        depth = grown
    return depth


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 8), st.integers(0, 1000))
def test_holes_are_filled_ring_by_ring(height, width, known, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    depth = torch.zeros(height * width)
    chosen = torch.randperm(height * width, generator=generator)[:known]
    depth[chosen] = 1 + torch.rand(len(chosen), generator=generator)
    depth = depth.view(height, width)
    both = torch.stack([depth, torch.zeros(height, width)])[:, None]
    result = filled(both)
    torch.testing.assert_close(result[0, 0], filled_by_loops(depth))
    assert not result[1].any()


def test_methods_give_the_size_of_the_image_and_keep_a_constant() -> None:
    image = torch.rand(2, 3, 32, 48)
    for name, method in BASELINES.items():
        output = method(torch.full((2, 1, 4, 6), 7.0), image)
        assert output.shape == (2, 1, 32, 48), name
        torch.testing.assert_close(output, torch.full_like(output, 7.0))


@pytest.mark.skipif(not MIDDLEBURY.is_dir(), reason="LEANCONV_DATA names no folder with rgbd_middlebury")
@pytest.mark.parametrize(
    ("name", "published"),
    [("art", (3.85, 5.52, 8.37)), ("books", (1.56, 2.25, 3.36)), ("moebius", (1.38, 2.04, 2.95))],
)
def test_bicubic_gives_the_published_errors_on_middlebury(name, published) -> None:
    """Reduced and enlarged with Keys's kernel; whole images, no border."""
    depth = torch.from_numpy(np.array(Image.open(MIDDLEBURY / f"A_{name}_depth.png"))).float()[None, None]
    for factor, expected in zip((4, 8, 16), published, strict=True):
        low = low_resolution(depth, factor, "bicubic")
        assert rmse(BASELINES["bicubic"](low, depth), depth, border=0).item() == pytest.approx(expected, abs=0.01)
