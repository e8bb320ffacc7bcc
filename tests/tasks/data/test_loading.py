import pytest
import torch

from leanconv.tasks.data.augmentation import ShiftAndFlip
from leanconv.tasks.data.images import ArrayImages, UnreadableImage
from leanconv.tasks.data.loading import Draws, loader


def positions(draws: Draws) -> list[list[int]]:
    return [draw.positions for draw in draws]


@pytest.fixture
def images() -> ArrayImages:
    pixels = torch.randint(0, 256, (50, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ArrayImages(pixels, torch.arange(50), (0.0,), (1.0,), ShiftAndFlip(2, flip=True))


def test_training_shuffles_anew_each_epoch_and_alike_for_a_seed():
    draws, again = (Draws(50, 8, training=True, seed=3) for _ in range(2))
    first = positions(draws)
    assert [len(batch) for batch in first] == [8] * 6
    assert len({position for batch in first for position in batch}) == 48
    draws.set_epoch(1)
    assert positions(draws) != first
    again.set_epoch(1)
    assert positions(again) == positions(draws)
    assert positions(Draws(50, 8, training=True, seed=4)) != first


@pytest.mark.parametrize("count", [3, 4, 7, 8, 9, 63, 64, 65, 66, 129])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_test_image_comes_once_and_no_process_waits(count, processes):
    shares = [positions(Draws(count, 8, training=False, rank=rank, processes=processes)) for rank in range(processes)]
    assert sorted(position for share in shares for batch in share for position in batch) == list(range(count))
    assert len({len(share) for share in shares}) == 1
    assert all(batch for share in shares for batch in share)
    assert all(len(share) == len(Draws(count, 8, training=False, processes=processes)) for share in shares)


def test_processes_share_the_batches_of_one():
    whole = positions(Draws(50, 8, training=True))
    shares = [positions(Draws(50, 8, training=True, rank=rank, processes=2)) for rank in range(2)]
    assert [sorted(a + b) for a, b in zip(*shares, strict=True)] == [sorted(batch) for batch in whole]


def test_fewer_images_than_a_batch_make_one_batch():
    assert positions(Draws(5, 8, training=True)) == [pytest.approx(positions(Draws(5, 8, training=True))[0])]
    assert len(positions(Draws(5, 8, training=True, divisor=2))[0]) == 4
    with pytest.raises(ValueError, match="at least 2 images for 1 process"):
        Draws(1, 8, training=True, divisor=2)


def test_batches_are_the_same_for_any_number_of_workers(images):
    epochs = []
    for workers in (0, 2):
        draws = Draws(50, 8, training=True, seed=1)
        batches = loader(images, draws, workers=workers)
        for epoch in range(2):
            draws.set_epoch(epoch)
            epochs.append(list(batches))
    for alone, helped in ((epochs[0], epochs[2]), (epochs[1], epochs[3])):
        for (a, b), (c, d) in zip(alone, helped, strict=True):
            assert torch.equal(a, c)
            assert torch.equal(b, d)
    assert not torch.equal(epochs[0][0][0], epochs[1][0][0])


def test_drawing_leaves_the_global_generator_alone(images):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    list(loader(images, Draws(50, 8, training=True)))
    assert torch.equal(torch.rand(3), expected)


class Broken(ArrayImages):
    def pixels(self, indices):
        raise UnreadableImage("cannot read the image a.png: it is broken")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_one_line_without_a_workers_traceback(images, workers):
    broken = Broken(images.images, images.labels, images.mean, images.std)
    with pytest.raises(UnreadableImage, match=r"^cannot read the image a.png: it is broken$"):
        list(loader(broken, Draws(50, 8, training=True), workers=workers))
