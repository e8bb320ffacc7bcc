import contextlib
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from leanconv.tasks.detection import CocoScores, DetectionSet
from leanconv.tasks.detection import rle as run_lengths
from leanconv.tasks.detection.problems import Problem
from leanconv.tasks.detection.scenes import Instance, scene

NAMES = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"]
HEIGHT, WIDTH = 200, 240


def ellipse(box):
    """The mask of what fills a box, but for its corners."""
    left, top, right, bottom = box
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    across = (columns - (left + right) / 2) / max(right - left, 1)
    down = (rows - (top + bottom) / 2) / max(bottom - top, 1)
    return across**2 + down**2 <= 0.25


def random_boxes(generator, count):
    """Boxes of all sizes: small, medium, large."""
    sides = np.exp(generator.uniform(np.log(6), np.log(190), (count, 2)))
    corner = generator.random((count, 2)) * np.maximum([WIDTH, HEIGHT] - sides, 1)
    return np.concatenate([corner, np.minimum(corner + sides, [WIDTH, HEIGHT])], axis=1)


@pytest.fixture(scope="module")
def truth():
    """20 images, one of them empty, of 4 categories, one of which is nowhere; crowd regions among them."""
    generator = np.random.default_rng(0)
    problems: list[Problem] = []
    scenes = []
    for place in range(20):
        instances = []
        for box in random_boxes(generator, 0 if place == 3 else generator.integers(1, 9)):
            mask = ellipse(box)
            label, crowd = int(generator.integers(1, 4)), generator.random() < 0.15
            shape = run_lengths.encoded(mask)
            instances.append(Instance("", tuple(box), label, float(mask.sum()), bool(crowd), shape))
        scenes.append(scene(7 * place + 5, Path(f"{place}.png"), (HEIGHT, WIDTH), instances, problems))
    assert any(each.crowd.any() for each in scenes)
    return DetectionSet(scenes, ["a", "b", "c", "d"], [2, 3, 5, 90], has_masks=True)


@pytest.fixture(scope="module")
def predictions(truth):
    """The truth, moved a little, with mistakes; nothing for one image."""
    generator = np.random.default_rng(1)
    found = {}
    for each in truth.scenes[1:]:
        size = each.boxes[:, 2:] - each.boxes[:, :2]
        moved = each.boxes + generator.normal(0, 0.06, each.boxes.shape) * np.tile(size, 2)
        boxes = np.concatenate([moved, moved[::2] + 1, random_boxes(generator, 4)])
        labels = np.concatenate([each.labels, each.labels[::2], generator.integers(1, 5, 4)])
        labels = np.where(generator.random(len(labels)) < 0.1, 1, labels)
        found[each.image_id] = {
            "boxes": torch.from_numpy(boxes).float(),
            "scores": torch.from_numpy(generator.random(len(boxes))).float(),
            "labels": torch.from_numpy(labels),
            "masks": torch.from_numpy(np.stack([ellipse(box) for box in boxes]))[:, None] * 0.7,
        }
    return found


@pytest.fixture(scope="module")
def scores(truth, predictions):
    made = CocoScores(truth, masks=True)
    made.update(list(predictions.values()), predictions)
    return made


def judged(truth, predictions, kind, image_ids=None):
    """The scores that pycocotools gives."""
    annotations, results = [], []
    for each in truth.scenes:
        for box, label, area, crowd, mask in zip(
            each.boxes.tolist(), each.labels.tolist(), each.areas.tolist(), each.crowd.tolist(), each.masks(),
            strict=True
        ):  # fmt: skip
            annotations.append({
                "id": len(annotations) + 1, "image_id": each.image_id, "category_id": label, "area": area,
                "iscrowd": int(crowd), "bbox": [*box[:2], box[2] - box[0], box[3] - box[1]], "segmentation": mask,
            })  # fmt: skip
    for image_id, found in predictions.items():
        parts = (found[name] for name in ("boxes", "scores", "labels", "masks"))
        for box, score, label, mask in zip(*parts, strict=True):
            left, top, right, bottom = box.double().tolist()
            result = {"image_id": image_id, "category_id": label.item(), "score": score.item()}
            if kind == "bbox":
                result["bbox"] = [left, top, right - left, bottom - top]
            else:
                result["segmentation"] = run_lengths.encoded(mask[0].numpy() > 0.5)
            results.append(result)
    with contextlib.redirect_stdout(io.StringIO()):
        whole = COCO()
        whole.dataset = {
            "images": [{"id": each.image_id, "height": HEIGHT, "width": WIDTH} for each in truth.scenes],
            "annotations": annotations,
            "categories": [{"id": label} for label in range(1, 5)],
            "info": {},
        }
        whole.createIndex()
        evaluation = COCOeval(whole, whole.loadRes(results), kind)
        if image_ids is not None:
            evaluation.params.imgIds = image_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:6].tolist()


