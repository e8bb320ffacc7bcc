"""SPConv: published for each dense 3x3 convolution but the stem."""

from __future__ import annotations

from torch import nn

from leanconv.nn import SplitConv2d
from leanconv.nn.arguments import of_conv
from leanconv.surgery.operators.operator import (
    Operator,
    Settings,
    convolution_reason,
    not_dense,
    not_of_size,
    reads_image,
)
from leanconv.surgery.sites import Site, convolutions


def build(site: Site, settings: Settings) -> nn.Module:
    return SplitConv2d.from_conv(site.module, **settings)  # type: ignore[arg-type]


def fresh(site: Site, settings: Settings) -> nn.Module:
    arguments = {**of_conv(site.module), "bias": True}  # type: ignore[arg-type]
    return SplitConv2d(**arguments, **settings).train(site.module.training)


SPLIT = Operator(
    name="split",
    summary="SPConv: rich computation for a part of the input channels, light for the redundant rest",
    defaults={"alpha": 0.5, "group_count": 2},
    sites=lambda model, example: convolutions(model),
    reason=convolution_reason(SplitConv2d, "alpha", "group_count"),
    outside=lambda site: reads_image(site) or not_dense(site) or not_of_size(site, 3),
    build=build,
    fresh=fresh,
)
