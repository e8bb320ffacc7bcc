"""Detection, as the parts that a training is put together from."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from leanconv.models.detection import detector, feature_network
from leanconv.models.detection.detectors import normalisation
from leanconv.models.weights import put
from leanconv.modes import evaluating
from leanconv.surgery import fuse
from leanconv.tasks.detection.data import DetectionInfo, of_recipe
from leanconv.tasks.detection.evaluation import evaluate
from leanconv.tasks.detection.learning import Detection, Pictures
from leanconv.tasks.detection_recipe import DetectionRecipe
from leanconv.tasks.devices import chosen_accelerator
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
        put_classifier(body, config, tensors, recipe)
    body = with_operator(body, recipe.operator, recipe.where, torch.zeros(1, 3, SIDE, SIDE),
                         trained=recipe.pretrained or classifier)
    if classifier and config["operator"] != "dense":
        put_classifier(body, config, tensors, recipe)
    norms, trainable_stages = learning(recipe, of_operator=config.get("operator", "dense") if trained(recipe) else None)
    options: dict[str, Any] = {} if recipe.model == "retinanet" else {"box_batch_size_per_image": recipe.regions}
    network = detector(
        recipe.model,  # type: ignore[arg-type]
        body,
        len(info.categories),
        upsample=recipe.upsample,  # type: ignore[arg-type]
        norms=norms,
        trainable_stages=trainable_stages,
        channels=recipe.channels,
        min_size=recipe.short_sides,
        max_size=recipe.long_side,
        anchor_size=recipe.anchor_size,
        detections_per_img=recipe.detections,
        **options,
    )
    if config and not classifier:
        load_weights(recipe.weights, network)  # type: ignore[arg-type]
    return network.train()


def trained(recipe: DetectionRecipe) -> bool:
    """Whether the backbone starts from weights of an earlier training."""
    return recipe.pretrained or recipe.weights is not None


def learning(recipe: DetectionRecipe, *, of_operator: str | None) -> tuple[Any, int]:
    """What the backbone's norms do and how many of its stages learn.

    Frozen norms and stages are for weights that were trained as they stand: not for random ones, nor for those of
    convolutions that an operator has taken the place of.

    Args:
        recipe: what it leaves open is decided here.
        of_operator: the operator that the weights were trained with; None without weights.
    """
    frozen = of_operator == recipe.operator
    norms = recipe.norms or ("frozen" if frozen else "batch")
    return norms, recipe.trainable_stages if recipe.trainable_stages is not None else 3 if frozen else 4


def put_classifier(
    body: nn.Module, config: Mapping[str, Any], tensors: Mapping[str, Tensor], recipe: DetectionRecipe
) -> None:
    """Gives a backbone the weights of a classifier that it is a part of.

    Raises:
        ValueError: they don't fit, or are for images that are normalised otherwise.
    """
    wanted = {"mean": tuple(config["mean"]), "std": tuple(config["std"])}
    if (known := {key: tuple(value) for key, value in normalisation(body).items()}) != wanted:
        raise ValueError(f"weights must be for images normalised by {known}, as the backbone's are, got {wanted}")
    flattened = {name.replace(".", "_", 1): name for name in tensors}  # timm's names where it takes features out
    sources = {name: name if name in tensors else flattened.get(name) for name in body.state_dict()}
    put(body, {name: tensors[source] for name, source in sources.items() if source}, recipe.weights)


def check_runs(network: nn.Module, recipe: DetectionRecipe, info: DetectionInfo) -> None:
    """Runs a detector on one black image, to see that it can.

    Raises:
        ValueError: it can't, or the recipe freezes weights that were never trained.
    """
    frozen = recipe.norms == "frozen" or recipe.trainable_stages not in (None, 4)
    if frozen and not trained(recipe):
        came = f"norms {recipe.norms!r} and trainable_stages {recipe.trainable_stages}"
        raise ValueError(f"a backbone without weights must learn in whole: give weights (or pretrained true), or norms "
                         f"'batch' and trainable_stages 4, got {came}")
    if recipe.norms == "sync" and recipe.processes > 1 and chosen_accelerator(recipe) == "cpu":
        raise ValueError("norms 'sync' of several processes need GPUs, got the accelerator cpu")
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
        Pictures(data.train, flip=recipe.augment),
        Pictures(data.test, flip=False),
        recipe,
        test_batch_size=recipe.test_batch_size,
    ),
    learner=lambda network, recipe, data, steps: Detection(network, recipe, test=data.test, steps=steps),
    shape=lambda recipe, info: (1, 3, recipe.short_sides[-1], recipe.short_sides[-1]),
    fuse=fused,
    evaluate=evaluate,
)
