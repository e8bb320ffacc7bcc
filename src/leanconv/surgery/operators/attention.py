"""Squeeze-and-excitation with tied weights: added after the last norm of each residual branch."""

from __future__ import annotations

from torch import Tensor, nn

from leanconv.nn import TiedSE
from leanconv.nn.arguments import name_of_type
from leanconv.surgery.operators.operator import Operator, Settings, refusal
from leanconv.surgery.sites import Site
from leanconv.surgery.watching import default_example, exit_norms, watch


def residual_exits(model: nn.Module, example: Tensor | None) -> list[Site]:
    """The norms that end a residual branch, found by watching the model run."""
    names = exit_norms(model, watch(model, default_example(model) if example is None else example))
    return [Site(name, model.get_submodule(name)) for name in names]


def reason(site: Site, settings: Settings) -> str | None:
    if type(site.module) is not nn.BatchNorm2d:
        return f"{name_of_type(site.module)} isn't exactly an nn.BatchNorm2d"
    return refusal(lambda: TiedSE(site.module.num_features, **settings, device="meta"))  # type: ignore[arg-type]


def build(site: Site, settings: Settings) -> nn.Module:
    """The norm followed by TiedSE."""
    norm = site.module
    like: Tensor = norm.weight if norm.affine else norm.running_mean  # type: ignore[assignment]
    attention = TiedSE(norm.num_features, **settings, device=like.device, dtype=like.dtype)  # type: ignore[arg-type]
    return nn.Sequential(norm, attention).train(norm.training)


TIED_SE = Operator(
    name="tied-se",
    summary="squeeze-and-excitation with tied weights, added at the end of each residual branch",
    defaults={"blocks": 8, "reduction": 16},
    sites=residual_exits,
    reason=reason,
    outside=lambda site: None,
    build=build,
    fresh=build,
)
