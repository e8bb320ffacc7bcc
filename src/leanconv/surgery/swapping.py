"""Carrying out a plan."""

from __future__ import annotations

import copy

from torch import nn

from leanconv.errors import unknown
from leanconv.surgery.operators import OPERATORS
from leanconv.surgery.planning import Plan
from leanconv.surgery.sites import Site, describe


class NothingTaken(ValueError):
    """A plan takes no layer; the message says why."""


def swap(model: nn.Module, plan: Plan, *, trained: bool = True) -> nn.Module:
    """A copy of a model in which the layers that a plan takes are swapped, their weights carried over.

    How far weights carry over is the operator's: see its layer's `from_conv`. A layer used in several places is swapped
    once and stays shared.

    Args:
        model: the model that the plan was made for, or one with the same layers.
        plan: from `leanconv.plan`, or read from YAML.
        trained: whether the model's weights are worth carrying over. False, for a model that has just been initialised
            and will be trained from scratch, gives the new layers random weights, as their papers start
            them.

    Raises:
        NothingTaken: a ValueError, when the plan takes no layer.
        ValueError: when it speaks of layers that the model doesn't have.

    >>> import leanconv as lc
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    >>> lc.swap(model, lc.plan(model, "tied", blocks=4, scope="all", where="2"))[2]
    TiedConv2d(
      8, 8, blocks=4
      (conv): Conv2d(2, 2, kernel_size=(3, 3), stride=(1, 1))
    )
    """
    if not plan.taken:
        reasons = list(dict.fromkeys(choice.skipped for choice in plan.choices if choice.skipped))
        raise NothingTaken(
            f"the plan for {plan.operator!r} takes none of the model's {len(plan.choices)} layers"
            + (f": {'; '.join(reasons[:4])}" if reasons else "")
        )
    operator = OPERATORS[plan.operator]
    swapped = copy.deepcopy(model)
    paths: dict[nn.Module, list[str]] = {}
    for path, module in swapped.named_modules(remove_duplicate=False):
        paths.setdefault(module, []).append(path)
    modules = {path: module for module, places in paths.items() for path in places}
    norms = [choice.norm for choice in plan.taken]
    for choice in plan.taken:
        if choice.norm is not None and norms.count(choice.norm) > 1:
            raise ValueError(f"each norm of a plan must be one layer's, got {choice.norm!r} for several")
        if choice.name not in modules:
            raise unknown("layer in the plan", choice.name, modules)
        module = modules[choice.name]
        if describe(module) != choice.layer:
            raise ValueError(f"layer {choice.name!r} must be {choice.layer} as in the plan, got {describe(module)}")
        settings = operator.settings({**plan.settings, **choice.settings})
        norm = None
        if choice.norm is not None:
            if choice.norm not in modules:
                raise unknown("norm in the plan", choice.norm, modules)
            norm = Site(choice.norm, modules[choice.norm])
        site = operator.place(Site(choice.name, module, norm=norm), settings)
        for key, value in settings.items():
            if value == "auto":
                words = [word for word in operator.choices[key] if word != "auto"]
                raise ValueError(f"{key} of the plan's layer {choice.name!r} must be {' or '.join(words)}, got 'auto'")
        if reason := operator.refusal(site, settings):
            raise ValueError(f"layer {choice.name!r} can't be swapped: {reason}")
        replacement = operator.build(site, settings) if trained else operator.fresh(site, settings)
        if choice.name == "":
            return replacement
        for path in paths[module]:
            swapped.set_submodule(path, replacement)
        for path in paths[site.norm.module] if site.norm else ():
            swapped.set_submodule(path, nn.Identity())
    return swapped
