"""Asymmetric convolution block: published for each square kernel from 3x3 to 5x5 and the norm that follows it."""

from __future__ import annotations

from torch import nn

from leanconv.nn import AsymmetricConv2d
from leanconv.nn.arguments import of_conv
from leanconv.surgery.operators.operator import Operator, Settings, not_of_size, pair_reason
from leanconv.surgery.sites import Site
from leanconv.surgery.surroundings import convolutions_in_place


def build(site: Site, settings: Settings) -> nn.Module:
    return AsymmetricConv2d.from_conv(site.module, site.norm.module)  # type: ignore[arg-type, union-attr]


def fresh(site: Site, settings: Settings) -> nn.Module:
    arguments = {**of_conv(site.module), "bias": False}  # type: ignore[arg-type]
    return AsymmetricConv2d(**arguments, **settings).train(site.module.training)


ASYMMETRIC = Operator(
    name="asymmetric",
    summary="asymmetric convolution block: 1xk and kx1 branches in training, fused away for inference",
    defaults={"gamma_init": 1.0},
    sites=convolutions_in_place,
    reason=pair_reason(AsymmetricConv2d, "gamma_init"),
    outside=lambda site: not_of_size(site, 3, 5),
    build=build,
    fresh=fresh,
    takes_norm=True,
)
