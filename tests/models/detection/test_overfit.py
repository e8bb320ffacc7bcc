from __future__ import annotations

import pytest
import torch
from models.detection.small import Body
from torch import Tensor, nn
from torchvision.ops import box_iou

from leanconv.models.detection import detector

SIDE = 96


def scene(seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Noise with one bright and one dark rectangle, which are two classes."""
    generator = torch.Generator().manual_seed(seed)
    image = 0.5 + 0.1 * torch.randn(3, SIDE, SIDE, generator=generator)
    boxes = []
    for column, value in ((0, 1.0), (SIDE // 2, 0.0)):
        width, height, left, top = (int(torch.randint(low, high, (), generator=generator))
                                    for low, high in ((16, 36), (20, 50), (2, 10), (2, 40)))
        boxes.append([column + left, top, column + left + width, top + height])
        image[:, top : top + height, column + left : column + left + width] = value
    return image.clamp(0, 1), {"boxes": torch.tensor(boxes).float(), "labels": torch.tensor([1, 2])}


def ap50(found: list[dict[str, Tensor]], truth: list[dict[str, Tensor]]) -> float:
    """Mean over the classes of the area under precision by recall, at an overlap of at least a half."""
    areas = []
    for label in (1, 2):
        ranked = sorted(((float(score), index, box) for index, each in enumerate(found)
                         for score, box, of in zip(each["scores"], each["boxes"], each["labels"], strict=True)
                         if of == label), key=lambda item: -item[0])
        left = {index: each["boxes"][each["labels"] == label] for index, each in enumerate(truth)}
        objects, hits, area = sum(map(len, left.values())), 0, 0.0
        for rank, (_, index, box) in enumerate(ranked, 1):
            overlaps = box_iou(box[None], left[index])[0]
            if len(overlaps) and overlaps.max() >= 0.5:
                hits += 1
                area += hits / rank / objects
                left[index] = left[index][torch.arange(len(overlaps)) != overlaps.argmax()]
        areas.append(area)
    return sum(areas) / len(areas)


def test_the_score_on_known_cases():
    truth = [{"boxes": torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]]), "labels": torch.tensor([1, 2])}]
    right = {"boxes": truth[0]["boxes"], "labels": truth[0]["labels"], "scores": torch.tensor([0.9, 0.8])}
    assert ap50([right], truth) == 1
    assert ap50([right | {"labels": torch.tensor([2, 1])}], truth) == 0
    twice = {name: torch.cat([value, value]) for name, value in right.items()}
    assert ap50([twice | {"scores": torch.tensor([0.9, 0.8, 0.7, 0.6])}], truth) == 1
    extra = {"boxes": torch.cat([torch.tensor([[80.0, 80, 90, 90]]), truth[0]["boxes"]]),
             "labels": torch.tensor([1, 1, 2]), "scores": torch.tensor([0.95, 0.9, 0.8])}
    assert ap50([extra], truth) == 0.75


@torch.no_grad()
def evaluated(network: nn.Module, images: list[Tensor]) -> list[dict[str, Tensor]]:
    return network.eval()(images)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["faster-rcnn", "cascade-rcnn"])
def test_four_images_are_learned(kind):
    torch.manual_seed(0)
    scenes = [scene(seed) for seed in range(4)]
    images, truth = [image for image, _ in scenes], [target for _, target in scenes]
    network = detector(
        kind, Body((16, 24, 32, 48)), 2, channels=16, min_size=SIDE, anchor_size=16,
        rpn_post_nms_top_n_train=100, rpn_post_nms_top_n_test=50, box_batch_size_per_image=48,
    )
    assert ap50(evaluated(network, images), truth) < 0.2
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3)
    for _ in range(60):
        loss = sum(network.train()(images, truth).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert ap50(evaluated(network, images), truth) > 0.9
