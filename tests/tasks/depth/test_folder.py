"""Scenes in folders: pairs by name, units, holes, splits, and what is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leanconv.tasks.data import UnreadableImage
from leanconv.tasks.depth import open_depth
from leanconv.tasks.depth.folder import scenes_in


def save_image(path: Path, size: tuple[int, int] = (12, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def save_depth(path: Path, size: tuple[int, int] = (12, 20), value: int = 1500) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.full(size, value, np.uint16)
    values[0, 0] = 0
    Image.fromarray(values).save(path)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Ten of them, in millimetres."""
    for index in range(10):
        save_image(tmp_path / f"s{index}_rgb.png")
        save_depth(tmp_path / f"s{index}_depth_mm.png", value=1000 + index)
    return tmp_path


def test_pairs_by_their_names_split_always_alike(scenes) -> None:
    data, again = open_depth(f"depth:{scenes}"), open_depth(f"depth:{scenes}")
    assert (len(data.train), len(data.test), data.unit, data.unreadable) == (8, 2, "cm", ())
    assert sorted(data.train.names + data.test.names) == [f"s{index}" for index in range(10)]
    assert data.test.names == again.test.names
    assert set(data.train.sizes) == {(12, 20)}
    assert data.description.endswith("8 training and 2 test images with depth, in cm")
    limited = open_depth(f"depth:{scenes}", limit=1)
    assert (len(limited.train), len(limited.test)) == (1, 1)


def test_a_scene_is_what_the_files_hold(scenes) -> None:
    found, _ = scenes_in(scenes)
    image, depth = found[3]
    np.testing.assert_array_equal(image.permute(1, 2, 0), np.asarray(Image.open(scenes / "s3_rgb.png")))
    assert image.dtype == torch.uint8
    assert depth.dtype == torch.float32
    assert depth.shape == (1, 12, 20)
    assert depth[0, 0, 0] == 0
    assert depth[0, 1:].unique().item() == pytest.approx(100.3)


@pytest.mark.parametrize(
    ("name", "scale", "centimetres"),
    [("a_depth_mm", None, 150.0), ("a_depth_cm", None, 1500.0), ("a_depth_m", None, 150000.0), ("a_depth", None, 1500),
     ("a_depth", 5000.0, 30.0), ("a_depth_mm", 1000.0, 150.0)],
)
def test_units(tmp_path, name, scale, centimetres) -> None:
    save_image(tmp_path / "a_rgb.png")
    save_depth(tmp_path / f"{name}.png")
    found, _ = scenes_in(tmp_path, units_per_metre=scale)
    assert found[0].depth.max().item() == pytest.approx(centimetres)
    assert found.unit == ("levels" if name == "a_depth" and scale is None else "cm")


def test_a_scale_that_contradicts_a_name_is_refused(scenes) -> None:
    with pytest.raises(ValueError, match=r"units_per_metre must be 1000, as the name of .*s0_depth_mm.png says, got 5"):
        open_depth(f"depth:{scenes}", units_per_metre=5000, bad_images="skip")


def test_units_that_only_some_names_say_are_asked_for(scenes) -> None:
    (scenes / "s4_depth_mm.png").rename(scenes / "s4_depth.png")
    with pytest.raises(ValueError, match=r"units_per_metre must be given.* 1 such as .*s4_depth.png"):
        open_depth(f"depth:{scenes}")
    assert open_depth(f"depth:{scenes}", units_per_metre=1000).unit == "cm"


def test_folders_rgb_and_depth_below_train_and_val(tmp_path) -> None:
    for part, count in (("train", 3), ("val", 2)):
        for index in range(count):
            save_image(tmp_path / part / "rgb" / "room" / f"{index}.jpg")
            save_depth(tmp_path / part / "depth" / "room" / f"{index}.png")
    data = open_depth(f"depth:{tmp_path}", units_per_metre=1000)
    assert (data.train.names, data.test.names) == (("room/0", "room/1", "room/2"), ("room/0", "room/1"))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32, np.uint8])
def test_arrays_with_their_holes(tmp_path, dtype) -> None:
    save_image(tmp_path / "a_rgb.webp", (2, 3))
    values = np.array([[1, 2, 0], [3, 4, 5]], dtype)
    if np.dtype(dtype).kind == "f":
        values[1] = np.nan, -1, np.inf
    np.save(tmp_path / "a_depth_m.npy", values)
    found, _ = scenes_in(tmp_path)
    holes = [0, 0, 0] if np.dtype(dtype).kind == "f" else [300, 400, 500]
    assert found[0].depth[0].tolist() == [[100, 200, 0], holes]


