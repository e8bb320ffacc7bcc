"""The feature maps of a network: at which strides it gives them, of how many channels, and which weights make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from leanconv.models.create import TIMM_SOURCES, create
from leanconv.modes import evaluating
from leanconv.nn.arguments import name_of_type

SIDE = 128  # of the image that is tried: a multiple of all strides


@dataclass(frozen=True)
class Level:
    """One feature map of a network.

    Args:
        index: its place among the maps that the network returns.
        stride: pixels of the image along a side for one of the map's.
        channels: of the map.
        weights: the names of the parameters that it is made from, but not the map of the level before.
    """

    index: int
    stride: int
    channels: int
    weights: frozenset[str]


def feature_network(name: str, *, pretrained: bool = False) -> nn.Module:
    """Builds a network that returns its feature maps instead of scores.

    Args:
        name: as `leanconv.models.create` takes it. What a callable of the user's own builds must return feature maps.
        pretrained: load the published weights, downloading them if need be.

    Raises:
        ValueError: for an unknown name, or weights that can't be had.

    >>> [level.channels for level in find_levels(feature_network("ghostnet_x100"))]
    [24, 40, 112, 160]
    """
    source, colon, _ = name.rpartition(":")
    own = colon and source.partition(":")[0] not in TIMM_SOURCES
    return create(name, pretrained=pretrained, **{} if own else {"features_only": True})


def find_levels(network: nn.Module, strides: Sequence[int] = (4, 8, 16, 32)) -> list[Level]:
    """What a network returns at each of some strides, the last map where there are several of a size.

    The network is run on an image without content (on the meta device), which costs no memory and changes nothing.
    Which weights a map is made from is where its gradients would arrive.

    Args:
        network: returns a list, a tuple or a dictionary of maps (N, C, H, W) for images (N, 3, H, W).
        strides: from fine to coarse.

    Raises:
        ValueError: the network doesn't run, or gives no map at one of the strides.
        TypeError: it returns something else.
    """
    weights = {name: like(weight).requires_grad_(weight.is_floating_point())
               for name, weight in network.named_parameters()}
    buffers = {name: like(buffer) for name, buffer in network.named_buffers()}
    image = torch.empty(1, 3, SIDE, SIDE, device="meta")
    try:
        with evaluating(network), torch.enable_grad():
            output = functional_call(network, weights | buffers, (image,))
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"backbone must take images of any size, but {type(network).__name__} "
                         f"doesn't run on {SIDE} x {SIDE} pixels: {reason}") from error
    maps = listed(output)
    places = {SIDE // map.shape[2]: index for index, map in enumerate(maps)
              if map.dim() == 4 and map.shape[2] == map.shape[3] and SIDE % map.shape[2] == 0}
    if not set(strides) <= places.keys():
        shapes = [tuple(map.shape[1:]) for map in maps]
        raise ValueError(f"backbone must give feature maps at strides {', '.join(map(str, strides))}, but "
                         f"{type(network).__name__} makes maps of shapes {shapes} from {SIDE} x {SIDE} pixels")
    names = {weight: name for name, weight in weights.items()}
    seen: set[Any] = set()
    return [Level(places[stride], stride, maps[places[stride]].shape[1], new_weights(maps[places[stride]], names, seen))
            for stride in strides]


def like(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta")


def listed(maps: Any) -> list[Tensor]:
    """The maps that a network returned, in order."""
    found = list(maps.values()) if isinstance(maps, dict) else maps
    if not isinstance(found, list | tuple) or not all(isinstance(map, Tensor) for map in found):
        raise TypeError(f"backbone must return a list of feature maps, got {name_of_type(maps)}")
    return list(found)


def new_weights(map: Tensor, names: Mapping[Tensor, str], seen: set[Any]) -> frozenset[str]:
    """The names of the weights that a map is made from, but not those behind the steps already seen."""
    found = set()
    steps = [map.grad_fn]
    while steps:
        step = steps.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        if (weight := getattr(step, "variable", None)) is not None:
            found.add(names[weight])
        steps += [before for before, _ in step.next_functions]
    return frozenset(found)
