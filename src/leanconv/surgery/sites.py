"""Where a model's layers are: what each convolution is, whether it is a stem or a head, and which ones a user means."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from leanconv.errors import unknown

Where = str | Mapping[str, Any] | Callable[[str, nn.Module], bool] | None
CONDITIONS: dict[str, Any] = {"name": str, "kernel_size": int | tuple | list, "stage": int, "min_channels": int}
DEEP_STEM = 3  # convolutions that a stem has at most: ResNet-D's and ResNeSt's have three


@dataclass(frozen=True)
class Site:
    """A layer of a model that an operator may take.

    Args:
        name: its path in the model, as `named_modules` gives it (the first, for a layer used in several places).
        module: the layer.
        place: "stem" (reads the image), "head" (gives the class scores) or "body".
        norm: the norm that alone takes its output, where the model was watched and has one.
        rectified: whether a ReLU alone takes the output, of the norm where there is one.
        mixed: whether a 1x1 convolution comes next, before any other convolution or sum.
    """

    name: str
    module: nn.Module
    place: str = "body"
    norm: Site | None = None
    rectified: bool = False
    mixed: bool = False


def convolutions(model: nn.Module) -> list[Site]:
    """Every convolution of a model, of whatever type, once each and in the order of registration.

    A layer of leanconv's that holds convolutions is one itself; those inside it aren't the model's.
    """
    own = own_layers(model)
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, _ConvNd) or (name in own and any(isinstance(part, _ConvNd) for part in module.modules()))
    ]
    found = [(name, module) for name, module in found if not inside(name, own)]
    stem, head = stem_names([name for name, _ in found]), head_name(model)
    places = {name: "head" if name == head else "stem" if name in stem else "body" for name, _ in found}
    return [Site(name, module, places[name]) for name, module in found]


def own_layers(model: nn.Module) -> set[str]:
    """The paths of leanconv's own layers in a model."""
    return {name for name, module in model.named_modules() if type(module).__module__.startswith("leanconv.nn.")}


def inside(name: str, layers: Collection[str]) -> bool:
    """Whether a path leads into one of some layers, not just to it.

    >>> inside("block.conv.weight", {"block.conv"}), inside("block.conv", {"block.conv"})
    (True, False)
    """
    return name != "" and any(name.startswith(f"{outer}.") or not outer for outer in layers)


def stem_names(names: list[str]) -> set[str]:
    """The stem: the first convolution, those inside a module called stem, and those that share a small first container.

    >>> sorted(stem_names(["conv1.0", "conv1.3", "layer1.0.conv1"]))
    ['conv1.0', 'conv1.3']
    """
    if not names:
        return set()
    parent = names[0].rpartition(".")[0]
    siblings = [name for name in names if parent and name.startswith(parent + ".")]
    shared = set(siblings) if len(siblings) <= min(DEEP_STEM, len(names) - 1) else set()
    return {names[0], *shared, *(name for name in names if "stem" in name.split("."))}


def head_name(model: nn.Module) -> str | None:
    """The convolution that gives the class scores: the last layer with weights, where that is a convolution."""
    kinds = _ConvNd | nn.Linear | nn.modules.batchnorm._NormBase
    weighted = [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]
    return weighted[-1][0] if len(weighted) > 1 and isinstance(weighted[-1][1], _ConvNd) else None


def describe(module: nn.Module) -> str:
    """What a layer is, in a few characters.

    >>> describe(nn.Conv2d(64, 128, 3, stride=2, groups=4))
    '3x3 64→128 /2 groups 4'
    """
    if not isinstance(module, _ConvNd):
        return f"{type(module).__name__} {getattr(module, 'num_features', '')}".rstrip()
    text = f"{'x'.join(map(str, module.kernel_size))} {module.in_channels}→{module.out_channels}"
    if set(module.stride) != {1}:
        text += f" /{'x'.join(map(str, dict.fromkeys(module.stride)))}"
    return text + (f" groups {module.groups}" if module.groups > 1 else "")


def stage_of(name: str) -> int | None:
    """The number of the stage that a layer's name tells, as its model counts them.

    >>> stage_of("layer3.0.conv1"), stage_of("features.denseblock2.denselayer1.conv2"), stage_of("stages.0.b1.conv1")
    (3, 2, 0)
    """
    match = re.search(r"(?:^|\.)(?:layers?|stages?|blocks?|denseblock|s)[._]?(\d+)(?:\.|$)", name)
    return int(match[1]) if match else None


def selector(where: Where) -> Callable[[str, nn.Module], str | None]:
    """Turns `where=` into a function that gives the reason for leaving a layer out, or None.

    Args:
        where: a name pattern (`"layer[34].*"`, as in a shell), a mapping of conditions (name, kernel_size, stage,
            min_channels) that must all hold, a predicate of the layer's name and module, or None for every layer.

    Raises:
        TypeError: for anything else.
        ValueError: for a condition that doesn't exist.
    """
    if where is None or where == "":
        return lambda name, module: None
    if isinstance(where, str):
        where = {"name": where}
    if isinstance(where, Mapping):
        conditions = dict(where)
        for key, value in conditions.items():
            if key not in CONDITIONS:
                raise unknown("condition of where", key, CONDITIONS)
            if key == "kernel_size" and isinstance(value, tuple | list) and len(value) != 2:
                raise ValueError(f"condition 'kernel_size' of where must be one number or two, got {value!r}")
            if not isinstance(value, CONDITIONS[key]):
                expected = getattr(CONDITIONS[key], "__name__", CONDITIONS[key])
                raise TypeError(f"condition {key!r} of where must be {expected}, got {value!r}")
        return lambda name, module: unmet_condition(name, module, conditions)
    if callable(where):
        predicate = where
        return lambda name, module: None if predicate(name, module) else "where: the predicate says no"
    raise TypeError(f"where must be a name pattern, a mapping of conditions or a function, got {where!r}")


def unmet_condition(name: str, module: nn.Module, conditions: Mapping[str, Any]) -> str | None:
    if "name" in conditions and not fnmatch.fnmatchcase(name, conditions["name"]):
        return f"where: its name doesn't match {conditions['name']!r}"
    if "kernel_size" in conditions:
        wanted = conditions["kernel_size"]
        wanted = (wanted, wanted) if isinstance(wanted, int) else tuple(wanted)
        if getattr(module, "kernel_size", None) != wanted:
            return f"where: its kernel isn't {'x'.join(map(str, wanted))}"
    if "stage" in conditions and stage_of(name) != conditions["stage"]:
        return f"where: it isn't in stage {conditions['stage']}"
    if "min_channels" in conditions:
        channels = [getattr(module, key, None) for key in ("in_channels", "out_channels", "num_features")]
        if min((count for count in channels if count is not None), default=0) < conditions["min_channels"]:
            return f"where: it has fewer than {conditions['min_channels']} channels"
    return None
