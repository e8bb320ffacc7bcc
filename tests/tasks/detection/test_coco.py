import json

import numpy as np
import pytest
import torch
from PIL import Image
from tasks.detection.conftest import annotation

from leanconv.tasks.data import UnreadableImage
from leanconv.tasks.detection import open_detection
from leanconv.tasks.detection.problems import Kind

CROWD = {"segmentation": {"size": [30, 40], "counts": [600, 300, 300]}, "iscrowd": 1}


def kinds(data):
    return [problem.kind for problem in data.problems]


def test_images_and_targets(coco_folder):
    root = coco_folder([annotation((4, 5, 10, 8), 18), annotation((20.5, 0, 5, 30), 3)], [annotation()])
    data = open_detection(f"coco:{root}")
    assert (len(data.train), len(data.test)) == (2, 1)
    assert data.categories == ("cat", "dog")
    assert data.train.category_ids == (3, 18)
    assert data.has_masks
    image, target = data.train[0]
    expected = np.asarray(Image.open(root / "train" / "1.png"))
    assert image.dtype == torch.uint8
    assert torch.equal(image, torch.from_numpy(expected.copy()).permute(2, 0, 1))
    assert target["boxes"].dtype == torch.float32
    assert target["boxes"].tolist() == [[4, 5, 14, 13], [20.5, 0, 25.5, 30]]
    assert target["labels"].tolist() == [2, 1]
    assert target["area"].tolist() == [80, 150]
    assert target["image_id"] == 10
    mask = torch.zeros(30, 40, dtype=torch.uint8)
    mask[5:13, 4:14] = 1
    assert torch.equal(target["masks"][0], mask)
    assert target["masks"].shape == (2, 30, 40)
    assert "2 training and 1 test images, 3 and 1 instances with masks, 2 categories" in data.description


def test_crowd_regions_are_no_targets(coco_folder):
    root = coco_folder([annotation(), annotation(**CROWD)], [annotation(**CROWD)])
    data = open_detection(f"coco:{root}")
    assert data.train[0][1]["labels"].tolist() == [1]
    assert data.train[0][1]["masks"].shape == (1, 30, 40)
    assert data.train[1][1]["boxes"].shape == (0, 4)
    assert data.train[1][1]["masks"].shape == (0, 30, 40)
    assert data.train.scenes[0].crowd.tolist() == [False, True]
    assert len(open_detection(f"coco:{root}", empty="drop").train) == 1


@pytest.mark.parametrize(
    ("segmentation", "rows"),
    [
        ({"size": [30, 40], "counts": [0, 60, 1140]}, slice(0, 2)),
        ([[0, 0, 2, 0, 2, 30, 0, 30]], slice(0, 2)),
        ([[0, 0, 1, 0, 1, 30, 0, 30], [1, 0, 2, 0, 2, 30, 1, 30]], slice(0, 2)),
    ],
)
def test_forms_of_masks(coco_folder, segmentation, rows):
    data = open_detection(f"coco:{coco_folder([annotation(segmentation=segmentation)])}")
    masks = data.train[0][1]["masks"]
    assert masks[0, :, rows].all()
    assert masks.sum() == 60


@pytest.mark.parametrize("bad", [[1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7], ["a"] * 6, 5])
def test_a_broken_polygon_is_left_out_of_a_mask(coco_folder, bad):
    good = [0, 0, 2, 0, 2, 30, 0, 30]
    data = open_detection(f"coco:{coco_folder([annotation((-5, 0, 9, 30), segmentation=[bad, good])])}")
    assert kinds(data) == [Kind.BEYOND, Kind.BROKEN_POLYGON]
    masks = data.train[0][1]["masks"]
    assert masks[0, :, :2].all()
    assert masks.sum() == 60


@pytest.mark.parametrize("area", [{"area": None}, {}])
def test_areas_that_are_not_told_are_of_the_mask_or_the_box(coco_folder, area):
    triangle = annotation((0, 0, 20, 20), segmentation=[[0, 0, 20, 0, 0, 20]])
    stripe = annotation((4, 5, 10, 8), segmentation={"size": [30, 40], "counts": [125, 6, 1069]})
    each = [{**{key: value for key, value in made.items() if key != "area"}, **area} for made in (triangle, stripe)]
    root = coco_folder(each)
    data = open_detection(f"coco:{root}")
    assert kinds(data) == []
    areas = data.train.scenes[0].areas.tolist()
    assert areas == data.train[0][1]["masks"].sum((1, 2)).tolist()
    assert areas[1] == 6
    assert 180 <= areas[0] <= 220
    assert open_detection(f"coco:{root}", masks=False).train.scenes[0].areas.tolist() == [400, 80]
    torn = {**each[1], "segmentation": {"size": [30, 40], "counts": [600, 601]}}
    assert kinds(open_detection(f"coco:{coco_folder([each[0], torn])}")) == [Kind.BROKEN_MASK]


