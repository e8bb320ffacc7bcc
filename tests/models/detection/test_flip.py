from __future__ import annotations

import pytest
import torch
from models.detection.small import detections, images, small
from torch import Tensor, nn

from leanconv.models.detection import FlipTest


class Finder(nn.Module):
    """Finds the bright rectangle of an image, and a constant box besides where one is given."""

    def __init__(self, constant: Tensor | None = None) -> None:
        super().__init__()
        self.constant = constant
        self.eval()

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        found = []
        for image in images:
            rows, columns = (image[0] > 0.5).nonzero().unbind(1)
            box = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
            boxes = box[None] if self.constant is None else torch.stack([box, self.constant])
            masks = (image[:1] > 0.5).float()[None].expand(len(boxes), -1, -1, -1)
            scores = torch.tensor([0.9, 0.6])[: len(boxes)]
            found.append({"boxes": boxes, "labels": torch.ones(len(boxes)).long(), "scores": scores, "masks": masks})
        return found


def bright(left: int, right: int) -> Tensor:
    image = torch.zeros(3, 20, 30)
    image[:, 4:10, left:right] = 1
    return image


def test_what_both_find_is_found_once():
    for image, box in ((bright(3, 9), [3, 4, 9, 10]), (bright(10, 20), [10, 4, 20, 10])):
        (found,) = FlipTest(Finder())([image])
        assert found["boxes"].tolist() == [box]
        assert found["scores"].tolist() == pytest.approx([0.9])
        assert torch.equal(found["masks"][0], image[:1])


def test_what_only_the_mirror_image_shows_is_mirrored_back():
    detector = Finder(torch.tensor([1.0, 12, 7, 19]))
    (found,) = FlipTest(detector)([bright(3, 9)])
    assert found["boxes"].tolist() == [[3, 4, 9, 10], [1, 12, 7, 19], [23, 12, 29, 19]]
    assert found["scores"].tolist() == pytest.approx([0.9, 0.6, 0.6])
    (few,) = FlipTest(detector, detections_per_img=2)([bright(3, 9)])
    assert few["boxes"].tolist() == [[3, 4, 9, 10], [1, 12, 7, 19]]
    (all_of_them,) = FlipTest(detector, nms_thresh=1.0)([bright(3, 9)])
    assert len(all_of_them["boxes"]) == 4


@pytest.mark.parametrize("kind", ["faster-rcnn", "mask-rcnn", "cascade-rcnn", "retinanet"])
def test_a_symmetric_image_gives_symmetric_detections(kind):
    """Both runs see the same image, so with nothing filtered each box comes with its mirror image."""
    network = small(kind, score_thresh=0.0, detections_per_img=6).eval()
    half = torch.rand(3, 64, 40)
    image = torch.cat([half, half.flip(-1)], 2)
    with torch.no_grad():
        (plain,) = network([image])
        (found,) = FlipTest(network, nms_thresh=1.0)([image])
    boxes = plain["boxes"]
    flipped = torch.stack([80 - boxes[:, 2], boxes[:, 1], 80 - boxes[:, 0], boxes[:, 3]], 1)
    expected = sorted([*boxes.tolist(), *flipped.tolist()])
    assert len(expected) == 12
    assert sorted(found["boxes"].tolist()) == expected
    assert sorted(found["scores"].tolist()) == sorted(plain["scores"].tolist() * 2)
    if "masks" in plain:
        assert found["masks"].sum() == pytest.approx(2 * plain["masks"].sum())


def test_images_of_different_sizes():
    network = small("mask-rcnn", score_thresh=0.0).eval()
    with torch.no_grad():
        found = FlipTest(network, detections_per_img=12)(images())
    for each, plain, image in zip(found, detections(network), images(), strict=True):
        assert each.keys() == plain.keys()
        assert each["masks"].shape[2:] == image.shape[1:]
        assert torch.equal(each["scores"], each["scores"].sort(descending=True).values)


def test_it_is_for_evaluation():
    with pytest.raises(ValueError, match="detector must be in evaluation mode for a flip test"):
        FlipTest(small("faster-rcnn").train())(images())
    with pytest.raises(ValueError, match="nms_thresh must be from 0 to 1, got 2"):
        FlipTest(Finder(), nms_thresh=2)
    with pytest.raises(ValueError, match="detections_per_img must be a whole number of at least 1, got 0"):
        FlipTest(Finder(), detections_per_img=0)
