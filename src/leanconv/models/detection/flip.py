"""Detection on an image and its mirror image, merged."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from leanconv.nn.arguments import require_positive


class FlipTest(nn.Module):
    """Runs a detector on images and on their mirror images, and merges the detections of both.

    The mirror image's boxes and masks are mirrored back; then those of both are filtered like one detector's, by
    non-maximum suppression in each class, and the best are kept.

    Args:
        detector: in evaluation mode, a list of images to a list of {boxes, labels, scores[, masks]}.
        nms_thresh: overlap above which the detection of the lower score is dropped.
        detections_per_img: the most that are kept of an image.

    Raises:
        ValueError: for an overlap outside 0 to 1 or a number of detections below 1; in `forward`, in training mode.
    """

    def __init__(self, detector: nn.Module, *, nms_thresh: float = 0.5, detections_per_img: int = 100) -> None:
        super().__init__()
        if not 0 <= nms_thresh <= 1:
            raise ValueError(f"nms_thresh must be from 0 to 1, got {nms_thresh}")
        require_positive(detections_per_img=detections_per_img)
        self.detector, self.nms_thresh, self.detections_per_img = detector, nms_thresh, detections_per_img
        self.training = detector.training

    def forward(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        if self.detector.training:
            raise ValueError("detector must be in evaluation mode for a flip test, got one in training mode")
        plain = self.detector(list(images))
        flipped = self.detector([image.flip(-1) for image in images])
        return [self.merged(found, mirrored(other, image.shape[-1]))
                for found, other, image in zip(plain, flipped, images, strict=True)]

    def merged(self, *found: dict[str, Tensor]) -> dict[str, Tensor]:
        every = {name: torch.cat([each[name] for each in found]) for name in found[0]}
        kept = batched_nms(every["boxes"], every["scores"], every["labels"], self.nms_thresh)
        return {name: values[kept[: self.detections_per_img]] for name, values in every.items()}


def mirrored(detections: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    """What was found in the mirror image of an image of some width, on the image itself."""
    left, top, right, bottom = detections["boxes"].unbind(1)
    there = {"boxes": torch.stack((width - right, top, width - left, bottom), 1)}
    return detections | there | {name: masks.flip(-1) for name, masks in detections.items() if name == "masks"}
