"""A trained network in one file: its weights as safetensors, and in the header what it takes to build it again."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

import leanconv
from leanconv import surgery
from leanconv.files import write
from leanconv.measure import Setting
from leanconv.models.weights import owned, put
from leanconv.tasks.task import recipe_class, task_named
from leanconv.tasks.training_recipe import DEFAULT_TASK, TrainingRecipe


def configuration(recipe: TrainingRecipe, info: Any) -> dict[str, Any]:
    """What a checkpoint says about its network: the recipe, the plans, the images, and the version of leanconv."""
    earlier = {} if recipe.weights is None else read_config(recipe.weights)
    return {
        **{key: earlier[key] for key in ("plans",) if key in earlier},
        "recipe": recipe.plain(),
        "operator": recipe.operator,
        **{field.name: getattr(info, field.name) for field in fields(task_named(recipe.task).info)},
        "leanconv": leanconv.__version__,
    }


def save_model(path: str | Path, module: nn.Module, config: Mapping[str, Any]) -> None:
    """Writes a network's weights and its configuration.

    Args:
        path: of the file.
        module: the network, on any device.
        config: as `configuration` makes it; besides, `plans` lists what else was swapped, as YAML, and `fused`, where
            the norms are folded, the tied layers that stayed so. Other keys with values that JSON knows may be added.

    Raises:
        OSError: the file can't be written; one of that name stays as it was.
        ValueError: the configuration lacks a key.
    """
    save_tensors(path, module.state_dict(), config)


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Does what `save_model` does, with the tensors of a state dict."""
    if missing := missing_keys(config):
        raise ValueError(f"config must be as configuration makes it, got none for {', '.join(missing)}")
    write(Path(path), save(owned(tensors), {"leanconv": json.dumps(config)}))


def load_model(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Builds the network of a checkpoint, with its weights, in evaluation mode.

    Args:
        path: of a file that `save_model` wrote.

    Returns:
        The network and the configuration.

    Raises:
        ValueError: the file isn't a checkpoint of leanconv, or is damaged, or its weights don't fit the network.
    """
    config = read_config(path)
    recipe = recipe_of(config, weights=None, pretrained=False)
    network = task_named(recipe.task).build_network(recipe, info_of(config))
    for plan in config.get("plans", ()):
        network = surgery.swap(network, surgery.Plan.from_yaml(plan))
    if "fused" in config:
        network = fused_network(network, config, kept=config["fused"])
    load_weights(path, network)
    return network.eval(), config


def fused_network(network: nn.Module, config: Mapping[str, Any], kept: Collection[str] | None = None) -> nn.Module:
    """The inference form of a checkpoint's network, for its images in its memory format.

    Args:
        network: of the checkpoint.
        config: of the checkpoint.
        kept: the paths of the tied convolutions that stay tied, where an earlier fusion decided it.
    """
    size = config["image_size"]
    image = Setting.of((1, config["in_chans"], size, size), channels_last=config["recipe"]["channels_last"])
    return surgery.fuse(image.replica(network), image.input(), tied="auto" if kept is None else kept)


def task_name(config: Mapping[str, Any]) -> str:
    """The task that a configuration's network is for."""
    return config["recipe"].get("task", DEFAULT_TASK)


def recipe_of(config: Mapping[str, Any], **overrides: Any) -> Any:
    """The recipe in a configuration, with values in the place of some of its own."""
    return recipe_class(task_name(config)).of({**config["recipe"], **overrides})


def info_of(config: Mapping[str, Any]) -> Any:
    """What a configuration says about the data."""
    kind = task_named(task_name(config)).info
    return kind(**{
        field.name: tuple(value) if isinstance(value := config[field.name], list) else value for field in fields(kind)
    })


def missing_keys(config: Mapping[str, Any]) -> list[str]:
    """The keys that a configuration lacks."""
    if missing := [key for key in ("recipe", "operator") if key not in config]:
        return missing
    return [field.name for field in fields(task_named(task_name(config)).info) if field.name not in config]


def read_config(path: str | Path) -> dict[str, Any]:
    """The configuration in the header of a checkpoint.

    Raises:
        ValueError: the file isn't a checkpoint of leanconv, or is damaged.
    """
    return read(path)[0]


def load_weights(path: str | Path, network: nn.Module) -> None:
    """Gives a network the weights of a checkpoint: all of them or, when one doesn't fit, none.

    Raises:
        ValueError: tensors are missing, left over or of another shape; the message lists them.
    """
    put(network, read(path)[1], path)


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the tensors of a checkpoint."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot read the checkpoint {path}: {error}") from error
    try:
        config = json.loads(header["leanconv"])
        complete = not missing_keys(config)
    except (AttributeError, KeyError, TypeError, ValueError):
        complete = False
    if not complete:
        raise ValueError(f"{path} must be a checkpoint that leanconv wrote, got a header without its configuration")
    return config, tensors