@pytest.mark.parametrize("some", [False, True])
def test_scores_are_those_of_pycocotools(truth, predictions, scores, some):
    chosen = truth.image_ids[2:9] if some else None
    computed = scores.compute(chosen)
    for prefix, kind in (("", "bbox"), ("mask_", "segm")):
        expected = judged(truth, predictions, kind, chosen)
        assert 0.05 < expected[0] < 0.95
        assert [computed[prefix + name] for name in NAMES] == pytest.approx(expected, abs=1e-9)
    assert len(computed) == 12


def test_boxes_alone(truth, predictions, scores):
    alone = CocoScores(truth)
    alone.update(list(predictions.values()), predictions)
    assert alone.compute() == {name: scores.compute()[name] for name in NAMES}


def test_forms_of_masks_are_the_same(truth, predictions, scores):
    for change in (lambda masks: masks[:, 0] > 0.5, lambda masks: (masks > 0.5).to(torch.uint8)):
        other = CocoScores(truth, masks=True)
        other.update([{**each, "masks": change(each["masks"])} for each in predictions.values()], predictions)
        assert other.compute() == scores.compute()


def test_the_truth_is_found_perfectly_and_crowds_count_neither_way(truth):
    scores = CocoScores(truth)
    for index, each in enumerate(truth.scenes):
        target = truth.target(index)
        boxes = torch.cat([target["boxes"], torch.from_numpy(each.boxes[each.crowd]).float()])
        labels = torch.cat([target["labels"], torch.from_numpy(each.labels[each.crowd])])
        scores.update([{"boxes": boxes, "labels": labels, "scores": torch.ones(len(boxes))}], [each.image_id])
    assert scores.compute()["ap"] == 1
    per_category = scores.per_category()
    assert [per_category[name]["ap"] for name in "abc"] == [1, 1, 1]
    assert math.isnan(per_category["d"]["ap"])


