import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from leanconv.tasks.data import ImageInfo
from leanconv.tasks.specimen import Specimen, pictures, sample


def info(**changes):
    known = dict(num_classes=6, in_chans=3, image_size=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4),
                 classes=tuple("012345"))
    return ImageInfo(**{**known, **changes})


def test_test_images_are_prepared_as_the_network_sees_them(quick):
    images = sample(info(), quick, 0)
    raw = images.pixels(range(len(images)))
    batch, labels = images.batch(range(len(images)))
    expected = (raw / 255 - torch.tensor(info().mean)[:, None, None]) / torch.tensor(info().std)[:, None, None]
    torch.testing.assert_close(batch, expected)
    assert set(labels.tolist()) == set(range(6))


def test_a_draw_is_a_part_and_repeats(quick):
    whole, some = sample(info(), quick, 0), sample(info(), quick, 5, seed=3)
    assert len(some) == 5
    assert torch.equal(some.pixels([1, 4]), whole.pixels([some.positions[1], some.positions[4]]))
    assert torch.equal(some.labels, whole.labels[some.positions])
    assert some.positions == sample(info(), quick, 5, seed=3).positions
    assert some.positions != sample(info(), quick, 5, seed=4).positions
    assert torch.equal(some.batch([2])[0], whole.batch([some.positions[2]])[0])


def test_other_classes_are_refused_or_unlabelled(quick):
    with pytest.raises(ValueError, match="num_classes of the data must be the network's 1000, got 6"):
        sample(info(num_classes=1000, classes=()), quick, 0)
    images = sample(info(num_classes=1000, classes=()), quick, 0, labelled=False)
    assert set(images.labels.tolist()) == {-1}
    assert images.mean == info().mean
    with pytest.raises(ValueError, match="in_chans of the data must be the network's 1, got 3"):
        sample(info(in_chans=1, classes=()), quick, 0, labelled=False)
    # Classes without names are the data's.
    assert sample(info(classes=()), quick, 0).labels.max() == 5


def test_batches_go_through_all_images_again_and_again(quick):
    specimen = Specimen("net", nn.Identity(), info(), sample(info(), quick, 7))
    batches = specimen.batches(3)
    for _ in range(2):
        parts = list(batches)
        assert [len(labels) for _, labels in parts] == [3, 3, 1]
        assert len(batches) == 3
        assert torch.equal(torch.cat([images for images, _ in parts]), specimen.images.batch(range(7))[0])


def test_pictures_of_every_kind(tmp_path):
    grey = np.tile(np.arange(40, dtype=np.uint8), (30, 1))
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.new("CMYK", (20, 50), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    frames = [Image.new("RGB", (33, 21), colour) for colour in ("blue", "red")]
    frames[0].save(tmp_path / "animated.gif", save_all=True, append_images=frames[1:])
    images = pictures(info(), [tmp_path])
    animated, cmyk, ramp = images.pixels(range(3))
    assert animated.float().mean((1, 2)).tolist() == [0, 0, 255]
    assert cmyk.float().mean((1, 2))[0] > 200 > 60 > cmyk.float().mean((1, 2))[2]
    assert torch.equal(ramp[0], ramp[2])
    assert (ramp[0, 8].diff().int() >= 0).all()
    assert images.labels.tolist() == [-1] * 3
    one = pictures(info(in_chans=1, mean=(0.5,), std=(0.5,)), [tmp_path / "grey.png"])
    assert one.batch([0])[0].shape == (1, 1, 16, 16)


def test_pictures_that_cannot_be(tmp_path):
    with pytest.raises(ValueError, match="there is none of that name"):
        pictures(info(), [tmp_path / "none.jpg"])
    with pytest.raises(ValueError, match="must hold images"):
        pictures(info(), [tmp_path])
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match="all images must be readable, got 1 of 1"):
        pictures(info(), [tmp_path])
    Image.new("RGB", (8, 8)).save(tmp_path / "broken.jpg")
    with pytest.raises(ValueError, match="in_chans of a network for image files must be 1 or 3, got 4"):
        pictures(info(in_chans=4), [tmp_path])