def test_numbers_of_any_size_are_kept_and_fractions_are_none(coco_folder):
    large = 2**53 + 1
    images = [{"id": large, "file_name": "1.png", "width": 40, "height": 30}]
    data = open_detection(f"coco:{coco_folder([annotation(image_id=large), annotation(image_id=1.5)], images=images)}")
    assert data.train.image_ids == [large]
    assert data.train[0][1]["boxes"].tolist() == [[4, 5, 14, 13]]
    assert kinds(data) == [Kind.BROKEN]


def test_errors_name_what_is_wrong_most_often(coco_folder):
    root = coco_folder([annotation()], [annotation()], [annotation()])
    for name, content in (("1.png", None), ("2.png", b"none"), ("3.png", b"none")):
        (root / "train" / name).unlink()
        if content:
            (root / "train" / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"to train on, got none; most often: unreadable image \(2\), as 2\.png"):
        open_detection(f"coco:{root}")
    root = coco_folder([annotation(category=5), annotation(category=6)])
    pair = f"coco:{root / 'train'},{root / 'instances_train.json'}"
    with pytest.raises(ValueError, match=r"got no instances; most often: unknown category \(2\), as 1\.png"):
        open_detection(pair, masks=True)


def test_masks_are_left_alone_when_not_wanted(coco_folder):
    root = coco_folder([annotation()])
    data = open_detection(f"coco:{root}", masks=False)
    assert not data.has_masks
    assert "masks" not in data.train[0][1]


def test_an_instance_without_mask_takes_the_masks_from_all(coco_folder):
    root = coco_folder([annotation(), annotation((1, 1, 9, 9), segmentation=[])])
    data = open_detection(f"coco:{root}")
    assert kinds(data) == [Kind.NO_MASK]
    assert not data.has_masks
    assert len(data.train[0][1]["boxes"]) == 2
    with pytest.raises(ValueError, match=r"every instance of .* must have a mask"):
        open_detection(f"coco:{root}", masks=True)


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        (annotation((4, 5, 0, 8)), Kind.DEGENERATE),
        (annotation((4, 5, -3, 8)), Kind.DEGENERATE),
        (annotation((4, float("nan"), 3, 8)), Kind.DEGENERATE),
        (annotation((41, 5, 10, 8)), Kind.OUTSIDE),
        (annotation((-10, 5, 10, 8)), Kind.OUTSIDE),
        (annotation(category=4), Kind.CATEGORY),
        (annotation(category_id="cat"), Kind.BROKEN),
        (annotation(bbox=[1, 2, 3]), Kind.BROKEN),
        (annotation(bbox=None), Kind.BROKEN),
        (annotation(area=float("inf")), Kind.BROKEN),
        (annotation(image_id=7), Kind.NO_IMAGE),
        (annotation(segmentation=[[1, 2, 3, 4]]), Kind.BROKEN_MASK),
        (annotation(segmentation=[["a"] * 6]), Kind.BROKEN_MASK),
        (annotation(segmentation={"size": [30, 40]}), Kind.BROKEN_MASK),
        (annotation((1, 1, 9, 9), segmentation={"size": [30, 40], "counts": [600, 601]}), Kind.BROKEN_MASK),
        (annotation((1, 1, 9, 9), segmentation={"size": [30, 40], "counts": "11"}), Kind.BROKEN_MASK),
        (annotation(segmentation="all"), Kind.BROKEN_MASK),
        ("annotation", Kind.BROKEN),
    ],
)
def test_what_cannot_be_used_is_left_out_and_told(coco_folder, broken, kind):
    root = coco_folder([annotation()])
    file = root / "instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"].append({"id": 99, "image_id": 10, **broken} if isinstance(broken, dict) else broken)
    file.write_text(json.dumps(content))
    data = open_detection(f"coco:{root}")
    assert kinds(data) == [kind]
    assert data.train[0][1]["labels"].tolist() == [1]
    assert f"{kind.title}: 1, left out" in data.description


