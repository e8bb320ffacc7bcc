"""Detection, as the parts that a training is put together from."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from leanconv.models.detection import detector, feature_network
from leanconv.models.weights import put
from leanconv.modes import evaluating
from leanconv.surgery import fuse
from leanconv.tasks.detection.data import DetectionInfo, of_recipe
from leanconv.tasks.detection.evaluation import evaluate
from leanconv.tasks.detection.learning import Detection, Pictures
from leanconv.tasks.detection_recipe import DetectionRecipe
from leanconv.tasks.feeding import Feed
from leanconv.tasks.networks import with_operator
from leanconv.tasks.seeding import seeded
from leanconv.tasks.task import Task

SIDE = 224  # of the image that an operator's layers are found with


def build_network(recipe: DetectionRecipe, info: DetectionInfo) -> nn.Module:
    """Builds a recipe's detector: the backbone, its first weights, the operator in it, then all around it.

    Weights may be of a detector trained earlier, or of a classifier, which the backbone is then a part of.

    Raises:
        ValueError: the backbone or its weights don't exist or don't fit, or the operator takes none of its layers.
    """
    from leanconv.tasks.checkpoint import load_weights, read, task_name

    config, tensors = ({}, {}) if recipe.weights is None else read(recipe.weights)
    classifier = bool(config) and task_name(config) == "classification"
    body = feature_network(recipe.backbone, pretrained=recipe.pretrained)
    if classifier and config["operator"] == "dense":
        put(body, {name: tensors[name] for name in body.state_dict() if name in tensors}, recipe.weights)
    body = with_operator(body, recipe.operator, recipe.where, torch.zeros(1, 3, SIDE, SIDE),
                         trained=recipe.pretrained or classifier)
    if classifier and config["operator"] != "dense":
        put(body, {name: tensors[name] for name in body.state_dict() if name in tensors}, recipe.weights)
    options: dict[str, Any] = {} if recipe.model == "retinanet" else {"box_batch_size_per_image": recipe.regions}
    network = detector(
        recipe.model,  # type: ignore[arg-type]
        body,
        len(info.categories),
        upsample=recipe.upsample,  # type: ignore[arg-type]
        norms=recipe.norms,  # type: ignore[arg-type]
        trainable_stages=recipe.trainable_stages,
        channels=recipe.channels,
        min_size=recipe.short_sides,
        max_size=recipe.long_side,
        anchor_size=recipe.anchor_size,
        **options,
    )
    if config and not classifier:
        load_weights(recipe.weights, network)  # type: ignore[arg-type]
    return network.train()


def check_runs(network: nn.Module, recipe: DetectionRecipe, info: DetectionInfo) -> None:
    """Runs a detector on one black image, to see that it can.

    Raises:
        ValueError: it can't.
    """
    side = recipe.short_sides[-1]
    try:
        with seeded(0), torch.no_grad(), evaluating(network):
            network([torch.zeros(3, side, side)])
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"backbone {recipe.backbone!r} can't run on images of 3×{side}×{side}: {error}") from error


def fused(network: nn.Module, example: Tensor, *, tied: str = "auto") -> nn.Module:
    """A detector with its backbone in its inference form."""
    inference: Any = copy.deepcopy(network).eval()
    inference.backbone.body = fuse(inference.backbone.body, example, tied=tied)
    return inference


TASK = Task(
    info=DetectionInfo,
    open_data=of_recipe,
    build_network=build_network,
    check_runs=check_runs,
    feed=lambda data, recipe: Feed(
        Pictures(data.train, flip=recipe.augment), Pictures(data.test, flip=False), recipe
    ),
    learner=lambda network, recipe, data, steps: Detection(network, recipe, test=data.test, steps=steps),
    shape=lambda recipe, info: (1, 3, recipe.short_sides[-1], recipe.short_sides[-1]),
    fuse=fused,
    evaluate=evaluate,
)
