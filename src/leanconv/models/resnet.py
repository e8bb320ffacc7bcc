"""What the papers' networks share: timm's ResNet with another block in it, and what timm knows of a network."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg
from timm.models.resnet import ResNet
from torch import nn

from leanconv.nn.arguments import name_of_type

Layer = TypeVar("Layer", bound=nn.Module)


def build_resnet(
    name: str,
    pretrained: bool,
    options: Mapping[str, Any],
    block: type[nn.Module] | tuple[type[nn.Module], ...],
    layers: Sequence[int],
    kind: type[ResNet] = ResNet,
    **others: Any,
) -> nn.Module:
    """Builds a network of timm's with another block in it; what only the block knows of the options goes to the block.

    Args:
        name, pretrained: as timm's `build_model_with_cfg` takes them.
        options: what the user gave.
        block: a subclass of one of timm's blocks, or one for each stage.
        layers: blocks of each stage.
        kind: the network's class.
        others: options of the network and the block that aren't as these have them.
    """
    given = {"layers": layers} | others | dict(options)
    blocks = block if isinstance(block, tuple) else (block,)
    own = {option for each in blocks for option in named(each)} - named(kind)
    block_args = {option: given.pop(option) for option in own & given.keys()} | given.pop("block_args", {})
    return build_model_with_cfg(kind, name, pretrained, block=block, block_args=block_args, **given)


def named(kind: type) -> set[str]:
    """The arguments that the constructors of a class and of those above it name."""
    return {argument for each in kind.__mro__ for argument in inspect.signature(each).parameters}


def imagenet(**fields: Any) -> dict[str, Any]:
    """What timm knows of a network for ImageNet: a ResNet without published weights, but for the fields given."""
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bilinear",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "conv1",
        "classifier": "fc",
    } | fields


def take_over(layer: Layer, norm: Any, kind: type[Any] = nn.BatchNorm2d) -> Layer:
    """Gives the norms that a layer brings along the settings of the network's norm next to it.

    Args:
        layer: what brings norms along.
        norm: whose settings they get.
        kind: the class of batch norm that it must be.

    Raises:
        ValueError: where the norm is of another class, a subclass too.
    """
    if type(norm) is not kind:
        raise ValueError(f"norm_layer must be nn.BatchNorm2d, which {type(layer).__name__} brings along, "
                         f"got {name_of_type(norm)}")
    for own in layer.modules():
        if isinstance(own, nn.BatchNorm2d):
            own.eps, own.momentum = norm.eps, norm.momentum
    return layer
