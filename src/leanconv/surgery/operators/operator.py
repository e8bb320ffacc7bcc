"""What an operator is to surgery."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from leanconv.errors import unknown
from leanconv.nn.arguments import name_of_type, require_positive
from leanconv.surgery.sites import Site

Settings = Mapping[str, Any]
NORMS = ("replace", "add")


@dataclass(frozen=True)
class Operator:
    """One way to change layers.

    Args:
        name: as users write it.
        summary: what it does, in a line.
        defaults: its settings with their default values.
        sites: the layers of a model that it considers, given the model and an example input or None.
        reason: why it can't take a layer, or None where it can.
        outside: why its published scope leaves out a layer that it could take, or None.
        make: the new layer with random weights, on a device ("meta" to count what it has).
        build: the new layer, with the weights carried over as far as the operator allows.
        fresh: the new layer for a layer that has just been initialised: random too, as its paper starts it.
        choices: by setting, the words it may be, for settings that are words.
        local: settings that depend on where a layer stands.

    Where the new layer has norms of its own, there is a setting `norms`: they "replace" the one that follows the layer,
    or are an addition to whatever follows it.
    """

    name: str
    summary: str
    defaults: Settings
    sites: Callable[[nn.Module, Tensor | None], list[Site]]
    reason: Callable[[Site, Settings], str | None]
    outside: Callable[[Site], str | None]
    make: Callable[[Site, Settings, Any], nn.Module]
    build: Callable[[Site, Settings], nn.Module]
    fresh: Callable[[Site, Settings], nn.Module]
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    local: Callable[[Site, Settings], Settings] = lambda site, settings: {}

    def place(self, site: Site, settings: Settings) -> Site:
        """A layer with the norm that the new one replaces, if it replaces one."""
        if settings.get("norms") == "replace":
            return site
        return replace(site, norm=None, rectified=site.rectified and site.norm is None)

    def refusal(self, site: Site, settings: Settings) -> str | None:
        """Why it can't take a layer, its constructor's reasons included, or None where it can."""
        if found := self.reason(site, settings):
            return found
        try:
            self.make(site, settings, "meta")
        except ValueError as error:
            return str(error)
        return None

    def settings(self, given: Settings) -> dict[str, Any]:
        """The defaults, overridden by what is given.

        Raises:
            ValueError: for a setting that doesn't exist, a word or a number that it can't be.
        """
        for key, value in given.items():
            if key not in self.defaults:
                raise unknown(f"setting of operator {self.name!r}", str(key), self.defaults)
            if key in self.choices:
                if value not in self.choices[key]:
                    raise unknown(f"{key} of operator {self.name!r}", str(value), self.choices[key])
            elif isinstance(self.defaults[key], float):
                if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                    raise ValueError(f"{key} must be a number above 0, got {value!r}")
            else:
                require_positive(**{key: value})
        return {**self.defaults, **given}


def not_plain(site: Site, settings: Settings) -> str | None:
    """The reason of those who take convolutions: those that do nothing else."""
    module = site.module
    if type(module) is not nn.Conv2d:
        return f"{name_of_type(module)} isn't exactly an nn.Conv2d: it may compute something else"
    return "it has hooks, as old-style pruning and weight norm have" if hooked(module) else None


def not_a_pair(site: Site, settings: Settings) -> str | None:
    """The reason of those with norms of their own: unless these are added, a norm has to follow the convolution."""
    if (found := not_plain(site, settings)) or settings["norms"] == "add":
        return found
    if site.norm is None:
        return "no norm alone takes its output, or it doesn't run just once"
    norm, channels = site.norm.module, site.module.out_channels
    if type(norm) is not nn.BatchNorm2d:
        return f"its norm isn't exactly an nn.BatchNorm2d but {name_of_type(norm)}"
    if norm.num_features != channels:
        return f"its norm {site.norm.name} must have its {channels} channels, got {norm.num_features}"
    return "its norm has hooks" if hooked(norm) else None


def norm_of(site: Site) -> nn.BatchNorm2d:
    """The norm to replace or, where there is none, one that lets everything pass in eval mode."""
    if site.norm is not None:
        return site.norm.module  # type: ignore[return-value]
    weight: Any = site.module.weight
    norm = nn.BatchNorm2d(weight.shape[0], device=weight.device, dtype=weight.dtype).train(site.module.training)
    nn.init.constant_(norm.weight, math.sqrt(1 + norm.eps))
    return norm


def hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


def reads_image(site: Site) -> str | None:
    """The reason of those who leave out the stem."""
    return "stem: it reads the image" if site.place == "stem" else None


def not_dense(site: Site) -> str | None:
    """The reason of those who take dense convolutions alone."""
    groups = getattr(site.module, "groups", 1)
    return f"not dense: it has {groups} groups" if groups > 1 else None


def not_of_size(site: Site, *sizes: int) -> str | None:
    """The reason of those who take square kernels of some sizes alone."""
    kernel = getattr(site.module, "kernel_size", None)
    if kernel is None or kernel in [(size, size) for size in sizes]:
        return None
    return f"its kernel is {'x'.join(map(str, kernel))}, not {' or '.join(f'{size}x{size}' for size in sizes)}"
