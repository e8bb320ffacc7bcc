"""The network that a recipe asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from leanconv import models, surgery

if TYPE_CHECKING:
    from leanconv.tasks.data import ImageInfo
    from leanconv.tasks.recipe import Recipe


def build_network(recipe: Recipe, info: ImageInfo) -> nn.Module:
    """Builds a recipe's network for images of some kind: the model, its first weights, then the operator.

    Weights of a checkpoint go in before the operator if they are of the dense network, which carries them over, and
    after it if they are of the same operator. A checkpoint that was made by a plan gives its network as it is. New
    weights come from PyTorch's global generator.

    Args:
        recipe: its keys `model`, `operator`, `where`, `pretrained` and `weights` count.
        info: the images; an opened data set will do.

    Raises:
        ValueError: the model or its weights don't exist, the operator takes none of its layers, or the checkpoint is
            of another network.
    """
    if recipe.weights is None:
        return with_operator(
            created(recipe, info), recipe.operator, recipe.where, image(info), trained=recipe.pretrained
        ).train()

    from leanconv.tasks.checkpoint import load_model, load_weights, read_config

    config = read_config(recipe.weights)
    if "fused" in config:
        raise ValueError(f"weights must be of a network with its norms, got {recipe.weights}, which is fused")
    if "plans" in config:
        wanted = (recipe.model, recipe.operator, info.num_classes, info.in_chans)
        found = (*(config["recipe"][key] for key in ("model", "operator")), config["num_classes"], config["in_chans"])
        if found != wanted:
            raise ValueError(
                f"weights made by a plan must be of the recipe's model, operator, classes and channels {wanted}, "
                f"got {found} in {recipe.weights}"
            )
        return load_model(recipe.weights)[0].train()
    earlier = config["operator"]
    if earlier not in ("dense", recipe.operator):
        raise ValueError(
            f"weights must be of the dense network or of {recipe.operator!r}, got {recipe.weights} of {earlier!r}"
        )
    network = created(recipe, info)
    if earlier == "dense":
        load_weights(recipe.weights, network)
    network = with_operator(network, recipe.operator, recipe.where, image(info), trained=True)
    if earlier != "dense":
        load_weights(recipe.weights, network)
    return network.train()


def created(recipe: Recipe, info: ImageInfo) -> nn.Module:
    """The network of a recipe before its operator and without a checkpoint's weights."""
    return models.create(
        recipe.model, num_classes=info.num_classes, in_chans=info.in_chans, pretrained=recipe.pretrained
    )


def image(info: ImageInfo) -> Tensor:
    """A black image of the kind that a network is made for."""
    return torch.zeros(1, info.in_chans, info.image_size, info.image_size)


def with_operator(network: nn.Module, operator: str, where: str, example: Tensor, *, trained: bool) -> nn.Module:
    """A network with an operator in the layers that it takes; as it is for "dense"."""
    if operator == "dense":
        return network
    plan = surgery.plan(network, operator, where=where or None, example=example)
    return surgery.swap(network, plan, trained=trained)
