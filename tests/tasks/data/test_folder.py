import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leanconv.tasks import Recipe, open_data
from leanconv.tasks.data import UnreadableImage, loader
from leanconv.tasks.data.loading import Draws


def fill(folder: Path, count: int, value: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.new("RGB", (40, 30), (value, index, 0)).save(folder / f"{index:02}.png")


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    for name, value in (("ant", 50), ("bee", 200)):
        fill(tmp_path / "pictures" / name, 10, value)
    return tmp_path / "pictures"


def recipe_for(folder: Path, **values) -> Recipe:
    return Recipe(data=f"imagefolder:{folder}", image_size=24, **values)


def test_a_flat_folder_is_split(flat):
    data = open_data(recipe_for(flat))
    assert data.classes == ("ant", "bee")
    assert (len(data.train), len(data.test)) == (16, 4)
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    assert not set(data.train.paths) & set(data.test.paths)


@pytest.mark.parametrize("test_folder", ["val", "valid", "test"])
def test_folders_to_train_and_to_test_on(tmp_path, test_folder):
    fill(tmp_path / "train" / "ant", 3, 50)
    fill(tmp_path / "train" / "bee" / "deeper", 2, 200)
    fill(tmp_path / test_folder / "bee", 1, 200)
    data = open_data(recipe_for(tmp_path))
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert data.test.labels.tolist() == [1]


def test_images_are_prepared_as_timm_prepares_them(flat):
    data = open_data(recipe_for(flat))
    image, label = data.test[0]
    assert image.shape == (3, 24, 24)
    assert label == 0
    red = (50 / 255 - data.mean[0]) / data.std[0]
    torch.testing.assert_close(image[0], torch.full((24, 24), red))
    assert data.train[0][0].shape == (3, 24, 24)


def test_size_224_by_default(flat):
    assert open_data(Recipe(data=f"imagefolder:{flat}", limit=2)).test[0][0].shape == (3, 224, 224)


def test_the_limit_takes_both_classes(flat):
    assert open_data(recipe_for(flat, limit=12)).train.labels.unique().tolist() == [0, 1]


@pytest.fixture
def damaged(flat: Path) -> Path:
    (flat / "ant" / "00.png").write_bytes(b"")
    (flat / "ant" / "01.png").write_bytes((flat / "ant" / "02.png").read_bytes()[:60])
    (flat / "bee" / "03.png").write_text("no image")
    return flat


def test_bad_images_are_left_out_and_named(damaged):
    data = open_data(recipe_for(damaged))
    assert len(data.train) + len(data.test) == 17
    assert [path.name for path, _ in data.unreadable] == ["00.png", "01.png", "03.png"]
    assert data.unreadable[0][1] == "the file is empty"
    assert not {path for path, _ in data.unreadable} & {*data.train.paths, *data.test.paths}
    assert len(data.train.labels) == len(data.train.paths)


def test_bad_images_are_refused(damaged):
    with pytest.raises(ValueError, match=r"got 3 of 20 that aren't: .*00\.png \(the file is empty\)"):
        open_data(recipe_for(damaged, bad_images="refuse"))


def test_unchecked_images_are_named_when_they_come(damaged):
    data = open_data(recipe_for(damaged, bad_images="unchecked"))
    assert len(data.train) + len(data.test) == 20
    with pytest.raises(UnreadableImage, match=r"cannot read the image .*png"):
        for _ in [*data.train, *data.test]:
            pass


def test_a_folder_without_a_readable_image_is_refused(tmp_path):
    for name in ("ant", "bee"):
        fill(tmp_path / name, 5, 50)
    for path in tmp_path.glob("*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"must hold readable training images, got none \(10 unreadable\)"):
        open_data(recipe_for(tmp_path))


def test_a_class_without_a_readable_image_is_named(flat):
    for path in (flat / "bee").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"must hold readable training images, got none in bee$"):
        open_data(recipe_for(flat))


def test_the_limit_may_leave_a_class_out(flat):
    assert len(open_data(recipe_for(flat, limit=1)).train) == 1


def test_one_class_is_refused(tmp_path):
    fill(tmp_path / "ant", 5, 50)
    with pytest.raises(ValueError, match="must hold at least 2 classes, got 1: ant"):
        open_data(recipe_for(tmp_path))


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match="must name a folder of images"):
        open_data(recipe_for(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="must hold one folder for each class, got none"):
        open_data(recipe_for(tmp_path))
    fill(tmp_path / "train" / "ant", 1, 0)
    with pytest.raises(ValueError, match="one of the folders val, valid, test beside train"):
        open_data(recipe_for(tmp_path))
    fill(tmp_path / "val" / "bee", 1, 0)
    with pytest.raises(ValueError, match=r"every class in .*val must be one in .*train, got bee too"):
        open_data(recipe_for(tmp_path))
    (tmp_path / "train" / "bee").mkdir()
    with pytest.raises(ValueError, match=r"each class folder must hold images .*none in .*bee"):
        open_data(recipe_for(tmp_path))


FLOWERS = Path(__file__).parents[3] / "../shared/data/flowers12"


@pytest.mark.skipif(not FLOWERS.is_dir(), reason="the flowers12 images aren't beside the checkout")
def test_real_flowers():
    data = open_data(Recipe(data=f"imagefolder:{FLOWERS}", image_size=64))
    assert (len(data.train), len(data.test), data.num_classes) == (720, 240, 12)
    assert data.unreadable == ()
    images, _ = data.test.batch(range(0, 240, 10))
    assert abs(images.mean().item()) < 1
    assert np.isfinite(images.numpy()).all()


@pytest.fixture
def ramp(tmp_path: Path) -> Path:
    """Pictures of 48×48 whose red rises to the right from 0 to 235, and whose green does downwards."""
    down, right = np.indices((48, 48)) * 5
    pixels = np.stack([right, down, np.full_like(down, 100)], 2).astype(np.uint8)
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for index in range(50):
            Image.fromarray(pixels).save(tmp_path / name / f"{index:02}.png")
    return tmp_path


def raw(recipe: Recipe) -> torch.Tensor:
    """The training images before they are normalised, in 0..255."""
    data = open_data(recipe)
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    images, _ = data.train.batch(range(len(data.train)))
    return 255 * (images * torch.tensor(data.std)[:, None, None] + torch.tensor(data.mean)[:, None, None])


def extents(images: torch.Tensor) -> torch.Tensor:
    """How far red reaches across each image and green down it, as shares of the picture [N, 2]."""
    return (images[:, :2].amax((2, 3)) - images[:, :2].amin((2, 3))) / 235


def test_crops_have_the_area_and_the_aspect_of_the_recipe(ramp):
    quarter = extents(raw(recipe_for(ramp, crop_area=(0.25, 0.25), crop_aspect=(1, 1))))
    assert quarter.sub(0.5).abs().max() < 0.05
    wide = extents(raw(recipe_for(ramp, crop_area=(0.5, 0.5), crop_aspect=(2, 2))))
    assert wide[:, 0].sub(1).abs().max() < 0.05
    assert wide[:, 1].sub(0.5).abs().max() < 0.05
    areas = extents(raw(recipe_for(ramp))).prod(1)
    assert areas.min() < 0.3
    assert areas.max() > 0.7


def test_colours_vary_as_far_as_the_recipe_says(ramp):
    def blue(**values) -> torch.Tensor:
        return raw(recipe_for(ramp, **values))[:, 2]

    assert blue().round().unique().tolist() == [100]
    varied = blue(color_jitter=0.4)
    assert len(varied.mean((1, 2)).round().unique()) > 40
    assert varied.mean((1, 2)).std() > 8


def test_randaugment_is_timms(ramp):
    plain, augmented = (
        open_data(recipe_for(ramp, rand_augment=description)).train.prepare.transforms
        for description in ("", "rand-m7-mstd0.5-inc1")
    )
    added = [transform for transform in augmented if type(transform) not in map(type, plain)]
    assert [type(transform).__name__ for transform in added] == ["RandAugment"]
    assert {operation.magnitude for operation in added[0].ops} == {7}
    assert {operation.magnitude_std for operation in added[0].ops} == {0.5}
    assert not torch.equal(raw(recipe_for(ramp, rand_augment="rand-m7-mstd0.5-inc1")), raw(recipe_for(ramp)))


def test_parts_of_training_images_are_erased(ramp):
    whole = {"crop_area": (1, 1), "crop_aspect": (1, 1)}

    def erased(**values) -> torch.Tensor:
        """The share of each image whose blue isn't that of the pictures."""
        return raw(recipe_for(ramp, **whole, **values))[:, 2].sub(100).abs().gt(1).float().mean((1, 2))

    assert erased().max() == 0
    some = erased(erasing=0.4)
    assert 0.25 < some.gt(0).float().mean() < 0.55
    assert some.max() < 0.4
    assert erased(erasing=1.0).min() > 0
    assert erased(erasing=1.0, augment=False).max() == 0
    data = open_data(recipe_for(ramp, erasing=1.0))
    assert data.test.batch(range(len(data.test)))[0][:, 2].unique().numel() == 1
    for count in (1, 3):
        assert open_data(recipe_for(ramp, erasing=1.0, erasing_count=count)).train.erase.max_count == count


def test_the_recipe_normalises(flat):
    data = open_data(recipe_for(flat, mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.125)))
    assert (data.mean, data.std) == ((0.5, 0.4, 0.3), (0.5, 0.25, 0.125))
    torch.testing.assert_close(data.test[0][0][0], torch.full((24, 24), (50 / 255 - 0.5) / 0.5))
    with pytest.raises(ValueError, match="'mean' must be empty or have 3 numbers, one a channel"):
        open_data(recipe_for(flat, mean=(0.5,), std=(0.5,)))


def test_what_varies_images_comes_from_the_seed_of_the_batch(ramp):
    recipe = recipe_for(ramp, rand_augment="rand-m7-mstd0.5-inc1", erasing=0.5, erasing_count=3, crop_area=(0.5, 1))

    def batch(seed: int) -> torch.Tensor:
        return next(iter(loader(open_data(recipe).train, Draws(80, 16, training=False, seed=seed))))[0]

    assert torch.equal(batch(1), batch(1))
    assert not torch.equal(batch(1), batch(2))