def test_boxes_are_clipped_at_the_border(coco_folder):
    root = coco_folder([annotation((-5, 20, 10, 20), 3), annotation((30, 5, 10.4, 8), 3)])
    data = open_detection(f"coco:{root}")
    assert kinds(data) == [Kind.BEYOND]  # less than a pixel is rounding, and the score sees it as it is filed
    assert data.train[0][1]["boxes"].tolist() == [[0, 20, 5, 30], [30, 5, 40, 13]]
    assert data.train.scenes[0].boxes[1].tolist() == [30, 5, 40.4, 13]


def test_images_without_annotations(coco_folder):
    root = coco_folder([annotation()], [])
    data = open_detection(f"coco:{root}")
    assert len(data.train) == 2
    assert kinds(data) == [Kind.NO_INSTANCE]
    assert data.train[1][1]["boxes"].shape == (0, 4)
    assert "without" not in data.description
    assert len(open_detection(f"coco:{root}", empty="drop").train) == 1


def test_missing_and_broken_images(coco_folder):
    root = coco_folder([annotation()], [annotation()], [annotation()])
    (root / "train" / "2.png").unlink()
    (root / "train" / "3.png").write_bytes((root / "train" / "3.png").read_bytes()[:100])
    data = open_detection(f"coco:{root}")
    assert data.train.image_ids == [10]
    assert kinds(data) == [Kind.MISSING]
    assert [path.name for path, _ in data.unreadable] == ["3.png"]
    with pytest.raises(ValueError, match=r"no missing image, got 1: 2\.png"):
        open_detection(f"coco:{root}", bad_images="refuse")
    (root / "train" / "2.png").write_bytes((root / "train" / "1.png").read_bytes())
    with pytest.raises(ValueError, match=r"must be readable, got 1 of 4 .*3\.png"):
        open_detection(f"coco:{root}", bad_images="refuse")
    with pytest.raises(UnreadableImage, match=r"3\.png"):
        open_detection(f"coco:{root}", bad_images="unchecked").train[2]


def test_other_sizes_are_refused_by_name(coco_folder, paint):
    root = coco_folder([annotation(segmentation={"size": [40, 30], "counts": [600, 600]})])
    with pytest.raises(ValueError, match=r"no mask of another size, got 1: 1\.png: annotation 1"):
        open_detection(f"coco:{root}")
    root = coco_folder([annotation()])
    paint(root / "train" / "1.png", 30, 40)
    with pytest.raises(ValueError, match=r"no image of another size, got 1: 1\.png: 30×40, .* say 40×30"):
        open_detection(f"coco:{root}")
    with pytest.raises(UnreadableImage, match=r"no image of another size, got .*1\.png: 30×40, .* say 40×30"):
        open_detection(f"coco:{root}", bad_images="unchecked").train[0]


@pytest.mark.parametrize("orientation", [0, 1, 2, 3, 4, 6])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_images_that_metadata_turn_are_bad_ones(coco_folder, paint, orientation, suffix):
    entries = [{"id": 10, "file_name": f"1{suffix}", "width": 40, "height": 30}, {"id": 20, "file_name": "2.png"}]
    root = coco_folder([annotation()], [annotation()], images=entries)
    paint(root / "train" / f"1{suffix}", orientation=orientation)
    paint(root / "train" / "2.png", orientation=orientation)
    if orientation < 2:  # upright, or not told
        assert open_detection(f"coco:{root}", bad_images="refuse").train.image_ids == [10, 20]
        return
    with pytest.raises(ValueError, match=r"images to train on, got none; most often: image turned by its meta.* \(2\)"):
        open_detection(f"coco:{root}")
    paint(root / "train" / "2.png")
    data = open_detection(f"coco:{root}")
    assert data.train.image_ids == [20]
    assert kinds(data) == [Kind.TURNED]
    assert "image turned by its metadata: 1, image left out" in data.description
    message = rf"no image turned by its metadata, got .*1\{suffix}: EXIF orientation {orientation}: write the file anew"
    with pytest.raises(ValueError, match=message):
        open_detection(f"coco:{root}", bad_images="refuse")
    with pytest.raises(UnreadableImage, match=message):
        open_detection(f"coco:{root}", bad_images="unchecked").train[0]


def test_a_turned_image_is_no_other_size(coco_folder, paint):
    root = coco_folder([annotation()], [annotation()])
    paint(root / "train" / "1.png", 30, 40, orientation=6)  # shown upright, it has the size of its annotations
    data = open_detection(f"coco:{root}")
    assert (data.train.image_ids, kinds(data)) == ([20], [Kind.TURNED])


