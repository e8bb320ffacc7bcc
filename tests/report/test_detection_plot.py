import pytest
import torch

from leanconv.report.detection_plot import Shown, detection_figure, drawn, places
from leanconv.report.pictures import png


def finds(boxes, labels, scores=None, masks=None):
    found = {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }
    if scores is not None:
        found["scores"] = torch.tensor(scores)
    if masks is not None:
        found["masks"] = masks
    return found


IMAGE = torch.full((3, 90, 120), 128, dtype=torch.uint8)
TRUTH = finds([[10, 10, 40, 40], [50, 20, 110, 80]], [1, 2])
FOUND = finds([[12, 10, 40, 42], [0, 0, 30, 30], [50, 20, 110, 80]], [1, 2, 2], [0.9, 0.2, 0.7])


def test_the_truth_and_each_model_have_a_column():
    figure = detection_figure([Shown(IMAGE, TRUTH, {"dense": FOUND, "tied": FOUND})] * 2, ["cat", "dog"], ink="black")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["truth", "dense", "tied", "", "", ""]
    frames = [[patch.get_bbox().extents.tolist() for patch in axes.patches] for axes in figure.axes[:2]]
    assert frames == [[[50, 20, 110, 80], [10, 10, 40, 40]], [[12, 10, 40, 42], [50, 20, 110, 80]]]
    assert [text.get_text() for text in figure.axes[1].texts] == ["cat 0.90", "dog 0.70"]
    assert figure.axes[1].get_xlabel() == "2 found with a score of 0.5 or more"
    colours = [{patch.get_edgecolor() for patch in axes.patches} for axes in figure.axes]
    assert colours[0] == colours[1]
    assert len(colours[0]) == 2


def test_what_is_not_drawn_is_counted():
    figure = detection_figure([Shown(IMAGE, TRUTH, {"dense": FOUND})], ["cat", "dog"], least=0.1, most=2, ink="black")
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels == ["2 instances", "3 found with a score of 0.1 or more, the surest 2 drawn"]
    assert len(figure.axes[1].patches) == 2


def test_a_single_category_is_not_named():
    truth, found = finds([[10, 10, 60, 60]], [1]), finds([[10, 10, 60, 60]], [1], [0.9])
    figure = detection_figure([Shown(IMAGE, truth, {"dense": found})], ["cell"], ink="black")
    assert [[text.get_text() for text in axes.texts] for axes in figure.axes] == [[], ["0.90"]]


def test_masks_colour_what_they_cover():
    masks = torch.zeros(1, 1, 90, 120)
    masks[:, :, 20:60, 30:70] = 0.8
    shown = Shown(IMAGE, finds([[30, 20, 70, 60]], [1], masks=masks[:, 0].round()), {
        "dense": finds([[30, 20, 70, 60]], [1], [0.9], masks)})  # fmt: skip
    figure = detection_figure([shown], ["cat"], ink="black")
    for axes in figure.axes:
        pixels = axes.images[0].get_array()
        grey = (abs(pixels - 128 / 255) < 1e-3).all(axis=2)
        assert grey.sum() == 90 * 120 - 40 * 40
        assert not grey[20:60, 30:70].any()
    assert png(figure)


def test_nothing_found_and_too_much_found():
    nothing = finds([], [], [])
    detection_figure([Shown(IMAGE, finds([], []), {"dense": nothing})], ["cat"], ink="black").draw_without_rendering()
    assert drawn(FOUND, least=0.0, most=2)["labels"].tolist() == [1, 2]
    assert drawn(FOUND, least=0.0, most=2)["scores"].tolist() == pytest.approx([0.9, 0.7])


def test_names_hide_no_other_name():
    spots = places(["person 0.90"] * 4, [[10, 30, 60, 80]] * 4, 4, 120, 90)
    assert len(set(spots)) == 4
    assert places(["person 0.90"] * 9, [[10, 30, 60, 80]] * 9, 4, 120, 90)[8] is None
    assert places(["person 0.90"], [[10, 30, 14, 34]], 4, 120, 90) == [None]
    [(left, top, right, bottom)] = places(["cat"], [[110, -5, 130, 90]], 4, 120, 90)
    assert 0 <= left < right <= 120
    assert 0 <= top < bottom <= 90


def test_rows_must_be_of_the_same_models():
    for rows in ([], [Shown(IMAGE, TRUTH, {"a": FOUND}), Shown(IMAGE, TRUTH, {})]):
        with pytest.raises(ValueError, match="rows must be at least one"):
            detection_figure(rows, ["cat", "dog"], ink="black")
