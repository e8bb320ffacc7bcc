"""What a training step and a test step are, for detectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from leanconv.models.detection import FlipTest
from leanconv.tasks.detection.data import DetectionSet
from leanconv.tasks.detection.scores import CocoScores
from leanconv.tasks.detection_recipe import DetectionRecipe
from leanconv.tasks.learner import Learner

Target = dict[str, Any]


class Pictures:
    """Annotated images in batches, as detectors take them: float images in 0 to 1, each of its own size.

    Args:
        images: the set.
        flip: whether each is mirrored by chance.
    """

    def __init__(self, images: DetectionSet, *, flip: bool) -> None:
        self.images = images
        self.flip = flip

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Sequence[int], /) -> tuple[list[Tensor], list[Target]]:
        pairs = [self.images[index] for index in indices]
        mirror = torch.rand(len(pairs)) < 0.5 if self.flip else torch.zeros(len(pairs), dtype=torch.bool)
        pairs = [mirrored(*pair) if turn else pair for pair, turn in zip(pairs, mirror.tolist(), strict=True)]
        return [image / 255 for image, _ in pairs], [target for _, target in pairs]


def mirrored(image: Tensor, target: Target) -> tuple[Tensor, Target]:
    """An image and what is in it, left and right exchanged.

    >>> boxes = torch.tensor([[1.0, 0.0, 3.0, 2.0]])
    >>> mirrored(torch.zeros(3, 4, 10), {"boxes": boxes})[1]["boxes"].tolist()
    [[7.0, 0.0, 9.0, 2.0]]
    """
    left, top, right, bottom = target["boxes"].unbind(1)
    width = image.shape[-1]
    turned = {**target, "boxes": torch.stack([width - right, top, width - left, bottom], 1)}
    if "masks" in target:
        turned["masks"] = target["masks"].flip(-1)
    return image.flip(-1), turned


class Detection(Learner):
    """Trains a detector as a recipe says.

    Args:
        network: called as torchvision's detectors are.
        recipe: how to train it.
        test: the images that it is tested on.
        steps: batches in an epoch.
    """

    def __init__(self, network: nn.Module, recipe: DetectionRecipe, *, test: DetectionSet, steps: int) -> None:
        super().__init__(network, recipe, steps=steps)
        self.scores = CocoScores(test, masks=recipe.masks, detections=recipe.detections)

    def training_step(self, batch: tuple[list[Tensor], list[Target]]) -> Tensor:
        images, targets = batch
        loss = torch.stack(list(self.network(images, targets).values())).sum()
        self.losses.update(loss.detach(), len(images))
        return loss

    def validation_step(self, batch: tuple[list[Tensor], list[Target]]) -> None:
        images, targets = batch
        self.scores.update(finder(self.network, self.recipe)(images), [target["image_id"] for target in targets])

    def on_validation_epoch_end(self) -> None:
        found = self.scores.compute()
        self.tested = {name: None if math.isnan(value) else value for name, value in found.items()}
        self.tested["ap"] = found["ap"] if math.isfinite(found["ap"]) else 0.0  # of images without objects
        self.scores.reset()


def finder(network: nn.Module, recipe: DetectionRecipe) -> nn.Module:
    """The detector as it is tested: on mirrored images too, if a recipe wants that."""
    return FlipTest(network, detections_per_img=recipe.detections) if recipe.flip_test else network