def test_so_many_detections_of_an_image_count(tmp_path):
    corners = [(10.0 * (place % 20), 10.0 * (place // 20)) for place in range(200)]
    instances = [Instance("", (left, top, left + 8, top + 8), 1) for left, top in corners]
    images = DetectionSet([scene(1, tmp_path, (HEIGHT, WIDTH), instances, [])], ["a"], [1], has_masks=False)
    found = [{**images.target(0), "scores": torch.linspace(1, 0.5, 200)}]
    computed = []
    for arguments in ({}, {"detections": 100}, {"detections": 200}, {"detections": 5}):
        scores = CocoScores(images, **arguments)
        scores.update(found, [1])
        computed.append(scores.compute()["ap"])
    assert computed == pytest.approx([51 / 101, 51 / 101, 1, 3 / 101])  # recall 0.5, 0.5, 1, 0.025
    with pytest.raises(ValueError, match="detections must be at least 1, got 0"):
        CocoScores(images, detections=0)


def test_scores_in_all_and_of_each_category_take_one_evaluation(truth, predictions, monkeypatch):
    counted = []
    precision = CocoScores.precision
    monkeypatch.setattr(CocoScores, "precision", lambda self, *rest: counted.append(rest[1]) or precision(self, *rest))
    scores = CocoScores(truth, masks=True)
    scores.update(list(predictions.values()), predictions)
    whole, each = scores.compute(), scores.per_category()
    assert counted == ["bbox", "segm"]
    for name in ("ap", "mask_ap"):
        assert whole[name] == pytest.approx(np.nanmean([own[name] for own in each.values()]))
    assert scores.compute(truth.image_ids[:9])["ap"] != whole["ap"]
    assert scores.compute() == whole
    scores.update([predictions[12]], [12])
    assert scores.compute() == whole
    assert counted == ["bbox", "segm"] * 3
    scores.reset()
    assert scores.compute()["ap"] == 0


def test_nothing_found_and_nothing_to_find(truth):
    scores = CocoScores(truth, masks=True)
    assert scores.compute()["ap"] == scores.compute()["mask_ap50"] == 0
    empty = truth.scenes[3].image_id
    assert all(map(math.isnan, scores.compute([empty]).values()))
    assert all(map(math.isnan, scores.compute([]).values()))
    scores.update([{"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64),
                    "masks": torch.zeros(0, 1, HEIGHT, WIDTH)}], [5])  # fmt: skip
    assert scores.compute()["ap"] == 0


def test_an_image_seen_again_counts_once(truth, predictions, scores):
    again = CocoScores(truth, masks=True)
    for _ in range(2):
        again.update(list(predictions.values()), predictions)
    assert again.compute() == scores.compute()
    again.reset()
    assert again.compute()["ap"] == 0


def test_result_files(truth, scores, tmp_path):
    path = tmp_path / "predictions.json"
    scores.save(path)
    assert CocoScores.load(truth, path).compute() == scores.compute()
    results = json.loads(path.read_text())
    assert {entry["category_id"] for entry in results} == {2, 3, 5, 90}
    assert all(entry.keys() == {"image_id", "category_id", "bbox", "score", "segmentation"} for entry in results)
    first = scores.found[results[0]["image_id"]]
    assert (results[0]["bbox"], results[0]["score"]) == (first.boxes[0].tolist(), first.scores[0])
    path.write_text(json.dumps([{key: entry[key] for key in entry if key != "segmentation"} for entry in results]))
    assert CocoScores.load(truth, path).compute() == {name: scores.compute()[name] for name in NAMES}
    path.write_text(json.dumps([{key: entry[key] for key in entry if key != "bbox"} for entry in results]))
    alone = CocoScores.load(truth, path).compute()
    assert alone["mask_ap"] == scores.compute()["mask_ap"]
    path.write_text("[]")
    assert CocoScores.load(truth, path).compute()["ap"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 4}, "entry 0 of .* must be of an image and a category"),
        ({"category_id": 1}, "entry 0"),
        ({"bbox": [1, 2, 3]}, "entry 0"),
        ({"score": float("nan")}, "entry 0"),
        ({"score": None}, "entry 0"),
        ({"segmentation": {"size": [3, 3], "counts": "9"}}, "size of the image, 200×240, got 3×3"),
    ],
)
def test_result_files_that_do_not_fit(truth, scores, tmp_path, change, message):
    path = tmp_path / "predictions.json"
    scores.save(path)
    results = json.loads(path.read_text())
    results[0].update(change)
    path.write_text(json.dumps(results))
    with pytest.raises(ValueError, match=message):
        CocoScores.load(truth, path)
    for text, message in (("{}", "must be a list of COCO results"), ("[", "cannot read")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            CocoScores.load(truth, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.full((2,), 5)}, "labels must be from 1 to 4, got 5 to 5"),
        ({"labels": torch.zeros(2, dtype=torch.int64)}, "got 0 to 0"),
        ({"boxes": torch.zeros(3, 4)}, r"boxes must be \[n, 4\]"),
        ({"masks": torch.zeros(2, 1, 28, 28)}, r"must be \[2, 200, 240\], got \[2, 28, 28\]"),
        ({"image_id": 6}, "image_ids must be of the set's images, got 6"),
    ],
)
def test_predictions_that_do_not_fit(truth, change, message):
    prediction = {"boxes": torch.zeros(2, 4), "labels": torch.ones(2, dtype=torch.int64), "scores": torch.ones(2),
                  "masks": torch.zeros(2, 1, HEIGHT, WIDTH)}  # fmt: skip
    change = dict(change)
    image_id = change.pop("image_id", 5)
    with pytest.raises(ValueError, match=message):
        CocoScores(truth, masks=True).update([{**prediction, **change}], [image_id])


def test_masks_must_be_there(truth):
    with pytest.raises(ValueError, match="predictions must have masks"):
        CocoScores(truth, masks=True).update([{"boxes": torch.zeros(0, 4), "scores": torch.zeros(0),
                                               "labels": torch.zeros(0)}], [5])  # fmt: skip
    with pytest.raises(ValueError, match="masks can't be scored"):
        CocoScores(DetectionSet([], ["a"], [1], has_masks=False), masks=True)


GATHER = """
import os, sys, torch
from torch import distributed
from leanconv.tasks.detection import CocoScores, open_detection

rank = int(sys.argv[2])
os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": sys.argv[3]}
distributed.init_process_group("gloo", rank=rank, world_size=2)
images = open_detection(sys.argv[1]).test
scores = CocoScores(images)
for index in range(rank, len(images), 2):
    target = images.target(index)
    scores.update([{**target, "scores": torch.ones(len(target["boxes"]))}], [target["image_id"]])
print(scores.compute()["ap"], len(scores.found))
distributed.destroy_process_group()
"""


def test_two_processes_gather_what_they_found(coco_folder, tmp_path):
    import socket
    import subprocess
    import sys

    from tasks.detection.conftest import annotation

    root = coco_folder(*([annotation()] for _ in range(20)))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    source = f"coco:{root / 'train'},{root / 'instances_train.json'}"
    commands = [[sys.executable, "-c", GATHER, source, str(rank), port] for rank in range(2)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    assert [process.communicate(timeout=120)[0] for process in running] == ["1.0 4\n"] * 2
