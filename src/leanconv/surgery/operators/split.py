"""SPConv: published for each dense 3x3 convolution but the stem."""

from __future__ import annotations

from typing import Any

from torch import nn

from leanconv.nn import SplitConv2d
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


def make(site: Site, settings: Settings, device: Any) -> nn.Module:
    arguments = {**of_conv(site.module), "bias": True, "device": device}  # type: ignore[arg-type]
    return SplitConv2d(**arguments, **settings)


def build(site: Site, settings: Settings) -> nn.Module:
    return SplitConv2d.from_conv(site.module, **settings)  # type: ignore[arg-type]


def fresh(site: Site, settings: Settings) -> nn.Module:
    layer: Any = build(site, settings)
    for part in layer.children():
        part.reset_parameters()
    return layer


SPLIT = Operator(
    name="split",
    summary="SPConv: rich computation for a part of the input channels, light for the redundant rest",
    defaults={"alpha": 0.5, "group_count": 2},
    sites=lambda model, example: convolutions(model),
    reason=not_plain,
    outside=lambda site: reads_image(site) or not_dense(site) or not_of_size(site, 3),
    make=make,
    build=build,
    fresh=fresh,
)
