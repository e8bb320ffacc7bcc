"""Tied block convolution: published for dense 1x1 and 3x3 convolutions, the stem and the head left out."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from leanconv.nn import TiedConv2d
from leanconv.nn.arguments import of_conv
from leanconv.surgery.operators.operator import (
    Operator,
    Settings,
    not_dense,
    not_of_size,
    not_plain,
    reads_image,
)
from leanconv.surgery.sites import Site, convolutions


def outside(site: Site) -> str | None:
    head = "head: it gives the class scores" if site.place == "head" else None
    return reads_image(site) or head or not_dense(site) or not_of_size(site, 1, 3)


def make(site: Site, settings: Settings, device: Any) -> nn.Module:
    return TiedConv2d(**{**of_conv(site.module), "device": device}, **settings)  # type: ignore[arg-type]


def build(site: Site, settings: Settings) -> nn.Module:
    return TiedConv2d.from_conv(site.module, **settings)  # type: ignore[arg-type]


def fresh(site: Site, settings: Settings) -> nn.Module:
    """The mean of B random blocks has a √B-th of their spread, and an output sums B times fewer inputs: times B."""
    layer = TiedConv2d.from_conv(site.module, **settings)  # type: ignore[arg-type]
    with torch.no_grad():
        layer.weight.mul_(layer.blocks)
    return layer


TIED = Operator(
    name="tied",
    summary="tied block convolution: one thin filter shared by the blocks of channels",
    defaults={"blocks": 2},
    sites=lambda model, example: convolutions(model),
    reason=not_plain,
    outside=outside,
    make=make,
    build=build,
    fresh=fresh,
)