def test_images_listed_twice(coco_folder):
    entry = {"id": 10, "file_name": "1.png", "width": 40, "height": 30}
    data = open_detection(f"coco:{coco_folder([annotation()], images=[entry, entry, {**entry, 'id': 11}, {}])}")
    assert kinds(data) == [Kind.REPEATED_IMAGE, Kind.REPEATED_IMAGE, Kind.BROKEN]
    assert len(data.train) == 1
    assert len(data.train[0][1]["boxes"]) == 1


def test_repeated_annotations_are_told(coco_folder):
    data = open_detection(f"coco:{coco_folder([annotation(), annotation(), annotation(category=18)])}")
    assert [str(problem) for problem in data.problems] == ["1.png: annotation 2 is as annotation 1"]


def test_sizes_that_are_not_told_are_read(coco_folder):
    images = [{"id": 10, "file_name": "1.png"}]
    scene = open_detection(f"coco:{coco_folder([annotation()], images=images)}").train.scenes[0]
    assert (scene.height, scene.width) == (30, 40)


def test_one_pair_is_split_and_two_are_not(coco_folder):
    root = coco_folder(*([annotation()] for _ in range(10)))
    pair = f"{root / 'train'},{root / 'instances_train.json'}"
    data = open_detection(f"coco:{pair}")
    assert (len(data.train), len(data.test)) == (8, 2)
    assert sorted(data.train.image_ids + data.test.image_ids) == [10 * number for number in range(1, 11)]
    assert open_detection(f"coco:{pair}").test.image_ids == data.test.image_ids
    data = open_detection(f"coco:{pair},{root / 'val'},{root / 'instances_val.json'}", limit=4)
    assert (len(data.train), len(data.test)) == (4, 1)


def test_the_official_layout_is_found(coco_folder):
    root = coco_folder([annotation()])
    (root / "annotations").mkdir()
    for part in ("train", "val"):
        (root / part).rename(root / f"{part}2017")
        (root / f"instances_{part}.json").rename(root / "annotations" / f"instances_{part}2017.json")
    assert len(open_detection(f"coco:{root}").train) == 1


def test_categories_of_both_parts_must_agree(coco_folder):
    root = coco_folder([annotation()], categories=[{"id": 3, "name": "cat"}, {"id": 18, "name": "horse"}])
    with pytest.raises(ValueError, match=r"must be those of .*, got others too: 18 dog"):
        open_detection(f"coco:{root}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot read .* as COCO annotations"),
        ("[]", "must hold the lists images, annotations and categories"),
        ('{"images": [], "annotations": {}, "categories": []}', "got no 'annotations'"),
        ('{"images": [], "annotations": [], "categories": []}', "at least one, each id once, got 0"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "must have an id and a name"),
        ('{"images": [], "annotations": [], "categories": [{"id": 3, "name": "cat"}, {"id": 18, "name": "dog"}]}',
         "must hold readable images to train on, got none"),
    ],
)  # fmt: skip
def test_files_that_are_none(coco_folder, content, message):
    root = coco_folder([annotation()])
    (root / "instances_train.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        open_detection(f"coco:{root}")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("coco", "a source must be KIND:PLACE"),
        ("coko:x", "did you mean 'coco'"),
        ("coco:/nowhere", "which isn't one"),
        ("coco:a,b,c", "IMAGES,FILE.json once or twice"),
        ("coco:{root}/train", "got none: name them as coco:IMAGES,FILE.json"),
        ("coco:{root}/nowhere,{root}/instances_train.json", "must have its images in a folder"),
    ],
)
def test_sources_that_are_none(coco_folder, source, message):
    root = coco_folder([annotation()])
    with pytest.raises(ValueError, match=message):
        open_detection(source.format(root=root))


@pytest.mark.parametrize("argument", [{"empty": "maybe"}, {"bad_images": "maybe"}, {"limit": -1}])
def test_arguments_are_checked(coco_folder, argument):
    with pytest.raises(ValueError, match=f"{next(iter(argument))} must be"):
        open_detection(f"coco:{coco_folder([annotation()])}", **argument)


def test_both_parts_as_one_set(coco_folder):
    root = coco_folder(*([annotation()] for _ in range(10)))
    whole = open_detection(f"coco:{root / 'train'},{root / 'instances_train.json'}").whole()
    assert whole.image_ids == [10 * number for number in range(1, 11)]
    with pytest.raises(ValueError, match="some have the same number"):
        open_detection(f"coco:{root}").whole()
