"""Networks counted on the meta device, where tensors have shapes only, and published figures held against that."""

from __future__ import annotations

import copy
import re
import textwrap
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import floor
from typing import Any
from unittest import mock

import torch
from opcounter import legacy_operations
from timm.layers import SelectAdaptivePool2d
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from leanconv.models import create
from leanconv.nn import DDF, AsymmetricConv2d

WIDTH = 120
UNITS = {"M": 10**6, "G": 10**9, "B": 10**9}
SHARES: dict[str, Callable[[Fraction], Fraction]] = {  # of the baseline's cost
    "%": lambda share: 100 * share,
    "% fewer": lambda share: 100 * (1 - share),
    "× fewer": lambda share: 1 / share,
}
FIGURE = re.compile(r"([\d.]+) ?(M|G|B|% fewer|%|× fewer)")
NUMBER = re.compile(r"([\d,]+( \(.*\))?)?")
FEWER = "fewer"  # where a paper says no more than that


@cache
def build(name: str, **options: Any) -> nn.Module:
    """A network of its real size, without memory for its weights."""
    with torch.device("meta"):
        return create(name, **options)


def deployed(model: nn.Module) -> nn.Module:
    """The network with each asymmetric convolution block as the one convolution that it fuses to."""
    model = copy.deepcopy(model).eval()
    for name, layer in list(model.named_modules()):
        if isinstance(layer, AsymmetricConv2d):
            model.set_submodule(name, layer.fused())
    return model


@cache
def params(model: nn.Module) -> int:
    """Parameters, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


@dataclass(frozen=True)
class Operations:
    """Of one image: multiply-accumulates of convolutions, of matrix products, and what thop 0.1.1 adds to both."""

    convolutions: int
    products: int
    thop_extra: int

    @property
    def macs(self) -> int:
        return self.convolutions + self.products

    @property
    def thop(self) -> int:
        return self.macs + self.thop_extra


@cache
def operations(model: nn.Module, training: bool = False) -> Operations:
    """Counts a forward pass on an image of the network's own size.

    thop takes four operations for each element of a norm's output and one for each that a global pool reads or writes.
    It doesn't see a DDF itself, and neither is it counted here.
    """
    extra = 0

    def norm(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal extra
        extra += 4 * output.numel()

    def pool(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal extra
        extra += inputs[0].numel() + inputs[0].shape[:2].numel()

    hooks = {nn.BatchNorm2d: norm, DDF: pool, SelectAdaptivePool2d: pool}
    handles = [module.register_forward_hook(hooks[type(module)])
               for module in model.modules() if type(module) in hooks]  # fmt: skip
    with torch.no_grad(), FlopCounterMode(display=False) as counter, norms_idle():
        model.train(training)(image(model))
    for handle in handles:
        handle.remove()
    counted = {str(operator): flops // 2 for operator, flops in counter.get_flop_counts()["Global"].items()}
    convolutions = counted["aten.convolution"]
    products = sum(macs for operator, macs in counted.items() if operator.startswith("aten.")) - convolutions
    return Operations(convolutions, products, extra)


def norms_idle() -> AbstractContextManager[object]:
    """Inside, batch norms give back what they get: on the meta device they are slow, and shapes are all it takes."""
    return mock.patch.object(nn.BatchNorm2d, "forward", lambda norm, input: input)


def image(model: nn.Module) -> Tensor:
    configuration: Any = model.pretrained_cfg
    return torch.empty(1, *configuration["input_size"], device="meta")


def macs(model: nn.Module) -> int:
    return operations(model).macs


def macs_in_training(model: nn.Module) -> int:
    return operations(model, training=True).macs


def convolutions_alone(model: nn.Module) -> int:
    return operations(model).convolutions


def thop(model: nn.Module) -> int:
    return operations(model).thop


@cache
def legacy_thop(model: nn.Module) -> int:
    with norms_idle():
        return legacy_operations(model, image(model).shape)


@cache
def legacy_thop_without_relu(model: nn.Module) -> int:
    with norms_idle():
        return legacy_operations(model, image(model).shape, rectifiers=False)


def verdict(figure: str, ours: int, baseline: int | None = None) -> str:
    """Whether a count gives a published figure, to all of its digits.

    Args:
        figure: as published: "16.8M", "2.3 G", or relative to a baseline, "54 %", "10 % fewer", "64× fewer", "fewer".
        ours: the count.
        baseline: what a relative figure refers to.

    Returns:
        "✓" where the rounded count is the figure, "✓ cut" where it is with further digits cut off, else "✗".

    Raises:
        ValueError: for a figure without a unit, or a relative one without a baseline.

    >>> verdict("18.35M", 18_345_448), verdict("18.34M", 18_345_448), verdict("18.3M", 18_412_345)
    ('✓', '✓ cut', '✗')
    >>> verdict("54 %", 5456, 10_000), verdict("10 % fewer", 907, 1000), verdict("fewer", 1001, 1000)
    ('✓ cut', '✗', '✗')
    """
    if figure == FEWER:
        return "✓" if baseline is not None and ours < baseline else "✗"
    digits, value = parsed(figure, ours, baseline)
    places = 10 ** len(digits.partition(".")[2])
    wanted = Fraction(digits) * places
    if floor(value * places + Fraction(1, 2)) == wanted:
        return "✓"
    return "✓ cut" if floor(value * places) == wanted else "✗"


def parsed(figure: str, ours: int, baseline: int | None) -> tuple[str, Fraction]:
    """The digits of a figure, and the count in the figure's unit."""
    match = FIGURE.fullmatch(figure)
    if match is None:
        raise ValueError(f"figure must be a number and a unit, got {figure!r}")
    digits, unit = match.groups()
    if unit in UNITS:
        return digits, Fraction(ours, UNITS[unit])
    if baseline is None:
        raise ValueError(f"baseline must be given for a relative figure, got None for {figure!r}")
    return digits, SHARES[unit](Fraction(ours, baseline))


