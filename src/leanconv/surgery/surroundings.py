"""What comes after each convolution of a model: its norm, a ReLU, a 1x1 convolution. Learned by watching it run."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from leanconv.surgery.sites import Site, convolutions
from leanconv.surgery.watching import ADDITIONS, CONVOLUTIONS, Flow, Value, default_example, norm_after, watch

RECTIFIERS = {"relu", "relu_"}


def convolutions_in_place(model: nn.Module, example: Tensor | None) -> list[Site]:
    """Every convolution of a model, with what comes after it.

    Args:
        model: any module.
        example: an input of the model; one is made up where it is None.

    Raises:
        ValueError: for an example that the model doesn't take.

    >>> import torch
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1))
    >>> first, last = convolutions_in_place(model, torch.zeros(1, 3, 5, 5))
    >>> first.norm.name, first.rectified, first.mixed
    ('1', True, True)
    >>> last.norm, last.rectified, last.mixed
    (None, False, False)
    """
    sites = convolutions(model)
    flow = watch(model, default_example(model) if example is None else example)
    norms = norm_after(model, flow, [site.name for site in sites])
    return [
        replace(
            site,
            norm=Site(norms[site.name], model.get_submodule(norms[site.name])) if site.name in norms else None,
            rectified=is_rectified(flow, norms.get(site.name, site.name)),
            mixed=any(leads_to_pointwise(model, flow, value) for value in flow.outputs.get(site.name, [])),
        )
        for site in sites
    ]


def is_rectified(flow: Flow, layer: str) -> bool:
    """Whether a ReLU alone takes a layer's output."""
    use = flow.single_use(layer)
    return use is not None and use.function in RECTIFIERS


def leads_to_pointwise(model: nn.Module, flow: Flow, value: Value) -> bool:
    """Whether a value reaches a 1x1 convolution of maps of its size without a sum or another convolution between."""
    size, waiting, seen = flow.tensors[value].shape[2:], [value], {value}
    while waiting:
        for use in flow.uses.get(waiting.pop(), []):
            if use.function in CONVOLUTIONS:
                pointwise = getattr(model.get_submodule(use.module), "kernel_size", None) == (1, 1)
                if pointwise and all(flow.tensors[result].shape[2:] == size for result in use.results):
                    return True
            elif use.function not in ADDITIONS:
                new = [result for result in use.results if result not in seen]
                seen.update(new)
                waiting += new
    return False
