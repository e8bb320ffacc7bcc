import pytest
import torch
from torch.nn import functional as F

from leanconv.tasks.data.memory import resized, statistics


def test_statistics_are_those_of_all_pixels():
    images = torch.randint(0, 256, (1500, 2, 4, 4), dtype=torch.uint8)
    mean, std = statistics(images)
    pixels = images.double() / 255
    assert mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-4)
    assert std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), abs=1e-4)


def test_images_of_one_colour_can_be_divided_by_their_deviation():
    assert statistics(torch.full((3, 1, 4, 4), 9, dtype=torch.uint8))[1][0] > 0


def test_resizing_is_bilinear():
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    expected = F.interpolate(images.double(), (4, 4), mode="bilinear", antialias=True)
    assert (resized(images, 4).double() - expected).abs().max() <= 1
    assert torch.equal(resized(images, 8), images)