@dataclass(frozen=True)
class Quantity:
    """A count beside what is published of it.

    Args:
        ours: the count.
        published: the figure as published, empty where there is none.
        baseline: the count of the network that a relative figure refers to.
    """

    ours: int
    published: str = ""
    baseline: int | None = None

    @property
    def verdict(self) -> str:
        return verdict(self.published, self.ours, self.baseline) if self.published else ""

    def cells(self) -> tuple[str, str]:
        """What is published and whether it is ours; ours, with its share where the figure is one."""
        ours = f"{self.ours:,}"
        if self.published == FEWER and self.baseline is not None:
            ours += f" ({100 * self.ours / self.baseline:.1f} %)"
        elif self.published and self.baseline is not None:
            digits, value = parsed(self.published, self.ours, self.baseline)
            ours += f" ({float(value):.1f}{self.published.removeprefix(digits)})"
        return f"{self.published} {self.verdict}".strip(), ours


@dataclass(frozen=True)
class Row:
    """One network: its parameters and operations, what is published of them, and why those are others, if they are."""

    network: str
    params: Quantity
    operations: Quantity | None = None
    macs: int | None = None
    why: str = ""

    @property
    def quantities(self) -> list[Quantity]:
        return [self.params] if self.operations is None else [self.params, self.operations]

    @property
    def differs(self) -> bool:
        return any(quantity.verdict == "✗" for quantity in self.quantities)


def row(
    network: str, model: nn.Module, published: Sequence[str] = ("", ""), *, by: Callable[[nn.Module], int] = macs,
    of: nn.Module | None = None, why: str = "",
) -> Row:
    """The row of a network.

    Args:
        network: what to call it.
        model: to be counted.
        published: its parameters and its operations.
        by: what counts the operations.
        of: the baseline of relative figures.
        why: the reason, where a figure isn't ours.
    """
    return Row(
        network,
        Quantity(params(model), published[0], params(of) if of else None),
        Quantity(by(model), published[1], by(of) if of else None),
        macs(model) if by not in (macs, macs_in_training) else None,
        why,
    )


@dataclass(frozen=True)
class Comparison:
    """A table of networks whose figures have one source and were counted by one rule.

    Args:
        text: what comes before it.
        rows: its networks.
        counter: the rule, a head for the column of operations.
        source: whose the figures are.
    """

    text: str
    rows: list[Row]
    counter: str = "MACs"
    source: str = "published"

    def __str__(self) -> str:
        head = ["network", f"params, {self.source}", "params", f"{self.counter}, {self.source}", self.counter, "MACs",
                "why they differ"]  # fmt: skip
        lines = []
        for row in self.rows:
            counted = ("", "") if row.operations is None else row.operations.cells()
            lines.append([row.network, *row.params.cells(), *counted, f"{row.macs:,}" if row.macs else "", row.why])
        text = textwrap.fill(" ".join(self.text.split()), WIDTH)
        return f"{text}\n\n{table(head, lines)}"


def table(head: list[str], lines: list[list[str]]) -> str:
    """A table in Markdown, without the columns that are empty; those of numbers stand to the right.

    >>> print(table(["a", "b", "c"], [["x", "", "1,000"]]))
    | a | c |
    | --- | ---: |
    | x | 1,000 |
    """
    columns = [[name, *cells] for name, cells in zip(head, zip(*lines, strict=True), strict=True) if any(cells)]
    aligned = ["---:" if all(NUMBER.fullmatch(cell) for cell in cells) else "---" for _, *cells in columns]
    rows = [[column[0] for column in columns], aligned, *zip(*(column[1:] for column in columns), strict=True)]
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in rows)

