from __future__ import annotations

import pytest
import torch
from models.detection.small import detections, images, losses, small, targets
from torch import Tensor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import box_iou

from leanconv.models.detection import CascadeRoIHeads, Stage
from leanconv.models.detection.cascade import STAGES, ClassAgnosticPredictor

ONE = (Stage(0.5, (10.0, 10.0, 5.0, 5.0), 1.0),)


def pair(kind: str) -> tuple:
    """A one-stage cascade and torchvision's detector, with the same weights."""
    cascade = small(f"cascade-{kind}", stages=ONE, class_agnostic=False, score_thresh=0.0)
    plain = small("mask-rcnn" if kind == "mask-rcnn" else "faster-rcnn", score_thresh=0.0)
    weights = {name.replace("roi_heads.stages.0.", "roi_heads."): value for name, value in cascade.state_dict().items()}
    plain.load_state_dict(weights)
    return cascade, plain


@pytest.mark.parametrize("kind", ["rcnn", "mask-rcnn"])
def test_one_stage_is_torchvisions(kind):
    cascade, plain = pair(kind)
    for found, other in zip(detections(cascade), detections(plain), strict=True):
        assert found.keys() == other.keys()
        assert len(found["boxes"]) == 12
        for name, value in found.items():
            torch.testing.assert_close(value, other[name])
    ours, expected = losses(cascade, targets()), losses(plain, targets())
    assert {name.removesuffix("_1") for name in ours} == expected.keys()
    for name, loss in ours.items():
        assert torch.equal(loss, expected[name.removesuffix("_1")])


def heads(**options) -> CascadeRoIHeads:
    network = small("cascade-rcnn", score_thresh=0.0, nms_thresh=1.0, detections_per_img=10_000, **options)
    for stage in network.roi_heads.stages:
        for weight in stage.box_predictor.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    return network.roi_heads.eval()


