"""The labelled file of NYU Depth v2, by a small one made by hand."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from leanconv.tasks.depth import open_depth
from leanconv.tasks.depth.nyu import nyu

h5py = pytest.importorskip("h5py")
COUNT, WIDTH, HEIGHT = 5, 8, 6
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 3, WIDTH, HEIGHT)).astype(np.uint8)
DEPTHS = np.random.default_rng(1).uniform(0.5, 9, (COUNT, WIDTH, HEIGHT)).astype(np.float32)
DEPTHS[4, 3, 2], DEPTHS[4, 0, 1] = np.nan, 0


def save(path: Path, **arrays: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


@pytest.fixture
def labeled(tmp_path: Path) -> Path:
    return save(tmp_path / "nyu_depth_v2_labeled.mat", images=IMAGES, depths=DEPTHS)


def test_the_first_are_trained_on_and_the_others_tested(labeled) -> None:
    data = nyu(labeled, trained=3)
    assert (data.train.names, data.test.names) == (("0000", "0001", "0002"), ("0003", "0004"))
    assert (data.unit, data.test.sizes) == ("cm", ((HEIGHT, WIDTH),) * 2)
    image, depth = data.train[2]
    for row in range(HEIGHT):
        for column in range(WIDTH):
            assert image[:, row, column].tolist() == IMAGES[2, :, column, row].tolist()
            assert depth[0, row, column].item() == pytest.approx(100 * DEPTHS[2, column, row])
    holes = (data.test[1].depth[0] == 0).nonzero().tolist()
    assert holes == [[1, 0], [2, 3]]


def test_each_process_opens_the_file_for_itself(labeled) -> None:
    scenes = nyu(labeled, trained=3).test
    before = scenes[0]
    after = pickle.loads(pickle.dumps(scenes))[0]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_a_limit(labeled) -> None:
    data = nyu(labeled, trained=3, limit=1)
    assert (len(data.train), len(data.test)) == (1, 1)


def test_a_damaged_file_has_one_kind_of_error(labeled, tmp_path) -> None:
    """Whatever part of the file is overwritten, it opens and reads, or is refused by its path."""
    whole, path, complaints = labeled.read_bytes(), tmp_path / "damaged.mat", []
    for start in range(0, len(whole), 64):
        path.write_bytes(whole[:start] + bytes(256) + whole[start + 256 :])
        try:
            scenes = nyu(path, trained=3).test
            for index in range(len(scenes)):
                scenes[index]
        except ValueError as error:
            complaints.append(str(error))
    assert len(complaints) > 5
    assert all(str(path) in complaint for complaint in complaints)


def test_refused(labeled, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"more than the 1000 scenes that are trained on, got 5"):
        open_depth(f"nyu:{labeled}")
    with pytest.raises(ValueError, match=r"units_per_metre must be None for nyu.* got 1000"):
        open_depth(f"nyu:{labeled}", units_per_metre=1000)
    with pytest.raises(ValueError, match=r"must name the file nyu_depth_v2_labeled.mat, got .*nowhere"):
        open_depth(f"nyu:{tmp_path / 'nowhere'}")
    (tmp_path / "old.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(ValueError, match=r"old.mat must be an HDF5 file"):
        open_depth(f"nyu:{tmp_path / 'old.mat'}")
    turned = save(tmp_path / "turned.mat", images=IMAGES, depths=DEPTHS.transpose(0, 2, 1))
    with pytest.raises(ValueError, match=r"must hold images .* got \(5, 3, 8, 6\) and \(5, 6, 8\)"):
        nyu(turned, trained=3)
    with pytest.raises(ValueError, match=r"must hold images .* and None"):
        nyu(save(tmp_path / "half.mat", images=IMAGES), trained=3)
