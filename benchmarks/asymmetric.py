"""Claim: no exact way to train an asymmetric convolution beats its separate branches; fused, it costs the plain one.

A training step (forward and backward, norms in train mode) of one 3x3 layer, in one interleaved run: the plain
convolution with its norm; `AsymmetricConv2d`; its branches written out as three `nn.Conv2d` with norms; the input
padded once and cut for each branch; one convolution with the three kernels stacked, the row and the column amid zeros.
Then inference: the plain convolution with a bias, the layer in eval mode, and fused. Equality is checked first.

    python benchmarks/asymmetric.py
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from setting import prepare, report, same, time_all
from torch import Tensor, nn

from leanconv.nn import AsymmetricConv2d
from leanconv.table import Table

# channels, size, stride, groups; batch 8
PROBLEMS = [(16, 32, 1, 1), (64, 56, 1, 1), (128, 28, 1, 1), (256, 14, 1, 1), (512, 7, 1, 1), (128, 56, 2, 1),
            (64, 32, 1, 4), (64, 56, 1, 64)]
BATCH = 8


def separate(layer: AsymmetricConv2d) -> nn.Module:
    """The three branches, each a convolution with a norm."""

    class Separate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(branch.conv for branch in layer.branches.values())
            self.norms = nn.ModuleList(branch.norm for branch in layer.branches.values())

        def forward(self, input: Tensor) -> Tensor:
            square, row, column = (norm(conv(input)) for conv, norm in zip(self.convs, self.norms, strict=True))
            return square + row + column

    return Separate()


def padded_once(layer: AsymmetricConv2d, input: Tensor) -> Tensor:
    """Each branch convolves its part of the padded input."""
    wide = F.pad(input, (1, 1, 1, 1))
    parts = {"square": wide, "horizontal": wide[:, :, 1:-1], "vertical": wide[:, :, :, 1:-1]}
    square, row, column = (
        branch.norm(F.conv2d(parts[name], branch.conv.weight, None, layer.stride, 0, 1, layer.groups))
        for name, branch in layer.branches.items()
    )
    return square + row + column


def stacked(layer: AsymmetricConv2d, input: Tensor) -> Tensor:
    """One convolution to three times the channels, one norm of all of them, and their sum."""
    branches: list[Any] = list(layer.branches.values())
    kernels = torch.stack([F.pad(branch.conv.weight, branch.place) for branch in branches], 1)
    scales, shifts = (
        torch.stack([getattr(branch.norm, name) for branch in branches], 1).flatten() for name in ("weight", "bias")
    )
    outputs = F.conv2d(input, kernels.flatten(0, 1), None, layer.stride, 1, 1, layer.groups)
    return F.batch_norm(outputs, None, None, scales, shifts, training=True).unflatten(1, (-1, 3)).sum(2)


def step(function: Any, input: Tensor, parameters: list[Tensor]) -> Any:
    """A forward and a backward pass, as a function without arguments."""

    def run() -> None:
        output = function(input)
        torch.autograd.grad(output, (input, *parameters), torch.ones_like(output))

    return run


def measure(problem: tuple[int, ...], channels_last: bool) -> tuple[list[object], list[object]]:
    channels, size, stride, groups = problem
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    arguments = (channels, channels, 3, stride, 1, 1, groups)
    layer = AsymmetricConv2d(*arguments).to(memory_format=memory_format)
    plain = nn.Sequential(nn.Conv2d(*arguments, bias=False), nn.BatchNorm2d(channels)).to(memory_format=memory_format)
    input = torch.randn(BATCH, channels, size, size).to(memory_format=memory_format).requires_grad_()
    ways = {
        "ours": layer,
        "separate": separate(layer),
        "padded once": lambda input: padded_once(layer, input),
        "stacked": lambda input: stacked(layer, input),
    }
    with torch.no_grad():
        for name, function in ways.items():
            same(function(input), layer(input), f"{name} {problem}")
    parameters = list(layer.parameters())
    steps = {"plain": step(plain, input, list(plain.parameters()))}
    steps |= {name: step(function, input, parameters) for name, function in ways.items()}
    training = {name: timing.median_ms for name, timing in time_all(steps, 7).items()}

    deployed = nn.Conv2d(*arguments).to(memory_format=memory_format)
    fused = layer.eval().fused()
    with torch.no_grad():
        same(fused(input), layer(input), f"fused {problem}")
        forms = {"plain": deployed, "eval": layer, "fused": fused}
        times = time_all({name: (lambda f=form: f(input)) for name, form in forms.items()}, 15)
    inference = {name: timing.median_ms for name, timing in times.items()}
    extra = (f" /{stride}" if stride > 1 else "") + (f" groups {groups}" if groups > 1 else "")
    names = [f"{channels} ch, {size}²{extra}", "channels_last" if channels_last else "NCHW"]
    return (
        [*names, f"{training['plain']:.2f}", f"{training['ours']:.2f}", f"{training['ours'] / training['plain']:.2f}",
         *[f"{training[way] / training['ours']:.2f}" for way in ("separate", "padded once", "stacked")]],
        [*names, f"{inference['plain']:.3f}", f"{inference['eval'] / inference['plain']:.2f}",
         f"{inference['fused'] / inference['plain']:.3f}"],
    )


def main() -> None:
    setting = prepare()
    rows = [measure(problem, layout) for layout in (True, False) for problem in PROBLEMS]
    training, inference = zip(*rows, strict=True)
    report("asymmetric_training", Table(
        ["3x3 layer", "layout", "plain ms", "ours ms", "ours / plain", "separate / ours", "padded once / ours",
         "stacked / ours"],
        training, "Asymmetric convolution: a training step",
        [f"forward and backward with norms, batch {BATCH}, medians of interleaved rounds; {setting}",
         "plain: one convolution with one norm. The convolutions alone have 1.67 times its MACs; stacked, 3 times."],
    ))
    report("asymmetric_inference", Table(
        ["3x3 layer", "layout", "plain ms", "eval mode / plain", "fused / plain"],
        inference, "Asymmetric convolution: inference",
        [f"forward, batch {BATCH}, medians of interleaved rounds; {setting}",
         "plain: one convolution with a bias. Eval mode folds the branches into one kernel at each call."],
    ))


if __name__ == "__main__":
    main()