def features() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {str(index): torch.randn(2, 16, 64 // stride, 96 // stride, generator=generator)
            for index, stride in enumerate((4, 8, 16, 32))}


def proposals() -> list[Tensor]:
    return [torch.tensor([[4.0, 6, 40, 50], [30, 10, 75, 30], [0, 0, 20, 20]]), torch.tensor([[10.0, 20, 44, 60]])]


SHAPES = [(60, 80), (64, 50)]


def moved(box: Tensor, shift: Tensor, weights: tuple[float, ...], shape: tuple[int, int]) -> Tensor:
    """A box moved by a regression, one number after the other."""
    left, top, right, bottom = box.tolist()
    dx, dy, dw, dh = (value / weight for value, weight in zip(shift.tolist(), weights, strict=True))
    width, height = right - left, bottom - top
    x, y = left + width / 2 + dx * width, top + height / 2 + dy * height
    width, height = width * torch.tensor(dw).exp(), height * torch.tensor(dh).exp()
    edges = torch.tensor([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    rows, columns = shape
    return torch.minimum(edges.clamp(min=0), torch.tensor([columns, rows, columns, rows]))


@torch.no_grad()
def by_hand(cascade: CascadeRoIHeads, image: int) -> list[tuple[Tensor, Tensor]]:
    """Scores of each class and boxes for each class, box by box: by probability averaged, coordinates chained."""
    found = []
    for proposal in proposals()[image]:
        box, scores = proposal, []
        for number, (stage, setting) in enumerate(zip(cascade.stages, STAGES, strict=True)):
            boxes = [box[None] if index == image else box.new_zeros(0, 4) for index in range(2)]
            logits, shifts = stage.box_predictor(stage.box_head(stage.box_roi_pool(features(), boxes, SHAPES)))
            scores.append(logits[0].softmax(0))
            shifts = shifts[0].reshape(4, 4)
            if number < 2:
                box = moved(box, shifts[1 + logits[0, 1:].argmax()], setting.weights, SHAPES[image])
        last = torch.stack([moved(box, shift, setting.weights, SHAPES[image]) for shift in shifts])
        found.append((sum(scores) / 3, last))
    return found


@pytest.mark.parametrize("class_agnostic", [True, False])
def test_boxes_are_refined_stage_by_stage_and_scores_averaged(class_agnostic):
    cascade = heads(class_agnostic=class_agnostic)
    with torch.no_grad():
        found, _ = cascade(features(), proposals(), SHAPES)
    for image, each in enumerate(found):
        expected = [(label, scores[label], boxes[label])
                    for scores, boxes in by_hand(cascade, image) for label in (1, 2, 3)]
        expected.sort(key=lambda item: -item[1])
        assert len(each["boxes"]) == len(expected)
        assert each["labels"].tolist() == [label for label, _, _ in expected]
        torch.testing.assert_close(each["scores"], torch.stack([score for _, score, _ in expected]))
        torch.testing.assert_close(each["boxes"], torch.stack([box for _, _, box in expected]), rtol=1e-4, atol=1e-3)


def test_one_regression_serves_all_classes():
    predictor = ClassAgnosticPredictor(5, 4)
    assert predictor.bbox_pred.weight.shape == (4, 5)
    logits, shifts = predictor(torch.randn(3, 5))
    assert (logits.shape, shifts.shape) == ((3, 4), (3, 16))
    assert all(torch.equal(part, shifts[:, :4]) for part in shifts.split(4, 1))


@pytest.mark.parametrize("class_agnostic", [True, False])
def test_each_stage_learns_from_the_boxes_of_the_one_before(monkeypatch, class_agnostic):
    cascade = heads(class_agnostic=class_agnostic).train()
    truth = targets()
    given, sampled = [], []
    select = RoIHeads.select_training_samples

    def watched(self, boxes, wanted):
        given.append([each.clone() for each in boxes])
        sampled.append(select(self, boxes, wanted))
        return sampled[-1]

    monkeypatch.setattr(RoIHeads, "select_training_samples", watched)
    _, found = cascade(features(), proposals(), SHAPES, truth)
    assert list(found) == [f"{name}_{number}" for number in (1, 2, 3) for name in ("loss_classifier", "loss_box_reg")]
    assert len(given) == 3
    assert all(torch.equal(*each) for each in zip(given[0], proposals(), strict=True))
    for number in (0, 1):
        stage, (boxes, _, labels, _) = cascade.stages[number], sampled[number]
        with torch.no_grad():
            logits, shifts = stage.box_predictor(stage.box_head(stage.box_roi_pool(features(), boxes, SHAPES)))
        shifts = shifts.reshape(-1, 4, 4)
        row = 0
        for image in range(2):
            expected = []
            for box, label in zip(boxes[image], labels[image].tolist(), strict=True):
                best = label or 1 + int(logits[row, 1:].argmax())
                expected.append(moved(box, shifts[row, best], STAGES[number].weights, SHAPES[image]))
                row += 1
            kept = [box for box in expected if min(box[2] - box[0], box[3] - box[1]) >= 1e-2]
            torch.testing.assert_close(given[number + 1][image], torch.stack(kept), rtol=1e-4, atol=1e-3)
            assert not given[number + 1][image].requires_grad
    for setting, (boxes, matched, labels, _) in zip(STAGES, sampled, strict=True):
        for image in range(2):
            best, place = box_iou(truth[image]["boxes"], boxes[image]).max(0)
            right = torch.where(best >= setting.iou, truth[image]["labels"][place], 0)
            assert torch.equal(labels[image], right)
            assert torch.equal(matched[image][right > 0], place[right > 0])


def test_boxes_that_leave_the_image_are_not_passed_on(monkeypatch):
    cascade, given = heads().train(), []
    shift = cascade.stages[0].box_predictor.bbox_pred
    torch.nn.init.zeros_(shift.weight)
    shift.bias.data = torch.tensor([-100.0, 0, 0, 0])  # ten widths to the left
    select = RoIHeads.select_training_samples

    def watched(self, boxes, wanted):
        given.append([len(each) for each in boxes])
        return select(self, boxes, wanted)

    monkeypatch.setattr(RoIHeads, "select_training_samples", watched)
    _, found = cascade(features(), proposals(), SHAPES, targets())
    assert given[:2] == [[3, 1], [0, 0]]
    assert all(loss.isfinite() for loss in found.values())


def test_losses_are_weighted_by_stage_and_that_of_masks_is_not():
    found = losses(small("cascade-mask-rcnn"), targets())
    doubled = [Stage(stage.iou, stage.weights, factor * stage.loss_weight)
               for stage, factor in zip(STAGES, (2, 3, 5), strict=True)]
    other = losses(small("cascade-mask-rcnn", stages=doubled), targets())
    factors = {"_1": 2, "_2": 3, "_3": 5}
    assert found.keys() == other.keys()
    for name, loss in found.items():
        torch.testing.assert_close(other[name], factors.get(name[-2:], 1) * loss)
    plain = losses(small("cascade-mask-rcnn", stages=[Stage(s.iou, s.weights, 1.0) for s in STAGES]), targets())
    for number, weight in ((1, 1.0), (2, 0.5), (3, 0.25)):
        torch.testing.assert_close(found[f"loss_classifier_{number}"], weight * plain[f"loss_classifier_{number}"])


def test_the_papers_settings():
    cascade = small("cascade-mask-rcnn").roi_heads
    assert [stage.proposal_matcher.high_threshold for stage in cascade.stages] == [0.5, 0.6, 0.7]
    assert [stage.proposal_matcher.low_threshold for stage in cascade.stages] == [0.5, 0.6, 0.7]
    assert [stage.box_coder.weights for stage in cascade.stages] == [(10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15)]
    assert cascade.loss_weights == (1, 0.5, 0.25)
    assert [stage.has_mask() for stage in cascade.stages] == [False, False, True]
    assert all(isinstance(stage.box_predictor, ClassAgnosticPredictor) for stage in cascade.stages)
    storages = {weight.data_ptr() for stage in cascade.stages for weight in stage.parameters()}
    assert len(storages) == sum(len(list(stage.parameters())) for stage in cascade.stages)


def test_masks_are_of_the_detections():
    network = small("cascade-mask-rcnn", score_thresh=0.0, detections_per_img=5)
    for image, found in zip(images(), detections(network), strict=True):
        for box, mask in zip(found["boxes"], found["masks"][:, 0], strict=True):
            rows, columns = mask.nonzero().unbind(1)
            left, top, right, bottom = box.tolist()
            assert columns.min() >= left - 4
            assert columns.max() <= right + 4
            assert rows.min() >= top - 4
            assert rows.max() <= bottom + 4
        assert found["masks"].shape[2:] == image.shape[1:]


def test_an_image_without_proposals():
    cascade = heads()
    with torch.no_grad():
        found, _ = cascade(features(), [proposals()[0], torch.zeros(0, 4)], SHAPES)
        nothing, _ = cascade(features(), [torch.zeros(0, 4)] * 2, SHAPES)
    assert [len(each["boxes"]) for each in found] == [9, 0]
    assert [len(each["boxes"]) for each in nothing] == [0, 0]
