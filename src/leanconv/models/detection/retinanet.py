"""RetinaNet with labels from 1, as the other detectors have them."""

from __future__ import annotations

from torch import Tensor
from torchvision.models.detection import retinanet
from torchvision.ops import remove_small_boxes

from leanconv.models.detection.cascade import SMALLEST


class RetinaNet(retinanet.RetinaNet):
    """torchvision's RetinaNet, whose classes 0 to K - 1 are labels 1 to K in targets and detections.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv 1708.02002. It has no background class, and
    without the shift it would score a class that no object has. What lies outside the image is left out, as the other
    detectors do: cut at its edges, nothing remains.
    """

    def compute_loss(
        self, targets: list[dict[str, Tensor]], head_outputs: dict[str, Tensor], anchors: list[Tensor]
    ) -> dict[str, Tensor]:
        shifted = [target | {"labels": target["labels"] - 1} for target in targets]
        return super().compute_loss(shifted, head_outputs, anchors)

    def postprocess_detections(
        self,
        head_outputs: dict[str, list[Tensor]],
        anchors: list[list[Tensor]],
        image_shapes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        found = super().postprocess_detections(head_outputs, anchors, image_shapes)
        shifted = [detection | {"labels": detection["labels"] + 1} for detection in found]
        kept = [remove_small_boxes(detection["boxes"], SMALLEST) for detection in shifted]
        return [{name: values[rows] for name, values in detection.items()}
                for detection, rows in zip(shifted, kept, strict=True)]
