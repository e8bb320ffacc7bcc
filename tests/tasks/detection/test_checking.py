import csv
import shutil

from rich.console import Console
from tasks.detection.conftest import annotation

from leanconv.tasks.detection.checking import check


def test_a_sound_source_is_fine(coco_folder):
    root = coco_folder([annotation()], [])
    found = check(f"coco:{root}")
    assert found.fine  # an image without annotations is no mistake
    assert "3 images, 2 instances with masks, 0 crowd regions, 2 categories" in str(found)
    assert "image without annotations" in str(found)
    (root / "train" / "2.png").unlink()
    assert not check(f"coco:{root}").fine


def test_what_is_printed_is_what_a_terminal_shows(coco_folder, capsys):
    for more in ([], [annotation(category=5)]):
        found = check(f"coco:{coco_folder([annotation(), *more])}")
        assert ("nothing is wrong" in str(found)) is not bool(more)
        console = Console(width=200, color_system=None, markup=False, highlight=False)
        console.print(found)
        assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == str(found).splitlines()


def test_turned_images_are_told(coco_folder, paint):
    root = coco_folder([annotation()])
    paint(root / "train" / "1.png", orientation=3)
    [row] = check(f"coco:{root}").table().rows
    assert row[:3] == ["image turned by its metadata", 1, "image left out"]
    assert row[3].startswith("1.png: EXIF orientation 3: write the file anew without it")


def test_everything_wrong_is_listed(coco_folder, tmp_path):
    torn = {"size": [30, 40], "counts": [600, 601]}
    root = coco_folder(
        [annotation(), annotation((1, 1, 9, 9), segmentation=torn), annotation((1, 1, 0, 1)), annotation(category=5)],
        [annotation(), annotation()],
        [annotation()],
        [annotation(image_id=5)],
    )
    (root / "train" / "2.png").write_bytes(b"none")
    shutil.copy(root / "train" / "3.png", root / "val" / "1.png")
    steps = []
    found = check(f"coco:{root}", step=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (5, 5)
    assert not found.fine
    found.save(tmp_path / "problems.csv")
    with open(tmp_path / "problems.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["problem"], row["file"]) for row in rows] == [
        ("unknown category", "1.png"),
        ("annotation without image", "instances_train.json"),
        ("degenerate box", "1.png"),
        ("annotation repeated", "2.png"),
        ("image without annotations", "4.png"),
        ("broken mask", "1.png"),
        ("unreadable image", "2.png"),
        ("picture in two files", "1.png"),
    ]
    assert rows[-1]["detail"] == "as train/3.png"
    text = str(found)
    assert "2.png: cannot identify image file" in text
    assert "annotation 3, corners 1, 1, 1, 2 in 40×30" in text


def test_many_examples_are_cut_short(coco_folder):
    found = check(f"coco:{coco_folder([annotation(category=5) for _ in range(7)])}")
    [row] = [row for row in found.table().rows if row[0] == "unknown category"]
    assert row[1] == 7
    assert row[3].endswith("annotation 3, category 5\nand 4 more")
