"""Claim: folded for inference, a split convolution takes at most 0.60 of the dense convolution's time (α = 1/2, 3x3).

Compared in one interleaved run: the dense `nn.Conv2d`; `SplitConv2d.fused()`; the same weights by the definition,
three convolutions of slices of channels, a softmax of two means and a weighted sum; and the folded layer with GWC and
PWC merged into one dense 3x3 (stride 1). Equality is checked first. A second table has what each step takes alone.

    python benchmarks/split.py [--steps]
"""

from __future__ import annotations

import sys

import torch
from setting import prepare, report, same, time_all
from torch import Tensor, nn

from leanconv.nn import SplitConv2d
from leanconv.ops.split import fuse_by_means, pointwise, window_centres
from leanconv.table import Table

CHANNELS = 256
# batch, size, stride, alpha, channels_last
PROBLEMS = [
    *[(8, 28, 1, alpha, layout) for layout in (True, False) for alpha in (0.5, 0.25, 0.125)],
    *[(8, 28, 2, 0.5, layout) for layout in (True, False)],
    *[(1, 28, 1, alpha, layout) for layout in (True, False) for alpha in (0.5, 0.25)],
    *[(1, 14, 1, 0.5, layout) for layout in (True, False)],
]


def split(stride: int, alpha: float, memory_format: torch.memory_format) -> SplitConv2d:
    layer = SplitConv2d(CHANNELS, CHANNELS, 3, stride, 1, alpha=alpha).eval()
    for norm in (layer.representative_norm, layer.redundant_norm):
        for tensor in (norm.running_var, norm.weight):
            nn.init.uniform_(tensor, 0.5, 1.5)
        for tensor in (norm.running_mean, norm.bias):
            nn.init.normal_(tensor)
    return layer.fused().to(memory_format=memory_format)


def fused_by_softmax(first: Tensor, second: Tensor) -> Tensor:
    shares = torch.stack([first.mean((2, 3)), second.mean((2, 3))], 2).softmax(2)
    return shares[:, :, 0, None, None] * first + shares[:, :, 1, None, None] * second


def by_definition(layer: SplitConv2d, input: Tensor) -> Tensor:
    size, conv = layer.representative_channels, layer.grouped
    seen = window_centres(input, conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    return fused_by_softmax(conv(input[:, :size]) + layer.pointwise(seen[:, :size]), layer.redundant(seen[:, size:]))


def merged(layer: SplitConv2d) -> nn.Conv2d:
    """GWC and PWC as one dense convolution: the 1x1 on the centre tap."""
    conv = layer.grouped
    dense = nn.Conv2d(conv.in_channels, CHANNELS, 3, 1, 1)
    with torch.no_grad():
        dense.weight.zero_()
        for out, into, filters in zip(dense.weight.chunk(2), (0, 1), conv.weight.chunk(2), strict=True):
            out.chunk(2, 1)[into].copy_(filters)
        dense.weight[:, :, 1, 1] += layer.pointwise.weight[:, :, 0, 0]
        dense.bias.copy_(conv.bias)
    return dense.to(memory_format=torch.channels_last if not conv.weight.is_contiguous() else torch.contiguous_format)


def with_merged(layer: SplitConv2d, dense: nn.Conv2d, input: Tensor) -> Tensor:
    size = layer.representative_channels
    redundant = pointwise(input[:, size:], layer.redundant.weight, layer.redundant.bias)
    return fuse_by_means(dense(input[:, :size]), redundant, inplace=True)


def measure(problem) -> list[object]:
    batch, size, stride, alpha, channels_last = problem
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    input = torch.randn(batch, CHANNELS, size, size).to(memory_format=memory_format)
    dense = nn.Conv2d(CHANNELS, CHANNELS, 3, stride, 1, bias=False).to(memory_format=memory_format)
    layer = split(stride, alpha, memory_format)
    ways = {"split": layer, "definition": lambda x: by_definition(layer, x)}
    if stride == 1:
        one = merged(layer)
        ways["merged"] = lambda x: with_merged(layer, one, x)
    for name, way in ways.items():
        same(way(input), by_definition(layer, input), f"{name} {problem}")
    ways["dense"] = dense
    times = time_all({name: (lambda f=function: f(input)) for name, function in ways.items()}, 15)
    median = {name: timing.median_ms for name, timing in times.items()}
    macs = (alpha * 9 / 2 + 1) / 9
    return [
        f"batch {batch}, {size}²" + (f" /{stride}" if stride > 1 else ""), f"{alpha:g}",
        "channels_last" if channels_last else "NCHW", f"{median['dense']:.2f}", f"{median['split']:.2f}",
        f"{median['split'] / median['dense']:.2f}", f"{macs:.2f}", f"{median['definition'] / median['dense']:.2f}",
        f"{median['merged'] / median['dense']:.2f}" if "merged" in median else "",
    ]


def steps(channels_last: bool) -> list[list[object]]:
    """Each step of the folded layer on its own, α = 1/2, batch 8, 28x28."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    input = torch.randn(8, CHANNELS, 28, 28).to(memory_format=memory_format)
    dense = nn.Conv2d(CHANNELS, CHANNELS, 3, 1, 1, bias=False).to(memory_format=memory_format)
    layer = split(1, 0.5, memory_format)
    size, light, rest = layer.representative_channels, layer.pointwise, layer.redundant
    maps, more = layer.grouped(input[:, :size]), layer.grouped(input[:, :size])
    functions = {
        "dense 3x3": lambda: dense(input),
        "copy of a slice": lambda: input[:, :size].contiguous(memory_format=memory_format),
        "grouped 3x3, with that copy": lambda: layer.grouped(input[:, :size]),
        "1x1, representative": lambda: pointwise(input[:, :size], light.weight),
        "1x1, redundant": lambda: pointwise(input[:, size:], rest.weight, rest.bias),
        "sum of two maps": lambda: maps.add_(more, alpha=1e-9),
        "fusion": lambda: fuse_by_means(maps, more),
        "whole layer": lambda: layer(input),
    }
    times = time_all(functions, 15)
    pixels = 8 * 28 * 28
    macs = {"dense 3x3": 9 * CHANNELS**2, "grouped 3x3, with that copy": 9 * CHANNELS * size // 2,
            "1x1, representative": CHANNELS * size, "1x1, redundant": CHANNELS * size}
    layout = "channels_last" if channels_last else "NCHW"
    return [
        [name, layout, f"{timing.median_ms:.2f}",
         f"{pixels * macs[name] / timing.median_ms / 1e6:.0f}" if name in macs else ""]
        for name, timing in times.items()
    ]


@torch.no_grad()
def main() -> None:
    setting = prepare()
    if "--steps" in sys.argv[1:]:
        report("split_steps", Table(["step", "layout", "ms", "GMAC/s"], steps(True) + steps(False),
                                    "Steps of a folded split convolution", [f"batch 8, 28², alpha 0.5; {setting}"]))
        return
    rows = [measure(problem) for problem in PROBLEMS]
    notes = [f"256 channels, 3x3, forward, medians of interleaved rounds; {setting}",
             "each over the dense convolution's time. MACs: likewise. merged: GWC and PWC as one dense 3x3."]
    report("split", Table(["map", "alpha", "layout", "dense ms", "split ms", "split", "MACs", "definition", "merged"],
                          rows, "Split convolution, folded", notes))


if __name__ == "__main__":
    main()
