import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms import v2

from leanconv.tasks.data.augmentation import ShiftAndFlip, random_flip, random_shift


def test_each_shifted_image_is_a_crop_of_the_padded_one_as_torchvision_makes_it():
    images = torch.randint(0, 256, (300, 2, 8, 8), dtype=torch.uint8)
    padded = F.pad(images, (1, 1, 1, 1))
    offsets = []
    for before, after in zip(padded, random_shift(images, 1), strict=True):
        crops = {(top, left): v2.functional.crop(before, top, left, 8, 8) for top in range(3) for left in range(3)}
        [offset] = [offset for offset, crop in crops.items() if torch.equal(crop, after)]
        offsets.append(offset)
    assert len(set(offsets)) == 9
    assert all(15 <= offsets.count(offset) <= 55 for offset in set(offsets))  # 300 / 9 = 33 each


def test_half_of_the_images_are_mirrored():
    images = torch.randint(0, 256, (400, 1, 4, 4), dtype=torch.uint8)
    flipped = random_flip(images)
    mirrored = [torch.equal(after, before.flip(-1)) for before, after in zip(images, flipped, strict=True)]
    kept = [torch.equal(after, before) for before, after in zip(images, flipped, strict=True)]
    assert all(a or b for a, b in zip(mirrored, kept, strict=True))
    assert 150 < sum(mirrored) < 250


@pytest.mark.parametrize("flip", [True, False])
def test_flipping_is_a_choice(flip):
    images = torch.zeros(64, 1, 4, 4, dtype=torch.uint8)
    images[..., 0] = 255
    varied = ShiftAndFlip(padding=0, flip=flip)(images)
    assert bool((varied[..., -1] == 255).any()) is flip
