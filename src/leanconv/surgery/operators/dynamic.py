"""Decoupled dynamic filters: published for the dense 3x3 convolutions of bottlenecks, and reconstructed for others.

A DDF mixes no channels and keeps their count. In a bottleneck the 1x1 convolution that follows mixes them; elsewhere,
and where the count changes, the DDF gets a 1x1 convolution of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from leanconv.nn import DDF
from leanconv.surgery.operators.operator import Operator, Settings, not_dense, not_of_size, not_plain, reads_image
from leanconv.surgery.sites import Site
from leanconv.surgery.surroundings import convolutions_in_place


def local(site: Site, settings: Settings) -> Settings:
    """Whether a 1x1 convolution of its own follows the DDF."""
    if settings["pointwise"] != "auto":
        return {}
    conv = site.module
    keeps = getattr(conv, "in_channels", None) == getattr(conv, "out_channels", None)
    return {"pointwise": "never" if keeps and site.mixed else "always"}


def reason(site: Site, settings: Settings) -> str | None:
    if found := not_plain(site, settings):
        return found
    conv: Any = site.module
    centred = tuple(step * (size - 1) // 2 for step, size in zip(conv.dilation, conv.kernel_size, strict=True))
    same = centred if conv.padding == "same" else (0, 0) if conv.padding == "valid" else conv.padding
    if conv.padding_mode != "zeros" or same != centred:
        return f"a DDF pads by {centred} zeros, got padding={conv.padding}, padding_mode={conv.padding_mode!r}"
    if settings["pointwise"] == "never" and conv.in_channels != conv.out_channels:
        return f"a DDF alone keeps the channels, got {conv.in_channels} in and {conv.out_channels} out"
    return None


def make(site: Site, settings: Settings, device: Any) -> nn.Module:
    conv: Any = site.module
    own = {name: settings[name] for name in ("heads", "squeeze_ratio", "combine")}
    where = {"device": device, "dtype": conv.weight.dtype}
    layer = DDF(conv.in_channels, conv.kernel_size, conv.stride, conv.dilation, **own, **where)
    if settings["pointwise"] == "never":
        return layer
    return nn.Sequential(layer, nn.Conv2d(conv.in_channels, conv.out_channels, 1, bias=conv.bias is not None, **where))


def build(site: Site, settings: Settings) -> nn.Module:
    """New random weights: the convolution's say nothing about filters that depend on the input."""
    conv: Any = site.module
    layer = make(site, settings, conv.weight.device)
    if not conv.weight.is_contiguous():
        layer = layer.to(memory_format=torch.channels_last)
    return layer.train(conv.training)


DYNAMIC = Operator(
    name="ddf",
    summary="decoupled dynamic filters: kernels that depend on the input, at a depthwise convolution's cost",
    defaults={"heads": 1, "squeeze_ratio": 0.2, "combine": "mul", "pointwise": "auto"},
    sites=convolutions_in_place,
    reason=reason,
    outside=lambda site: reads_image(site) or not_dense(site) or not_of_size(site, 3),
    make=make,
    build=build,
    fresh=build,
    choices={"combine": ("mul", "add"), "pointwise": ("auto", "always", "never")},
    local=local,
)
