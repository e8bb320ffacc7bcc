"""Cascade R-CNN: region heads one after the other, each trained on the boxes of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss, maskrcnn_inference
from torchvision.ops import clip_boxes_to_image, remove_small_boxes

HIDDEN = 1024  # features of a region
SMALLEST = 1e-2  # side of a box in pixels, below which it is dropped

Sizes = list[tuple[int, int]]


@dataclass(frozen=True)
class Stage:
    """One stage of a cascade.

    Args:
        iou: overlap with an object from which a proposal counts as that object in training.
        weights: of the regression of a box's centre x, centre y, width and height.
        loss_weight: of the stage's losses in the sum.
    """

    iou: float
    weights: tuple[float, float, float, float]
    loss_weight: float


STAGES = (
    Stage(0.5, (10.0, 10.0, 5.0, 5.0), 1.0),
    Stage(0.6, (20.0, 20.0, 10.0, 10.0), 0.5),
    Stage(0.7, (30.0, 30.0, 15.0, 15.0), 0.25),
)


class ClassAgnosticPredictor(FastRCNNPredictor):
    """Scores of the classes and one box regression for all of them, which is returned once for each class.

    Args:
        in_channels: features of a region.
        num_classes: with the background.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.bbox_pred = nn.Linear(in_channels, 4)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        logits, regression = super().forward(features)
        return logits, regression.repeat(1, logits.shape[1])


class CascadeRoIHeads(nn.Module):
    """The region heads of a Cascade R-CNN, in the place of torchvision's `RoIHeads`.

    Cai & Vasconcelos, "Cascade R-CNN: Delving into High Quality Object Detection", CVPR 2018, arXiv 1712.00726.
    Each stage refines the boxes of the one before. In training, each stage appends the objects' own boxes to those that
    it is given, takes a sample by its own threshold, and passes the refined sample on, without gradients. At inference
    a box keeps its place through the stages, its scores are the mean of the stages' probabilities, and its
    coordinates are the last stage's. Masks, where there is a mask head, are of the last stage's boxes.

    A stage whose regression is each class's own refines a background box by the foreground class of the best score.

    Args:
        stages: with one stage this is the `RoIHeads` itself. Only the last one may have a mask head.
        loss_weights: of each stage's losses in the sum; a mask loss is not weighted.
    """

    stages: Any

    def __init__(self, stages: Sequence[RoIHeads], loss_weights: Sequence[float]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.loss_weights = tuple(loss_weights)

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: Sizes,
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Detections in evaluation mode; in training mode losses, those of stage 2 as "loss_classifier_2" and so on."""
        if self.training:
            return [], self.losses(features, proposals, image_shapes, targets)
        return self.detections(features, proposals, image_shapes), {}

    def losses(
        self, features: dict[str, Tensor], proposals: list[Tensor], image_shapes: Sizes, targets: object
    ) -> dict[str, Tensor]:
        found = []
        *earlier, final = self.stages
        for stage in earlier:
            sample, _, labels, wanted = stage.select_training_samples(proposals, targets)
            logits, regression = predict(stage, features, sample, image_shapes)
            classifier, box = fastrcnn_loss(logits, regression, labels, wanted)
            found.append({"loss_classifier": classifier, "loss_box_reg": box})
            classes = torch.cat(labels)
            classes = torch.where(classes > 0, classes, best_object(logits))
            refined = refine(stage, regression, classes, sample, image_shapes)
            proposals = [boxes[remove_small_boxes(boxes, SMALLEST)] for boxes in refined]
        _, last = final(features, proposals, image_shapes, targets)
        masks = {"loss_mask": last.pop("loss_mask")} if "loss_mask" in last else {}
        return masks | {
            f"{name}_{number}": weight * loss
            for number, (weight, losses) in enumerate(zip(self.loss_weights, [*found, last], strict=True), 1)
            for name, loss in losses.items()
        }

    def detections(
        self, features: dict[str, Tensor], proposals: list[Tensor], image_shapes: Sizes
    ) -> list[dict[str, Tensor]]:
        last: RoIHeads = self.stages[-1]
        logarithms = []
        for stage in self.stages:
            logits, regression = predict(stage, features, proposals, image_shapes)
            logarithms.append(F.log_softmax(logits, 1))
            if stage is not last:
                proposals = refine(stage, regression, best_object(logits), proposals, image_shapes)
        mean = torch.stack(logarithms).logsumexp(0)  # the softmax that follows divides by the number of stages
        boxes, scores, labels = last.postprocess_detections(mean, regression, proposals, image_shapes)
        found = [dict(zip(("boxes", "labels", "scores"), each, strict=True))
                 for each in zip(boxes, labels, scores, strict=True)]
        if last.has_mask():
            logits = last.mask_predictor(last.mask_head(last.mask_roi_pool(features, boxes, image_shapes)))
            for detection, masks in zip(found, maskrcnn_inference(logits, labels), strict=True):
                detection["masks"] = masks
        return found


def cascade_heads(
    heads: RoIHeads, channels: int, num_classes: int, *, stages: Sequence[Stage] = STAGES, class_agnostic: bool = True
) -> CascadeRoIHeads:
    """A cascade that pools regions and filters detections as given heads do; their mask head becomes the last stage's.

    Args:
        heads: their box head and predictor aren't used.
        channels: of the feature maps.
        num_classes: with the background.
        stages: from the first to the last.
        class_agnostic: one box regression for all classes, as in the paper, or one for each.

    Raises:
        ValueError: there are no stages.
    """
    if not stages:
        raise ValueError("stages must be at least one, got none")
    predictor = ClassAgnosticPredictor if class_agnostic else FastRCNNPredictor
    height, width = heads.box_roi_pool.output_size
    built = [
        RoIHeads(
            heads.box_roi_pool, TwoMLPHead(channels * height * width, HIDDEN), predictor(HIDDEN, num_classes),
            stage.iou, stage.iou, heads.fg_bg_sampler.batch_size_per_image, heads.fg_bg_sampler.positive_fraction,
            stage.weights, heads.score_thresh, heads.nms_thresh, heads.detections_per_img,
        )
        for stage in stages
    ]
    for part in ("mask_roi_pool", "mask_head", "mask_predictor"):
        setattr(built[-1], part, getattr(heads, part))
    return CascadeRoIHeads(built, [stage.loss_weight for stage in stages])


def predict(
    stage: RoIHeads, features: dict[str, Tensor], boxes: list[Tensor], image_shapes: Sizes
) -> tuple[Tensor, Tensor]:
    """The logits (R, K + 1) and box regressions (R, 4 (K + 1)) of all images' boxes."""
    return stage.box_predictor(stage.box_head(stage.box_roi_pool(features, boxes, image_shapes)))


def best_object(logits: Tensor) -> Tensor:
    """The class with the best score, the background aside."""
    return logits[:, 1:].argmax(1) + 1


def refine(
    stage: RoIHeads, regression: Tensor, classes: Tensor, boxes: list[Tensor], image_shapes: Sizes
) -> list[Tensor]:
    """The boxes, each moved by the regression of its class and cut at the image's edges."""
    number = len(classes)
    moved = stage.box_coder.decode(regression.detach(), boxes).reshape(number, regression.shape[1] // 4, 4)
    chosen = moved[torch.arange(number, device=moved.device), classes].split([len(each) for each in boxes])
    return [clip_boxes_to_image(each, shape) for each, shape in zip(chosen, image_shapes, strict=True)]
