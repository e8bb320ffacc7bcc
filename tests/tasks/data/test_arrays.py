import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from leanconv import models
from leanconv.tasks import Recipe, evaluate, open_data
from leanconv.tasks.data.sources import prepared_for

IMAGES = np.arange(20 * 6 * 6 * 3, dtype=np.int64).reshape(20, 6, 6, 3).astype(np.uint8)
LABELS = np.arange(20) % 4


def recipe_for(tmp_path, **arrays) -> Recipe:
    np.savez(tmp_path / "a.npz", **arrays)
    return Recipe(data=f"arrays:{tmp_path / 'a.npz'}", augment=False)


def test_images_and_labels_stay_together(tmp_path):
    data = open_data(recipe_for(tmp_path, images=IMAGES, labels=LABELS, test_images=IMAGES[:8], test_labels=LABELS[:8]))
    assert torch.equal(data.train.images, torch.from_numpy(IMAGES).permute(0, 3, 1, 2))
    assert data.train.labels.tolist() == LABELS.tolist()
    assert len(data.test) == 8
    assert data.classes == ("0", "1", "2", "3")


def test_a_fifth_is_split_off(tmp_path):
    data = open_data(recipe_for(tmp_path, images=IMAGES, labels=LABELS.astype(np.uint16)))
    assert (len(data.train), len(data.test)) == (16, 4)
    assert data.test.labels.tolist() != data.train.labels[:4].tolist() or data.test.labels.unique().numel() == 4


def test_two_files(tmp_path):
    np.savez(tmp_path / "train.npz", images=IMAGES[..., 0], labels=LABELS)
    np.savez(tmp_path / "test.npz", images=IMAGES[:5, ..., 0], labels=LABELS[:5])
    data = open_data(Recipe(data=f"arrays:{tmp_path / 'train.npz'},{tmp_path / 'test.npz'}"))
    assert (len(data.train), len(data.test), data.in_chans) == (20, 5, 1)


def test_names_of_classes(tmp_path):
    data = open_data(recipe_for(tmp_path, images=IMAGES, labels=LABELS, classes=np.array(["ant", "bee", "cat", "dog"])))
    assert data.classes == ("ant", "bee", "cat", "dog")


def test_images_are_resized(tmp_path):
    recipe = recipe_for(tmp_path, images=IMAGES[:, :, :4], labels=LABELS)
    with pytest.raises(ValueError, match="image_size must be given for images that aren't square, got 6×4"):
        open_data(recipe)
    data = open_data(Recipe(data=recipe.data, image_size=9))
    assert data.test[0][0].shape == (3, 9, 9)


@pytest.mark.parametrize(("arrays", "message"), [
    ({"labels": LABELS}, "must hold the array 'images', got .'labels'"),
    ({"images": IMAGES}, "must hold the array 'labels'"),
    ({"images": IMAGES.astype(np.float32), "labels": LABELS}, "must be uint8 .*got float32"),
    ({"images": IMAGES[0, 0], "labels": LABELS[:6]}, r"must be uint8 of shape .*got uint8 of shape \(6, 3\)"),
    ({"images": IMAGES.transpose(0, 3, 1, 2), "labels": LABELS}, r"at most 4 channels C, .* \(20, 3, 6, 6\)"),
    ({"images": IMAGES[:0], "labels": LABELS[:0]}, "and not empty"),
    ({"images": IMAGES, "labels": LABELS[:7]}, r"whole numbers of shape \(20,\).*got int64 of shape \(7,\)"),
    ({"images": IMAGES, "labels": LABELS.astype(float)}, "whole numbers .*got float64"),
    ({"images": IMAGES, "labels": 0 * LABELS}, "must be of at least 2 classes, got 1"),
    ({"images": IMAGES, "labels": LABELS - 1}, "must be 0 to K - 1 .*from -1 to 2"),
    ({"images": IMAGES, "labels": np.where(LABELS == 3, 99, LABELS)}, "got 4 different ones from 0 to 99"),
    ({"images": IMAGES, "labels": LABELS, "test_images": IMAGES}, "must hold the array 'test_labels'"),
    (
        {"images": IMAGES, "labels": LABELS, "test_images": IMAGES, "test_labels": LABELS + 1},
        "test labels .* must be from 0 to 3.*got 1 to 4",
    ),
    (
        {"images": IMAGES, "labels": LABELS, "test_images": IMAGES[:, :3], "test_labels": LABELS},
        "must have the shape of the training images",
    ),
    ({"images": IMAGES, "labels": LABELS, "classes": np.array(["a"])}, "must be 4 names"),
    ({"images": np.array([IMAGES[0], None], dtype=object), "labels": LABELS[:2]}, "Object arrays cannot be loaded"),
])
def test_what_breaks_a_rule_is_refused(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        open_data(recipe_for(tmp_path, **arrays))


def test_an_object_array_is_not_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    with pytest.raises(ValueError, match=r"cannot read .* as an .npz file of plain arrays"):
        open_data(recipe_for(tmp_path, images=IMAGES, labels=np.array([Trap()] * 20, dtype=object)))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"\x93NUMPY", b"no archive at all"])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read .* as an .npz file"):
        open_data(Recipe(data=f"arrays:{tmp_path / 'a.npz'}"))


def test_a_plain_npy_file_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    with pytest.raises(ValueError, match=r"cannot read .* as an .npz file of plain arrays: it is a single array"):
        open_data(Recipe(data=f"arrays:{tmp_path / 'a.npy'}"))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*No such file"):
        open_data(Recipe(data=f"arrays:{tmp_path / 'a.npz'}"))


def test_a_damaged_archive_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[60:200] = bytes(140)
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read .* as an .npz file"):
        open_data(Recipe(data=f"arrays:{tmp_path / 'a.npz'}"))


SHARED = Path(__file__).parents[3] / "../shared/data"


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "cifar10").is_dir(), reason="the cifar10 images aren't beside the checkout")
def test_a_published_network_has_its_accuracy_on_cifar10(tmp_path):
    subprocess.run([sys.executable, SHARED / "prepare.py", tmp_path], check=True, capture_output=True)
    data = open_data(Recipe(data=f"arrays:{tmp_path / 'cifar10_train.npz'},{tmp_path / 'cifar10_test.npz'}"))
    assert (len(data.train), len(data.test), data.num_classes) == (50_000, 10_000, 10)
    assert data.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=2e-4)
    network = models.create("cifar_resnet20", num_classes=10)
    weights = torch.load(SHARED / "cifar10_resnets" / "resnet20-12fca82f.pth", weights_only=True)
    network.load_state_dict({name.replace("linear.", "fc."): tensor for name, tensor in weights.items()})
    info = replace(data.info, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert evaluate(network, prepared_for(data, info)).accuracy == pytest.approx(0.9173, abs=2e-4)
