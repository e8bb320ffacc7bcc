"""Detectors, images and targets small enough to run in a moment."""

from __future__ import annotations

from typing import Any

import torch
from models.small_resnet import randomised
from torch import Tensor, nn

from leanconv.models.detection import detector

FEW_REGIONS = {"rpn_post_nms_top_n_train": 40, "rpn_post_nms_top_n_test": 40, "box_batch_size_per_image": 24}


class Body(nn.Module):
    """Feature maps at strides 4, 8, 16 and 32, each by a convolution, a norm and a ReLU."""

    def __init__(self, channels: tuple[int, ...] = (8, 12, 16, 20)) -> None:
        super().__init__()
        wide = (3, *channels)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, 2, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                *[nn.MaxPool2d(2)] * (index == 0),
            )
            for index, (before, after) in enumerate(zip(wide, channels, strict=False))
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [images]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]


def small(kind: str, num_classes: int = 3, body: Any = None, **options: Any) -> Any:
    """A detector for images of 64 pixels, with random norms in its backbone."""
    torch.manual_seed(0)
    body = randomised(Body()) if body is None else body
    settings = {"channels": 16, "min_size": 64, "max_size": 96, "anchor_size": 8, "detections_per_img": 12}
    return detector(kind, body, num_classes, **settings | ({} if kind == "retinanet" else FEW_REGIONS) | options)


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, 60, 80, generator=generator), torch.rand(3, 64, 50, generator=generator)]


def targets(classes: tuple[int, int, int] = (1, 3, 2)) -> list[dict[str, Tensor]]:
    """Two objects in the first image and one in the second, with masks that fill their boxes."""
    boxes = [torch.tensor([[4.0, 6, 40, 50], [30, 10, 75, 30]]), torch.tensor([[10.0, 20, 44, 60]])]
    labels = torch.tensor(classes).split([2, 1])
    found = []
    for each, label, image in zip(boxes, labels, images(), strict=True):
        masks = torch.zeros(len(each), *image.shape[1:], dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(masks, each.int().tolist(), strict=True):
            mask[top:bottom, left:right] = 1
        found.append({"boxes": each, "labels": label, "masks": masks})
    return found


def losses(network: nn.Module, found: list[dict[str, Tensor]], seed: int = 3) -> dict[str, Tensor]:
    """A detector's losses, with the same samples each time."""
    torch.manual_seed(seed)
    return network.train()(images(), found)


def detections(network: nn.Module) -> list[dict[str, Tensor]]:
    with torch.no_grad():
        return network.eval()(images())
