"""Ghost module: published for every dense convolution with a norm but a 7x7 stem (Ghost-ResNet-50, Ghost-VGG-16)."""

from __future__ import annotations

from typing import Any

from torch import nn

from leanconv.nn import GhostConv2d
from leanconv.nn.arguments import of_conv
from leanconv.surgery.operators.operator import (
    NORMS,
    Operator,
    Settings,
    norm_of,
    not_a_pair,
    not_dense,
    reads_image,
)
from leanconv.surgery.sites import Site
from leanconv.surgery.surroundings import convolutions_in_place

ACTIVATIONS = {"relu": nn.ReLU, "none": None}


def outside(site: Site) -> str | None:
    large = max(getattr(site.module, "kernel_size", (1, 1))) >= 7
    return (reads_image(site) if large else None) or not_dense(site)


def reason(site: Site, settings: Settings) -> str | None:
    if found := not_a_pair(site, settings) or not_dense(site):
        return found
    return "its norm keeps no running statistics" if norm_of(site).running_mean is None else None


def local(site: Site, settings: Settings) -> Settings:
    """Ghosts are made from maps as the next layer sees them: rectified, where a ReLU follows the norm."""
    if settings["activation"] != "auto":
        return {}
    return {"activation": "relu" if site.rectified else "none"}


def own(settings: Settings) -> dict[str, Any]:
    """The settings as the constructor takes them."""
    words = {"activation": ACTIVATIONS[settings["activation"]]}
    return {name: value for name, value in {**settings, **words}.items() if name != "norms"}


def make(site: Site, settings: Settings, device: Any) -> nn.Module:
    arguments = {**of_conv(site.module), "bias": False, "device": device}  # type: ignore[arg-type]
    return GhostConv2d(**arguments, **own(settings))


def build(site: Site, settings: Settings) -> nn.Module:
    return GhostConv2d.from_conv(site.module, norm_of(site), **own(settings))  # type: ignore[arg-type]


def fresh(site: Site, settings: Settings) -> nn.Module:
    """Norms start as the one whose place they take; there is nothing to fit cheap kernels to."""
    layer: Any = build(site, settings)
    layer.primary_norm.reset_running_stats()
    if layer.cheap is not None:
        layer.cheap.reset_parameters()
        layer.cheap_norm.reset_running_stats()
    return layer


GHOST = Operator(
    name="ghost",
    summary="ghost module: a part of the maps by convolution, the rest from them by cheap depthwise filters",
    defaults={"ratio": 2, "cheap_kernel_size": 3, "activation": "auto", "norms": "replace"},
    sites=convolutions_in_place,
    reason=reason,
    outside=outside,
    make=make,
    build=build,
    fresh=fresh,
    choices={"activation": ("auto", *ACTIVATIONS), "norms": NORMS},
    local=local,
)