def test_files_without_a_partner_are_left_out(scenes) -> None:
    save_image(scenes / "alone_rgb.png")
    save_depth(scenes / "dark_depth_mm.png")
    (scenes / "notes.txt").write_text("no scene")
    data = open_depth(f"depth:{scenes}")
    assert len(data.train) + len(data.test) == 10
    assert {path.name: reason for path, reason in data.unreadable} == {
        "alone_rgb.png": "no depth has its name", "dark_depth_mm.png": "no image has its name"}


def test_another_size_is_refused_by_name_or_skipped(scenes) -> None:
    save_depth(scenes / "s5_depth_mm.png", (12, 19))
    (scenes / "s6_rgb.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"got 2 that aren't: .*s5_depth_mm.png must have the size 12×20 of .*s5_rgb."
                                         r"png, got 12×19; cannot read the image .*s6_rgb.png"):
        open_depth(f"depth:{scenes}")
    data = open_depth(f"depth:{scenes}", bad_images="skip")
    assert [path.name for path, _ in data.unreadable] == ["s5_depth_mm.png", "s6_depth_mm.png"]
    assert len(data.train) + len(data.test) == 8


@pytest.fixture
def damaged(scenes) -> Path:
    """The scenes, of which 1 has half a depth map, 2 a coloured one, 3 one with a palette, and 4 half an image."""
    for name in ("s1_depth_mm.png", "s4_rgb.png"):
        whole = (scenes / name).read_bytes()
        (scenes / name).write_bytes(whole[: len(whole) // 2])
    save_image(scenes / "s2_depth_mm.png")
    Image.open(scenes / "s2_depth_mm.png").quantize(8).save(scenes / "s3_depth_mm.png")
    return scenes


def test_damaged_and_coloured_depth_is_refused_by_name_or_skipped(damaged) -> None:
    reasons = [r"cannot read the depth .*s1_depth_mm.png: .*", r"s2_depth_mm.png: it must hold one number .*",
               r"s3_depth_mm.png: it must hold one number .*", r"cannot read the image .*s4_rgb.png: "]
    with pytest.raises(ValueError, match=r"got 4 that aren't: " + ".*".join(reasons)):
        open_depth(f"depth:{damaged}")
    data = open_depth(f"depth:{damaged}", bad_images="skip")
    assert sorted(data.train.names + data.test.names) == ["s0", *(f"s{index}" for index in range(5, 10))]
    assert [path.name for path, _ in data.unreadable] == [f"s{index}_depth_mm.png" for index in range(1, 5)]
    assert [float(depth.max()) for _, depth in data.test] == pytest.approx(
        [100 + int(name[1:]) / 10 for name in data.test.names])


def test_unchecked_files_are_named_when_they_are_read(damaged) -> None:
    found, left_out = scenes_in(damaged, bad_images="unchecked")
    assert (len(found), left_out) == (10, {})
    coloured = r"_depth_mm.png: .* \(12, 20, 3\)"
    for position, message in enumerate(("s1_depth", f"s2{coloured}", f"s3{coloured}", "s4_rgb"), start=1):
        with pytest.raises(UnreadableImage, match=message):
            found[position]


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("depth:{}/nowhere", {}, r"must name a folder of images with depth, got .*nowhere"),
        ("depth:{}/empty", {}, r"must hold X_rgb and X_depth files.* got no pair"),
        ("depth:{}/train_only", {}, r"must hold one of the folders val, valid, test beside train"),
        ("depth:{}/single", {}, r"must hold at least 2 scenes .*, got 1"),
        ("depth:{}/twice", {}, r"one image and one depth map, got .*a_rgb.jpg and .*a_rgb.png"),
        ("depth:{}/single", {"units_per_metre": 0}, r"units_per_metre must be above 0, got 0"),
        ("depth:{}/single", {"bad_images": "ignore"}, r"unknown bad_images 'ignore': valid are 'refuse', 'skip'"),
        ("dept:{}/single", {}, r"unknown source of depth 'dept': did you mean 'depth'"),
    ],
)
def test_refused(tmp_path, source, options, message) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "train_only" / "train").mkdir(parents=True)
    for folder, names in (("single", ("a_rgb.png",)), ("twice", ("a_rgb.png", "a_rgb.jpg"))):
        for name in names:
            save_image(tmp_path / folder / name)
        save_depth(tmp_path / folder / "a_depth.png")
    with pytest.raises(ValueError, match=message):
        open_depth(source.format(tmp_path), **options)
