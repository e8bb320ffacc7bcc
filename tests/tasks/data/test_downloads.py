import hashlib
import pickle
import urllib.error

import numpy as np
import pytest
import torch
from torchvision import datasets

from leanconv.tasks import Recipe, open_data


def test_what_cannot_be_downloaded_is_one_clear_error(tmp_path, monkeypatch):
    def offline(*arguments, **keywords):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", offline)
    with pytest.raises(ValueError, match=r"'cifar10' isn't in .* can't be downloaded there .*no route.*set data_root"):
        open_data(Recipe(data="cifar10", data_root=tmp_path))


def test_cifar10_is_read_from_the_data_root(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    folder = tmp_path / datasets.CIFAR10.base_folder
    folder.mkdir()
    sums: dict[str, str] = {}

    def put(name: str, content: object) -> None:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        sums[name] = hashlib.md5(data).hexdigest()

    pixels = generator.integers(0, 256, (12, 3072)).astype(np.uint8)
    put("data_batch_1", {"data": pixels[:10], "labels": list(range(10))})
    put("test_batch", {"data": pixels[10:], "labels": [3, 4]})
    put("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [["data_batch_1", sums["data_batch_1"]]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    data = open_data(Recipe(data="cifar10", data_root=tmp_path))
    assert torch.equal(data.train.images, torch.from_numpy(pixels[:10].reshape(10, 3, 32, 32)))
    assert data.test.labels.tolist() == [3, 4]
    assert data.classes == tuple("abcdefghij")
    assert data.description.startswith("CIFAR10: 10 training and 2 test images, 3×32×32")
