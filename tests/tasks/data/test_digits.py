import torch

from leanconv.tasks import Recipe, open_data


def test_digits_are_split_the_same_for_every_seed():
    first, second = (open_data(Recipe(seed=seed)) for seed in (0, 1))
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.test.labels, second.test.labels)
    assert len(first.train) + len(first.test) == 1797
    assert first.test.labels.bincount().min() >= 34


def test_digits_are_enlarged():
    data = open_data(Recipe(image_size=24))
    assert data.train[0][0].shape == (1, 24, 24)
    assert (data.image_size, data.in_chans, data.num_classes) == (24, 1, 10)
    assert open_data(Recipe()).image_size == 16


def test_pixels_have_mean_0_and_deviation_1():
    data = open_data(Recipe(augment=False))
    images, _ = data.train.batch(range(len(data.train)))
    assert abs(images.mean().item()) < 1e-3
    assert abs(images.std().item() - 1) < 1e-3


def test_only_training_images_are_varied():
    data = open_data(Recipe())
    assert not torch.equal(data.train[0][0], data.train[0][0]) or not torch.equal(data.train[1][0], data.train[1][0])
    assert torch.equal(data.test[0][0], data.test[0][0])


def test_the_limit_holds_for_both():
    data = open_data(Recipe(limit=30))
    assert (len(data.train), len(data.test)) == (30, 30)
