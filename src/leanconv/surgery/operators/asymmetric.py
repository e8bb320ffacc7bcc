"""Asymmetric convolution block: published for each square kernel from 3x3 to 5x5 and the norm that follows it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from leanconv.nn import AsymmetricConv2d
from leanconv.nn.arguments import of_conv
from leanconv.surgery.operators.operator import NORMS, Operator, Settings, norm_of, not_a_pair, not_of_size
from leanconv.surgery.sites import Site
from leanconv.surgery.surroundings import convolutions_in_place


def make(site: Site, settings: Settings, device: Any) -> nn.Module:
    arguments = {**of_conv(site.module), "bias": False, "device": device}  # type: ignore[arg-type]
    return AsymmetricConv2d(**arguments, gamma_init=settings["gamma_init"])


def build(site: Site, settings: Settings) -> nn.Module:
    """The trained pair, exactly: the new branches start at a scale of 0, whatever the setting says."""
    return AsymmetricConv2d.from_conv(site.module, norm_of(site))  # type: ignore[arg-type]


def fresh(site: Site, settings: Settings) -> nn.Module:
    """Each branch's norm starts as the one whose place it takes, scaled by the setting."""
    norm = norm_of(site)
    layer = AsymmetricConv2d.from_conv(site.module, norm, gamma_init=1.0)  # type: ignore[arg-type]
    with torch.no_grad():
        branches: Any = layer.branches.values()
        for branch in branches:
            branch.norm.reset_running_stats()
            if norm.weight is not None:
                branch.norm.weight.copy_(norm.weight * settings["gamma_init"])
    return layer


ASYMMETRIC = Operator(
    name="asymmetric",
    summary="asymmetric convolution block: 1xk and kx1 branches in training, fused away for inference",
    defaults={"gamma_init": 1.0, "norms": "replace"},
    sites=convolutions_in_place,
    reason=not_a_pair,
    outside=lambda site: not_of_size(site, 3, 5),
    make=make,
    build=build,
    fresh=fresh,
    choices={"norms": NORMS},
)
