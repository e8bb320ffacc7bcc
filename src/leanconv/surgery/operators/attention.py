"""Squeeze-and-excitation with tied weights: added after the last norm of each residual branch."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from leanconv.nn import TiedSE
from leanconv.nn.arguments import name_of_type
from leanconv.surgery.operators.operator import Operator, Settings
from leanconv.surgery.sites import Site
from leanconv.surgery.watching import default_example, exit_norms, watch


def residual_exits(model: nn.Module, example: Tensor | None) -> list[Site]:
    """The norms that end a residual branch, found by watching the model run."""
    names = exit_norms(model, watch(model, default_example(model) if example is None else example))
    return [Site(name, model.get_submodule(name)) for name in names]


def reason(site: Site, settings: Settings) -> str | None:
    if type(site.module) is not nn.BatchNorm2d:
        return f"{name_of_type(site.module)} isn't exactly an nn.BatchNorm2d"
    return None


def make(site: Site, settings: Settings, device: Any) -> nn.Module:
    """The norm followed by TiedSE."""
    norm: Any = site.module
    like = norm.weight if norm.affine else norm.running_mean
    return nn.Sequential(norm, TiedSE(norm.num_features, **settings, device=device, dtype=like.dtype))


def build(site: Site, settings: Settings) -> nn.Module:
    norm: Any = site.module
    like = norm.weight if norm.affine else norm.running_mean
    return make(site, settings, like.device).train(norm.training)


TIED_SE = Operator(
    name="tied-se",
    summary="squeeze-and-excitation with tied weights, added at the end of each residual branch",
    defaults={"blocks": 8, "reduction": 16},
    sites=residual_exits,
    reason=reason,
    outside=lambda site: None,
    make=make,
    build=build,
    fresh=build,
)
