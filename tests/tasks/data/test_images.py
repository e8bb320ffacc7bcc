import pytest
import torch

from leanconv.tasks import Recipe, open_data
from leanconv.tasks.data.images import ArrayImages, ImageInfo


def test_an_image_is_normalised():
    pixels = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8)
    images = ArrayImages(pixels, torch.arange(4), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    image, label = images[2]
    mean, std = torch.tensor([0.1, 0.2, 0.3])[:, None, None], torch.tensor([0.5, 0.6, 0.7])[:, None, None]
    expected = (pixels[2] / 255 - mean) / std
    torch.testing.assert_close(image, expected)
    assert label == 2
    assert images[-1][1] == 3


def test_iteration_ends():
    images = ArrayImages(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.arange(4), mean=(0.0,), std=(1.0,))
    assert [label for _, label in images] == [0, 1, 2, 3]
    with pytest.raises(IndexError):
        images[4]


def test_info_is_all_but_the_images():
    data = open_data(Recipe(limit=20))
    assert type(data.info) is ImageInfo
    assert data.info.classes == tuple("0123456789")
