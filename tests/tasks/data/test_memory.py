import pytest
import torch
from torch.nn import functional as F

from leanconv.tasks import Recipe, open_data
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


def test_the_recipe_normalises():
    data = open_data(Recipe(limit=20, mean=(0.5,), std=(0.25,)))
    images, _ = data.test.batch([0, 1])
    torch.testing.assert_close(images, (data.test.pixels([0, 1]) / 255 - 0.5) / 0.25)
    assert (data.info.mean, data.info.std) == ((0.5,), (0.25,))
    with pytest.raises(ValueError, match=r"'mean' must be empty or have 1 numbers, .* got \(0.5, 0.5, 0.5\)"):
        open_data(Recipe(limit=20, mean=(0.5,) * 3, std=(0.5,) * 3))
