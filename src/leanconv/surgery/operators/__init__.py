"""The operators that surgery knows: what each one makes of a layer, and where its paper applies it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from leanconv.errors import unknown
from leanconv.nn import TiedConv2d, TiedSE
from leanconv.nn.arguments import name_of_type, of_conv, require_positive
from leanconv.surgery.sites import Site, convolutions
from leanconv.surgery.watching import default_example, exit_norms, watch

Settings = Mapping[str, Any]


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
        build: the new layer, with the weights carried over as far as the operator allows.
        fresh: the new layer for a layer that has just been initialised: random too, its outputs as widely spread.
    """

    name: str
    summary: str
    defaults: Settings
    sites: Callable[[nn.Module, Tensor | None], list[Site]]
    reason: Callable[[Site, Settings], str | None]
    outside: Callable[[Site], str | None]
    build: Callable[[nn.Module, Settings], nn.Module]
    fresh: Callable[[nn.Module, Settings], nn.Module]

    def settings(self, given: Settings) -> dict[str, Any]:
        """The defaults, overridden by what is given.

        Raises:
            ValueError: for a setting that doesn't exist or a number below 1.
        """
        for key in given:
            if key not in self.defaults:
                raise unknown(f"setting of operator {self.name!r}", key, self.defaults)
        require_positive(**given)
        return {**self.defaults, **given}


def convolution_reason(layer: Any) -> Callable[[Site, Settings], str | None]:
    """For a layer built from an nn.Conv2d: whatever its constructor says against the convolution's arguments."""

    def reason(site: Site, settings: Settings) -> str | None:
        if type(site.module) is not nn.Conv2d:
            return f"{name_of_type(site.module)} isn't exactly an nn.Conv2d: it may compute something else"
        try:
            layer(**{**of_conv(site.module), "device": "meta"}, **settings)
        except ValueError as error:
            return str(error)
        return None

    return reason


def outside_tied(site: Site) -> str | None:
    """TBC is published for dense 1x1 and 3x3 convolutions, and leaves out the stem and the head."""
    conv = site.module
    if site.place == "stem":
        return "stem: it reads the image"
    if site.place == "head":
        return "head: it gives the class scores"
    if isinstance(conv, nn.Conv2d) and conv.groups > 1:
        return f"not dense: it has {conv.groups} groups"
    if isinstance(conv, nn.Conv2d) and conv.kernel_size not in ((1, 1), (3, 3)):
        return f"its kernel is {conv.kernel_size[0]}x{conv.kernel_size[1]}, not 1x1 or 3x3"
    return None


def tied(conv: nn.Module, settings: Settings) -> nn.Module:
    return TiedConv2d.from_conv(conv, **settings)  # type: ignore[arg-type]


def fresh_tied(conv: nn.Module, settings: Settings) -> nn.Module:
    """The mean of B random blocks has a √B-th of their spread, and an output sums B times fewer inputs: times B."""
    layer = TiedConv2d.from_conv(conv, **settings)  # type: ignore[arg-type]
    with torch.no_grad():
        layer.weight.mul_(layer.blocks)
    return layer


def residual_exits(model: nn.Module, example: Tensor | None) -> list[Site]:
    """The norms that end a residual branch, found by watching the model run."""
    names = exit_norms(model, watch(model, default_example(model) if example is None else example))
    return [Site(name, model.get_submodule(name)) for name in names]


def attention_reason(site: Site, settings: Settings) -> str | None:
    if type(site.module) is not nn.BatchNorm2d:
        return f"{name_of_type(site.module)} isn't exactly an nn.BatchNorm2d"
    try:
        TiedSE(site.module.num_features, **settings, device="meta")
    except ValueError as error:
        return str(error)
    return None


def with_attention(norm: nn.Module, settings: Settings) -> nn.Module:
    """A norm followed by TiedSE."""
    like: Tensor = norm.weight if norm.affine else norm.running_mean  # type: ignore[assignment]
    attention = TiedSE(norm.num_features, **settings, device=like.device, dtype=like.dtype)  # type: ignore[arg-type]
    return nn.Sequential(norm, attention).train(norm.training)


OPERATORS: dict[str, Operator] = {
    operator.name: operator
    for operator in (
        Operator(
            name="tied",
            summary="tied block convolution: one thin filter shared by the blocks of channels",
            defaults={"blocks": 2},
            sites=lambda model, example: convolutions(model),
            reason=convolution_reason(TiedConv2d),
            outside=outside_tied,
            build=tied,
            fresh=fresh_tied,
        ),
        Operator(
            name="tied-se",
            summary="squeeze-and-excitation with tied weights, added at the end of each residual branch",
            defaults={"blocks": 8, "reduction": 16},
            sites=residual_exits,
            reason=attention_reason,
            outside=lambda site: None,
            build=with_attention,
            fresh=with_attention,
        ),
    )
}


def operator_names() -> list[str]:
    """The operators that `plan` knows."""
    return list(OPERATORS)


def parse_operator(text: str) -> tuple[str, dict[str, Any]]:
    """Reads an operator with its settings from one word, as commands and recipes give it.

    Raises:
        ValueError: for an unknown operator or setting, or text of another form.

    >>> parse_operator("tied:blocks=4")
    ('tied', {'blocks': 4})
    """
    name, colon, rest = text.partition(":")
    if name not in OPERATORS:
        raise unknown("operator", name, OPERATORS)
    settings: dict[str, Any] = {}
    for part in rest.split(",") if colon else []:
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not value or key in settings:
            raise ValueError(f"operator must be NAME or NAME:SETTING=VALUE,... with each setting once, got {text!r}")
        settings[key] = yaml.safe_load(value)
    OPERATORS[name].settings(settings)
    return name, settings


def format_operator(name: str, settings: Settings) -> str:
    """Writes an operator with its settings as one word, the inverse of `parse_operator`.

    >>> format_operator("tied", {"blocks": 4})
    'tied:blocks=4'
    """
    return name + (":" if settings else "") + ",".join(f"{key}={value}" for key, value in settings.items())
