import csv
import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leanconv.tasks.detection import CocoScores, DetectionSet, overlap_ratio, study_occlusion
from leanconv.tasks.detection import rle as run_lengths
from leanconv.tasks.detection.occlusion import ratio_of
from leanconv.tasks.detection.scenes import Instance, scene


def masks_of(boxes, size=12):
    masks = torch.zeros(len(boxes), size, size, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 1
    return masks


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([], 0),
        ([(0, 0, 4, 4)], 0),
        ([(0, 0, 4, 4), (4, 0, 8, 4)], 0),  # side by side
        ([(0, 0, 4, 4), (0, 0, 4, 4)], 1),
        ([(0, 0, 4, 4), (2, 0, 6, 4)], 16 / 32),  # 8 of 16 and 8 of 16
        ([(0, 0, 10, 10), (2, 2, 4, 4)], 8 / 104),  # 4 of 100 and 4 of 4
        ([(0, 0, 4, 4), (2, 0, 6, 4), (8, 8, 12, 12)], 16 / 48),
        ([(0, 0, 4, 4)] * 3, 1),
        ([(2, 2, 5, 5), (3, 3, 6, 6), (3, 2, 5, 4)], 14 / 22),  # 2 pixels of all three, 2 + 2 of two: 3·2 + 2·4
        ([(0, 0, 4, 1), (2, 0, 6, 1), (3, 0, 4, 1)], 5 / 9),  # at 2 two, at 3 all three: 2 of 4, 2 of 4, 1 of 1
        ([(0, 0, 6, 1), (0, 0, 2, 1), (4, 0, 6, 1)], 8 / 10),  # each pair that overlaps shares 2
    ],
)
def test_ratios_by_hand(boxes, expected):
    found = overlap_ratio(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    assert found == pytest.approx(expected, abs=1e-12)
    assert overlap_ratio(masks_of(boxes)) == pytest.approx(expected, abs=1e-12)


def test_fractions_of_pixels_count():
    assert overlap_ratio(torch.tensor([[0, 0, 1, 0.5], [0.25, 0, 1.25, 0.5]])) == pytest.approx(0.75, abs=1e-7)


def test_many_boxes_take_no_time_and_gradients_do_no_harm():
    corners = torch.rand(1000, 2, generator=torch.Generator().manual_seed(0)) * 500
    boxes = torch.cat([corners, corners + 20], 1).round().requires_grad_()
    begin = time.perf_counter()
    found = overlap_ratio(boxes)
    assert time.perf_counter() - begin < 5
    counts = torch.zeros(520, 520)
    for left, top, right, bottom in boxes.int().tolist():
        counts[top:bottom, left:right] += 1
    assert found == pytest.approx((counts[counts >= 2].sum() / counts.sum()).item(), abs=1e-6)


SPANS = st.tuples(st.integers(0, 11), st.integers(0, 11)).map(sorted).filter(lambda span: span[0] < span[1])
BOXES = st.tuples(SPANS, SPANS).map(lambda spans: (spans[0][0], spans[1][0], spans[0][1], spans[1][1]))


@given(st.lists(BOXES, max_size=6))
def test_boxes_on_whole_pixels_are_as_their_masks(boxes):
    found = overlap_ratio(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    assert found == pytest.approx(overlap_ratio(masks_of(boxes)), abs=1e-12)
    assert 0 <= found <= 1


@pytest.mark.parametrize("shape", [(3,), (2, 5), (1, 1, 2, 2)])
def test_what_is_neither_is_refused(shape):
    with pytest.raises(ValueError, match=r"boxes \[n, 4\] or masks"):
        overlap_ratio(torch.zeros(shape))


def scene_with(image_id, *boxes, crowd=()):
    instances = [
        Instance("", tuple(map(float, box)), 1, crowd=box in crowd, segmentation=run_lengths.encoded(mask.numpy()))
        for box, mask in zip(boxes, masks_of(boxes), strict=True)
    ]
    return scene(image_id, Path(f"{image_id}.png"), (12, 12), instances, [])


def test_crowd_regions_are_left_out():
    crowd = (0, 0, 12, 12)
    made = scene_with(1, (0, 0, 4, 4), (2, 0, 6, 4), crowd, crowd=[crowd])
    assert [ratio_of(made, shapes) for shapes in ("boxes", "masks")] == [0.5, 0.5]


# Ratios 0, 0, 0.5, 0.5, 1 and, with nothing in it, 0.
SCENES = [
    scene_with(1, (0, 0, 4, 4)),
    scene_with(2, (0, 0, 4, 4), (4, 4, 8, 8)),
    scene_with(3, (0, 0, 4, 4), (2, 0, 6, 4)),
    scene_with(4, (0, 0, 4, 4), (0, 2, 4, 6)),
    scene_with(5, (0, 0, 4, 4), (0, 0, 4, 4)),
    scene_with(6),
]
IMAGES = DetectionSet(SCENES, ["thing"], [1], has_masks=True)


def model(*missed, masks=False):
    """Finds everything but in some images."""
    scores = CocoScores(IMAGES, masks=masks)
    for index, each in enumerate(SCENES):
        if each.image_id not in missed:
            target = IMAGES.target(index)
            scores.update([{**target, "scores": torch.ones(len(target["boxes"]))}], [each.image_id])
    return scores


def test_scores_by_bins_and_above_thresholds(tmp_path):
    steps = []
    study = study_occlusion(
        {"good": model(), "poor": model(3, 5)}, source="things", edges=(0, 0.5, 1),
        step=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert study.ratios == (0, 0, 0.5, 0.5, 1, 0)
    assert [(group.images, group.instances) for group in study.bins] == [(3, 3), (3, 6)]
    assert [(group.images, group.instances) for group in study.thresholds] == [(6, 9), (3, 6)]
    assert [group.scores["good"]["ap75"] for group in (*study.bins, *study.thresholds)] == [1, 1, 1, 1]
    recalled = [1, 2 / 6, 5 / 9, 2 / 6]
    for group, share in zip((*study.bins, *study.thresholds), recalled, strict=True):
        assert group.scores["poor"]["ap"] == math.floor(100 * share + 1) / 101  # precision 1 up to that recall
        assert group.few
    assert study.thresholds[0].scores["poor"] == model(3, 5).compute()
    assert steps[-1] == (6 + 2 * 4,) * 2
    rows = study.table().rows
    assert [row[0] for row in rows[::2]] == ["0 to 0.5*", "0.5 to 1*", "all*", "r ≥ 0.5*"]
    assert rows[2][1:] == ["good", 3, 6, "100.0", "100.0"]
    assert rows[3][1:] == ["poor", 3, 6, "33.7 (-66.3)", "33.7 (-66.3)"]
    assert "measured on boxes" in str(study)
    study.save(tmp_path / "study.csv")
    with open(tmp_path / "study.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 8
    assert list(table[5].values())[:5] == ["poor", "0.5", "1", "3", "6"]
    assert float(table[5]["ap75"]) == pytest.approx(34 / 101)


def test_images_without_predictions_are_told():
    notes = study_occlusion({"good": model(), "poor": model(3, 5)}).table().notes
    assert [note for note in notes if "no prediction" in note] == ["poor: 2 of 6 images have no prediction"]


def test_an_empty_bin_has_no_scores():
    study = study_occlusion({"good": model()}, edges=(0, 0.1, 0.2, 1))
    assert [group.images for group in study.bins] == [3, 0, 3]
    assert np.isnan(study.bins[1].scores["good"]["ap"])
    assert [row[0] for row in study.table().rows] == ["0 to 0.1*", "0.2 to 1*", "all*", "r ≥ 0.1*", "r ≥ 0.2*"]


def test_masks_are_scored_when_all_models_have_them():
    study = study_occlusion({"a": model(masks=True), "b": model(masks=True)}, shapes="masks")
    assert study.measures == ("ap", "ap75", "mask_ap", "mask_ap75")
    assert study.ratios == (0, 0, 0.5, 0.5, 1, 0)
    assert study_occlusion({"a": model(masks=True), "b": model()}).measures == ("ap", "ap75")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": {}}, "models must be at least one"),
        ({"shapes": "circles"}, "shapes must be boxes or masks"),
        ({"edges": (0, 0.5)}, "edges must ascend from 0 to 1, got 0, 0.5"),
        ({"edges": (0, 0.5, 0.5, 1)}, "edges must ascend"),
        ({"edges": (0.5, 1)}, "edges must ascend"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        study_occlusion(**{"models": {"good": model()}, **arguments})


def test_models_must_have_seen_the_same_images():
    other = CocoScores(DetectionSet(SCENES[:2], ["thing"], [1], has_masks=False))
    with pytest.raises(ValueError, match="the same images"):
        study_occlusion({"good": model(), "other": other})
    with pytest.raises(ValueError, match="the images have none"):
        study_occlusion({"other": other}, shapes="masks")
