"""Claim: on wide layers a DDF layer costs a fraction of a dense 3x3 convolution's time, filters included.

Compared in one interleaved run: the dense 3x3 `nn.Conv2d`; `DDF`; a depthwise 3x3 convolution; and for upsampling,
`DDFUp` with a transposed convolution and two interpolations. Each DDF is checked first against `F.unfold`. MACs stand
beside the milliseconds: combining and applying both filters counts as 3/2 of a multiply-accumulate for each tap.

    python benchmarks/ddf_layer.py [--backward]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from setting import prepare, report, same, time_all
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from leanconv.nn import DDF, DDFUp
from leanconv.table import Table

# channels, size, batch: the 3x3 convolutions of a ResNet-50
SIZES = {64: 56, 128: 28, 256: 14, 512: 7}
PROBLEMS = [(channels, size, batch) for batch in (1, 8) for channels, size in SIZES.items()]
UP = (256, (25, 40), 1)  # the top of a feature pyramid at 800 x 1280


def by_unfold(layer: DDF | DDFUp, input: Tensor) -> Tensor:
    """Every pixel's window times its kernel, from the branches' own modules."""
    branches, guidance = 1, input
    if isinstance(layer, DDFUp):
        branches = layer.scale**2
        guidance = layer.depthwise(input.repeat(1, branches, 1, 1))  # type: ignore[misc]
    spatial, channel = layer.spatial_branch(guidance), layer.channel_branch(input)
    batch, channels, height, width = input.shape
    windows = F.unfold(input, 3, padding=1).view(batch, 1, channels, 9, height, width)
    kernel = channel.view(batch, branches, channels, 9, 1, 1) * spatial.view(batch, branches, 1, 9, height, width)
    outputs = (windows * kernel).sum(3).transpose(1, 2).flatten(1, 2)
    return F.pixel_shuffle(outputs, layer.scale) if isinstance(layer, DDFUp) else outputs


def macs(function: Callable[[Tensor], Tensor], input: Tensor) -> float:
    """Millions of multiply-accumulates, as PyTorch's counter sees them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(input)
    return counter.get_total_flops() / 2e6


def step(layer: nn.Module, input: Tensor) -> Callable[[], None]:
    """A forward and a backward pass, for the gradients of the input and all parameters."""
    leaves = [input, *layer.parameters()]
    gradient = torch.randn_like(layer(input))

    def run() -> None:
        torch.autograd.grad(layer(input), leaves, gradient)

    return run


def milliseconds(layers: dict[str, nn.Module], input: Tensor, backward: bool) -> list[float]:
    if backward:
        leaf = input.clone(memory_format=torch.preserve_format).requires_grad_()
        times = time_all({name: step(layer, leaf) for name, layer in layers.items()}, 15)
    else:
        with torch.no_grad():
            times = time_all({name: (lambda f=layer: f(input)) for name, layer in layers.items()})
    return [times[name].median_ms for name in layers]


def row(what: str, layout: str, layers: dict[str, nn.Module], input: Tensor, backward: bool) -> list[object]:
    """MACs and milliseconds of each layer; the second is the dynamic one, set in relation to the first."""
    dynamic = layers["dynamic"]
    with torch.no_grad():
        same(dynamic(input), by_unfold(dynamic, input), what)  # type: ignore[arg-type]
    counts = [macs(layer, input) for layer in layers.values()]
    times = milliseconds(layers, input, backward)
    figures = [f"{count:.1f}" for count in counts] + [f"{time:.2f}" for time in times]
    return [what, layout, *figures, f"{times[1] / times[0]:.2f}"]


def convolutions(problem: Sequence[int], memory_format: torch.memory_format) -> tuple[dict[str, nn.Module], Tensor]:
    channels, size, batch = problem
    input = torch.randn(batch, channels, size, size).contiguous(memory_format=memory_format)
    layers: dict[str, nn.Module] = {
        "dense": nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        "dynamic": DDF(channels),
        "depthwise": nn.Conv2d(channels, channels, 3, padding=1, bias=False, groups=channels),
    }
    return {name: layer.to(memory_format=memory_format) for name, layer in layers.items()}, input


def main() -> None:
    setting, backward = prepare(), "--backward" in sys.argv[1:]
    layouts = {"channels_last": torch.channels_last, "NCHW": torch.contiguous_format}
    rows = []
    for problem in PROBLEMS:
        for layout, memory_format in layouts.items():
            channels, size, batch = problem
            layers, input = convolutions(problem, memory_format)
            rows.append(row(f"{batch} x {channels} ch, {size}²", layout, layers, input, backward))
    name, way = ("ddf_layer_backward", "forward and backward") if backward else ("ddf_layer", "forward")
    notes = [f"{way}, medians of interleaved rounds; {setting}", "MACs in millions; DDF / dense: of the milliseconds."]
    columns = ["3x3 layer", "layout", "dense M", "DDF M", "depthwise M", "dense ms", "DDF ms", "depthwise ms",
               "DDF / dense"]
    report(name, Table(columns, rows, "Decoupled dynamic filter", notes))
    rows = []
    for layout, memory_format in layouts.items():
        channels, (height, width), batch = UP
        input = torch.randn(batch, channels, height, width).contiguous(memory_format=memory_format)
        layers = {"transposed": nn.ConvTranspose2d(channels, channels, 2, 2), "dynamic": DDFUp(channels),
                  "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"), "nearest": nn.Upsample(scale_factor=2)}
        layers = {name: layer.to(memory_format=memory_format) for name, layer in layers.items()}
        rows.append(row(f"{channels} ch, {height}x{width}", layout, layers, input, backward))
    ways = ("deconv", "DDF-Up", "linear", "nearest")
    columns = ["by 2", "layout", *(f"{name} {unit}" for unit in ("M", "ms") for name in ways), "DDF-Up / deconv"]
    report(name.replace("layer", "up"), Table(columns, rows, "Upsampling by decoupled dynamic filters", [
        *notes[:1], f"batch {batch}; deconv: a transposed 2x2 convolution, stride 2; linear: bilinear interpolation."]))


if __name__ == "__main__":
    main()
