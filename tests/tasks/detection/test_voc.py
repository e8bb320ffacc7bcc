import numpy as np
import pytest
from PIL import Image

from leanconv.tasks.detection import open_detection
from leanconv.tasks.detection.problems import Kind

OBJECT = ("<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{0}</xmin><ymin>{1}</ymin>"
          "<xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>")  # fmt: skip


def describe(name="cat", box=(5, 6, 14, 13), difficult=0):
    return OBJECT.format(*box, name=name, difficult=difficult)


@pytest.fixture
def voc(tmp_path, paint):
    """Makes a folder of 40×30 images in VOC's layout: lists of names, and the objects of each image."""

    def make(lists, objects, kind="Main"):
        for folder in ("Annotations", f"ImageSets/{kind}", "SegmentationObject"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name, those in objects.items():
            paint(tmp_path / "JPEGImages" / f"{name}.jpg")
            size = "<size><width>40</width><height>30</height></size>"
            text = f"<annotation>{size}{''.join(those)}</annotation>"
            (tmp_path / "Annotations" / f"{name}.xml").write_text(text)
        for part, names in lists.items():
            (tmp_path / "ImageSets" / kind / f"{part}.txt").write_text("".join(f"{name} 1\n" for name in names))
        return tmp_path

    return make


def test_images_and_targets(voc):
    objects = {"a": [describe("dog"), describe("cat", (1, 1, 40, 30))], "b": [describe("cow")], "c": []}
    data = open_detection(f"voc:{voc({'train': ['a', 'c'], 'val': ['b']}, objects)}")
    assert data.categories == ("cat", "cow", "dog")
    target = data.train[0][1]
    assert target["boxes"].tolist() == [[4, 5, 14, 13], [0, 0, 40, 30]]
    assert target["labels"].tolist() == [3, 1]
    assert target["area"].tolist() == [80, 1200]
    assert [data.train[1][1]["image_id"], data.test[0][1]["image_id"]] == [2, 3]
    assert not data.has_masks


def test_difficult_objects_are_crowd_regions(voc):
    objects = {"a": [describe(), describe(box=(1, 1, 9, 9), difficult=1)], "b": [describe()]}
    data = open_detection(f"voc:{voc({'train': ['a'], 'val': ['b']}, objects)}")
    assert len(data.train[0][1]["boxes"]) == 1
    assert data.train.scenes[0].crowd.tolist() == [False, True]


def test_which_lists_are_read(voc):
    objects = {name: [describe()] for name in "abc"}
    lists = {"train": ["a"], "val": ["b"], "trainval": ["a", "b"], "test": ["c"]}
    root = voc(lists, objects)
    assert len(open_detection(f"voc:{root}").train) == 2
    assert len(open_detection(f"voc:{root},train,val").train) == 1
    (root / "Annotations" / "c.xml").unlink()  # as of VOC2012, whose test isn't public
    assert len(open_detection(f"voc:{root}").train) == 1


def test_masks_are_the_numbers_of_the_objects(voc):
    objects = {"a": [describe(), describe("dog", (21, 1, 30, 10))], "b": [describe()]}
    root = voc({"train": ["a"], "val": ["b"]}, objects, kind="Segmentation")
    numbers = np.zeros((30, 40), np.uint8)
    numbers[5:13, 4:14] = 1
    numbers[0:10, 20:30] = 2
    numbers[14:16] = 255
    for name in "ab":
        Image.fromarray(numbers).save(root / "SegmentationObject" / f"{name}.png")
    data = open_detection(f"voc:{root}", masks=True)
    assert data.has_masks
    assert (data.train[0][1]["masks"].numpy() == np.stack([numbers == 1, numbers == 2])).all()
    assert data.train.scenes[0].areas.tolist() == [80, 100]
    Image.fromarray(numbers[:20]).save(root / "SegmentationObject" / "a.png")
    with pytest.raises(ValueError, match=r"every instance of .* must have a mask"):
        open_detection(f"voc:{root}", masks=True)


def test_areas_are_of_the_masks(voc):
    root = voc({"train": ["a"], "val": ["a"]}, {"a": [describe()]}, kind="Segmentation")
    numbers = np.zeros((30, 40), np.uint8)
    numbers[5:13, 4:9] = 1
    Image.fromarray(numbers).save(root / "SegmentationObject" / "a.png")
    assert open_detection(f"voc:{root}", masks=True).train.scenes[0].areas.tolist() == [40]


def test_what_cannot_be_used_is_left_out_and_told(voc, paint):
    objects = {
        "a": [
            describe(),
            describe("", (1, 1, 5, 5)),
            describe(box=("x", 1, 5, 5)),
            "<object><name>cat</name></object>",
        ],
        "b": [describe()],
    }
    root = voc({"train": ["a", "missing", "bare", "torn"], "val": ["b"]}, objects)
    paint(root / "JPEGImages" / "bare.jpg")
    paint(root / "JPEGImages" / "torn.jpg")
    (root / "Annotations" / "torn.xml").write_text("<annotation>")
    data = open_detection(f"voc:{root}")
    assert [problem.kind for problem in data.problems] == [Kind.MISSING, Kind.NO_FILE, Kind.NO_FILE] + 3 * [Kind.BROKEN]
    assert len(data.train) == 1
    assert data.train[0][1]["boxes"].shape == (1, 4)
    paint(root / "JPEGImages" / "bare.jpg", 30, 40, orientation=6)
    assert [problem.kind for problem in open_detection(f"voc:{root}").problems][:2] == [Kind.MISSING, Kind.TURNED]
    paint(root / "JPEGImages" / "b.jpg", 30, 40)
    with pytest.raises(ValueError, match=r"no image of another size, got 1: b\.jpg: 30×40, b\.xml says 40×30"):
        open_detection(f"voc:{root}")


def test_folders_that_are_none(voc, tmp_path):
    with pytest.raises(ValueError, match="got no JPEGImages"):
        open_detection(f"voc:{tmp_path}")
    root = voc({"train": ["a"]}, {"a": [describe()]})
    with pytest.raises(ValueError, match=r"cannot read the list of images .*val\.txt"):
        open_detection(f"voc:{root}")
    with pytest.raises(ValueError, match="FOLDER,TRAIN,TEST"):
        open_detection(f"voc:{root},train")
