"""The table of networks: what each is, and what it costs."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

import timm
import torch
from torch import Tensor, nn

from leanconv.measure.cost import layer_costs
from leanconv.measure.profiling import Column, scaled, side_by_side
from leanconv.models import create
from leanconv.table import Table

PAPER = re.compile(r"arxiv(?:\.org/(?:abs|pdf)/|[ :]+)(\d{4}\.\d{4,5})", re.IGNORECASE)
COUNTS = re.compile(r":? [\d,.]+ (?:[kMG] )?parameters.*|\.$")


def catalogue(names: Iterable[str]) -> Table:
    """The networks of these names, which `create` knows, one row each."""
    rows = [(name, *costs(name), *description(timm.model_entrypoint(name))) for name in names]
    names, params, macs, inputs, whats, papers = zip(*rows, strict=True)
    return side_by_side([
        Column("model", names),
        scaled("params", "", params),
        scaled("MACs", "", macs),
        Column("input", inputs),
        Column("what it is", whats),
        Column("arXiv", papers),
    ])


def costs(name: str) -> tuple[int, int, str]:
    """A network's parameters, its multiply-accumulates for one image, and the size of that.

    Nothing is computed: its tensors have shapes only.
    """
    with torch.device("meta"):
        network: Any = create(name).eval()
        for module in network.modules():
            if type(module) is nn.BatchNorm2d:  # slow on this device, and nothing to count but its parameters
                module.forward = unchanged  # type: ignore[method-assign]
        shape = network.pretrained_cfg["input_size"]
        layers = layer_costs(network, torch.empty(1, *shape))
    return sum(layer.params for layer in layers), sum(layer.macs for layer in layers), "×".join(map(str, shape))


def unchanged(input: Tensor) -> Tensor:
    return input


def description(entrypoint: Callable[..., object]) -> tuple[str, str]:
    """What a network is, and the number of its paper, as far as its function and module tell.

    >>> description(timm.model_entrypoint("cifar_resnet20"))
    ('ResNet-20 for CIFAR', '1512.03385')
    """
    own = entrypoint.__doc__ or ""
    paper = PAPER.search(own) or PAPER.search(sys.modules[entrypoint.__module__].__doc__ or "")
    return COUNTS.sub("", own.strip().partition("\n")[0]), paper[1] if paper else ""
