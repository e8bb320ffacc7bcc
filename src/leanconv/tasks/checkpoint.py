"""A trained network in one file: its weights as safetensors, and in the header what it takes to build it again."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
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
from leanconv.tasks.data.images import ImageInfo
from leanconv.tasks.networks import build_network
from leanconv.tasks.recipe import Recipe

KEYS = ("recipe", "operator", "num_classes", "in_chans", "image_size", "mean", "std", "classes")


def configuration(recipe: Recipe, info: ImageInfo) -> dict[str, Any]:
    """What a checkpoint says about its network: the recipe, the plans, the images, and the version of leanconv."""
    earlier = {} if recipe.weights is None else read_config(recipe.weights)
    return {
        **{key: earlier[key] for key in ("plans",) if key in earlier},
        "recipe": recipe.plain(),
        "operator": recipe.operator,
        **{name: getattr(info, name) for name in ImageInfo.__dataclass_fields__},
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
    if missing := [key for key in KEYS if key not in config]:
        raise ValueError(f"config must have the keys {', '.join(KEYS)}, got none for {', '.join(missing)}")
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
    recipe = Recipe.of({**config["recipe"], "weights": None, "pretrained": False})
    info = image_info(config)
    network = build_network(recipe, info)
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


def image_info(config: Mapping[str, Any]) -> ImageInfo:
    """What a configuration says about the images."""
    values: dict[str, Any] = {
        name: tuple(config[name]) if isinstance(config[name], list) else config[name]
        for name in ImageInfo.__dataclass_fields__
    }
    return ImageInfo(**values)


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
        complete = all(key in config for key in KEYS)
    except (KeyError, TypeError, json.JSONDecodeError):
        complete = False
    if not complete:
        raise ValueError(f"{path} must be a checkpoint that leanconv wrote, got a header without its configuration")
    return config, tensors
