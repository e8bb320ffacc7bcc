import json

import numpy as np
import pytest
from PIL import Image

from leanconv.tasks.detection import open_detection
from leanconv.tasks.detection.problems import Kind


@pytest.fixture
def folder(tmp_path, paint):
    """Makes a folder of 40×30 images and of masks, each with two instances, number 1 and number 700."""

    def make(images, masks, suffix="", count=10):
        numbers = np.zeros((30, 40), np.uint16)
        numbers[5:13, 4:14] = 1
        numbers[0:10, 20:30] = 700
        (tmp_path / masks).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            paint(tmp_path / images / f"{number}.png")
            Image.fromarray(numbers).save(tmp_path / masks / f"{number}{suffix}.png")
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("source", "layout", "category"),
    [
        ("penn-fudan:{}", ("PNGImages", "PedMasks", "_mask"), "pedestrian"),
        ("masks:{}", ("images", "masks"), "object"),
        ("masks:{},nucleus", ("images", "labels"), "nucleus"),
    ],
)
def test_images_and_targets(folder, source, layout, category):
    data = open_detection(source.format(folder(*layout)))
    assert (len(data.train), len(data.test)) == (8, 2)
    assert data.categories == (category,)
    target = data.train[0][1]
    assert target["boxes"].tolist() == [[4, 5, 14, 13], [20, 0, 30, 10]]
    assert target["labels"].tolist() == [1, 1]
    assert target["area"].tolist() == [80, 100]
    assert target["masks"][1, :10, 20:30].all()
    assert target["masks"].sum() == 180
    counts = "8 training and 2 test images, 16 and 4 instances with masks"
    assert data.description.endswith(f"{counts}, 1 category, {category}")


def test_an_index_tells_the_split(folder):
    root = folder("images", "labels")
    index = [{"id": str(number), "split": "val" if number > 6 else "train"} for number in range(10)]
    (root / "index.json").write_text(json.dumps(index))
    data = open_detection(f"masks:{root}", masks=False)
    assert data.test.image_ids == [8, 9, 10]
    assert "masks" not in data.test[0][1]
    (root / "index.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"index\.json must be a list of images"):
        open_detection(f"masks:{root}")


def test_what_cannot_be_used_is_left_out_and_told(folder):
    root = folder("images", "masks", count=4)
    (root / "masks" / "0.png").unlink()
    (root / "masks" / "1.png").write_bytes(b"none")
    (root / "images" / "2.png").unlink()
    (root / "images" / "3.png").write_bytes(b"none")
    with pytest.raises(ValueError, match="must hold readable images to train on"):
        open_detection(f"masks:{root}")
    folder("images", "masks", count=9)
    (root / "masks" / "0.png").unlink()
    (root / "masks" / "1.png").write_bytes(b"none")
    (root / "images" / "2.png").unlink()
    (root / "images" / "3.png").write_bytes(b"none")
    data = open_detection(f"masks:{root}")
    assert len(data.train) + len(data.test) == 5
    assert [problem.kind for problem in data.problems] == [Kind.NO_IMAGE, Kind.NO_FILE, Kind.NO_FILE, Kind.UNREADABLE]
    assert "2.png" in str(data.problems[0])


@pytest.mark.parametrize("shape", [(20, 40), (30, 40, 3)])
def test_masks_of_another_size_are_refused_by_name(folder, shape):
    root = folder("images", "masks")
    Image.fromarray(np.ones(shape, np.uint8)).save(root / "masks" / "4.png")
    with pytest.raises(ValueError, match=r"no mask of another size, got 1: 4\.png: .* for an image of 40×30"):
        open_detection(f"masks:{root}")


def test_folders_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="a folder of images and one of masks, PNGImages and PedMasks, images and"):
        open_detection(f"masks:{tmp_path}")
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(ValueError, match="must hold images"):
        open_detection(f"masks:{tmp_path}")
