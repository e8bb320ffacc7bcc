import re

import numpy as np
import pytest
import torch

from leanconv.measure.evidence import Evidence
from leanconv.report.cam_plot import (
    COLOURS,
    SIDE,
    STRENGTH,
    Look,
    cam_figure,
    cam_picture,
    how_to_read,
    overlay,
    pattern_picture,
    summary,
)
from leanconv.tasks.data.images import ArrayImages

CLASSES = ("cat", "dog", "a very long name")


def look(chosen=(0, 1), labels=(0, 0), *, classes=CLASSES, guided=False, layer="layer4"):
    pixels = torch.randint(0, 256, (len(chosen), 3, 8, 8), dtype=torch.uint8)
    patterns = torch.randn(len(chosen), 3, 8, 8) if guided else None
    found = Evidence(layer, torch.tensor(chosen), torch.tensor([0.75, 0.5]), torch.rand(2, 2, 2), patterns)
    return Look(ArrayImages(pixels, torch.tensor(labels), (0.5,) * 3, (0.5,) * 3), classes, found)


def written(figure):
    return [text.get_text() for text in figure.texts if text.get_text()]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 300])
def test_an_overlay_is_the_grey_image_below_the_colours_of_the_map(channels, size):
    pixels = torch.randint(0, 256, (channels, size, size), dtype=torch.uint8)
    map = torch.tensor([[0.0, 1.0], [2.0, 4.0]])
    laid = overlay(pixels, map)
    side = size * max(1, -(-SIDE // size))
    assert laid.shape == (side, side, 3)
    assert laid.dtype == np.uint8
    # At the corners bilinear interpolation gives the map's own values.
    for (row, column), value in {(0, 0): 0.0, (0, -1): 1.0, (-1, 0): 2.0, (-1, -1): 4.0}.items():
        grey = pixels[:, row, column].double().mean().item() / 255
        expected = 255 * ((1 - STRENGTH) * (0.15 + 0.7 * grey) + STRENGTH * np.array(COLOURS(value / 4.0)[:3]))
        np.testing.assert_allclose(laid[row, column], expected, atol=1)


def test_small_pixels_stay_squares_and_the_map_is_smooth():
    pixels = torch.zeros(1, 8, 8, dtype=torch.uint8)
    pixels[0, 2, 3] = 255
    side = SIDE // 8
    flat = overlay(pixels, torch.zeros(2, 2)).astype(int)
    lit = flat.sum(2) > flat.sum(2).min()
    assert lit[2 * side : 3 * side, 3 * side : 4 * side].all()
    assert lit.sum() == side**2
    smooth = overlay(torch.zeros(1, 8, 8, dtype=torch.uint8), torch.tensor([[0.0, 1.0]])).astype(int)
    assert abs(np.diff(smooth, axis=1)).max() < 8


def test_the_zero_of_a_pattern_is_grey_and_its_largest_value_an_end():
    pattern = torch.zeros(1, SIDE, SIDE)
    pattern[0, 0, 0], pattern[0, 0, 1] = -2.0, 1.0
    shown = np.round(255 * pattern_picture(pattern))[0, :3, 0]
    assert shown.tolist() == [0, 191, 128]
    assert np.isfinite(pattern_picture(torch.zeros(3, 4, 4))).all()


def test_the_panel_says_class_probability_and_whether_right():
    figure = cam_figure({"dense": look(), "tied:blocks=2": look((2, 0))}, rows=2, ink="black")
    assert len(figure.axes) == 2 * 3
    assert sorted(written(figure)) == sorted(["image", "dense", "tied:blocks=2", "cat", "cat", "✓ cat  0.75",
                                              "✗ dog  0.50", "✗ a very long…  0.75", "✓ cat  0.50"])  # fmt: skip
    weights = {text.get_text(): text.get_weight() for text in figure.texts}
    assert weights["✗ dog  0.50"] == "bold"
    assert weights["✓ cat  0.75"] == "normal"


def test_without_labels_or_with_a_class_of_the_users_none_is_right_or_wrong():
    for options in ({"judged": False}, {"labels": (-1, -1)}):
        judged = options.pop("judged", True)
        looks = {"dense": look(**options, classes=(), guided=True)}
        figure = cam_figure(looks, rows=2, judged=judged, ink="black")
        assert {"0  0.75", "1  0.50", "guided backprop"} <= set(written(figure))
        assert len(figure.axes) == 2 * 3
        assert not any("✓" in text or "✗" in text for text in written(figure))
        assert summary(looks, judged=judged) == "Grad-CAM of dense in 2 images."
        assert "Guided backpropagation" in how_to_read(looks, judged=judged)


def test_no_text_touches_another():
    names = ["dense", "asymmetric", "tied-blocks-2/seed-0/of/a/long/path"]
    figure = cam_figure({name: look((2, 2)) for name in names}, rows=2, ink="black")
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.texts if text.get_text()]
    boxes += [axes.get_window_extent() for axes in figure.axes]
    for index, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
        assert not any(box.padded(-1).overlaps(other.padded(-1)) for other in boxes[index + 1 :])


def test_the_picture_holds_its_rasters_and_is_no_wider_than_they_allow():
    picture = cam_picture({"dense": look()}, "Class activation maps", rows=2)
    assert picture.svg.count("data:image/png;base64,") == 4
    links = re.findall(r'href="([^"]{,22})', picture.svg)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert re.match(r'<svg style="max-width: [\d.]+in" ', picture.svg)


def test_it_is_said_how_many_are_right_and_where_was_looked():
    looks = {"dense": look(), "tied": look((2, 1), layer="stage")}
    assert summary(looks) == "Of 2 images dense gets 1 right, tied gets 0 right."
    assert "Grad-CAM of layer4 in dense, stage in tied, each" in how_to_read(looks)
    assert "Grad-CAM of layer4, each" in how_to_read({"dense": look()})
