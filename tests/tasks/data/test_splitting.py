import pytest
import torch

from leanconv.tasks.data.splitting import limited, stratified_split


def test_each_class_gives_its_share():
    labels = torch.tensor([0] * 50 + [1] * 10 + [2] * 1)
    train, test = stratified_split(labels)
    assert labels[test].bincount(minlength=3).tolist() == [10, 2, 0]
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(61))


def test_the_split_is_always_the_same():
    labels = torch.arange(100) % 10
    torch.manual_seed(1)
    first = stratified_split(labels)
    torch.manual_seed(2)
    second = stratified_split(labels)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_nothing_to_split_is_refused():
    with pytest.raises(ValueError, match="at least 2 images to split off a test set, got 3"):
        stratified_split(torch.arange(3))


def test_a_limit_takes_images_from_all_over():
    positions = limited(1000, 50)
    assert len(positions) == len(positions.unique()) == 50
    assert positions.max() > 900
    assert limited(1000, 0).equal(torch.arange(1000))
    assert limited(10, 50).equal(torch.arange(10))
