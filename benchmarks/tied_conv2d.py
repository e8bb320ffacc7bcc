"""Claim: a tied convolution with B blocks takes about a B-th of the dense convolution's time, in either memory format.

Compared in one interleaved run: the dense `nn.Conv2d`; `TiedConv2d`; blocks folded into the batch after
`.contiguous()`, as the authors' layer does (its output is NCHW; "fold, back" returns it to channels_last); the
definition, a grouped convolution with repeated filters. Equality is checked first.

    python benchmarks/tied_conv2d.py [--backward]
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from setting import prepare, report, same, time_all
from torch import Tensor, nn

from leanconv.nn import TiedConv2d
from leanconv.table import Table

# channels, size, kernel, stride, groups, blocks; batch 8
PROBLEMS = [
    *[(256, 28, 3, 1, 1, blocks) for blocks in (2, 4, 8)],
    *[(1024, 14, 1, 1, 1, blocks) for blocks in (2, 4, 8, 16)],
    *[(256, 28, 3, 2, 1, blocks) for blocks in (2, 4, 8)],
    *[(256, 28, 1, 2, 1, blocks) for blocks in (2, 4, 8)],
    *[(256, 28, 3, 1, 4, blocks) for blocks in (2, 4)],
    *[(256, 28, 1, 1, 4, blocks) for blocks in (2, 4)],
]
BATCH = 8


def folded(layer: TiedConv2d, input: Tensor) -> Tensor:
    """Blocks folded into the batch: a view in NCHW, a copy otherwise, and with groups a copy always."""
    conv, blocks = layer.conv, layer.blocks
    batch, channels, height, width = input.shape
    grouped = input.contiguous().view(batch, conv.groups, blocks, -1, height, width).transpose(1, 2)
    images = grouped.reshape(batch * blocks, channels // blocks, height, width)
    weight = conv.weight.contiguous()
    output = F.conv2d(images, weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    height, width = output.shape[2:]
    banks = output.view(batch, blocks, conv.groups, -1, height, width).transpose(1, 2)
    return banks.reshape(batch, layer.out_channels, height, width)


def both_ways(function, input: Tensor, parameter: Tensor):
    """A forward and a backward pass, as a function without arguments."""

    def run():
        output = function(input)
        torch.autograd.grad(output, (input, parameter), torch.ones_like(output))

    return run


def measure(problem, channels_last: bool, backward: bool) -> list[object]:
    channels, size, kernel, stride, groups, blocks = problem
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    arguments = (channels, channels, kernel, stride, kernel // 2, 1, groups, False)
    dense = nn.Conv2d(*arguments).to(memory_format=memory_format)
    tied = TiedConv2d(*arguments, blocks=blocks).to(memory_format=memory_format)
    plain = tied.fused().to(memory_format=memory_format)
    input = torch.randn(BATCH, channels, size, size).to(memory_format=memory_format)
    ways = {
        "dense": (dense, dense.weight),
        "tied": (tied, tied.weight),
        "fold": (lambda x: folded(tied, x), tied.weight),
        "definition": (plain, plain.weight),
    }
    if channels_last:
        ways["fold, back"] = (lambda x: folded(tied, x).contiguous(memory_format=memory_format), tied.weight)
    with torch.no_grad():
        for name, (function, _) in ways.items():
            if name != "dense":
                same(function(input), plain(input), f"{name} {problem}")
    if backward:
        input.requires_grad_()
        times = time_all({name: both_ways(function, input, weight) for name, (function, weight) in ways.items()}, 15)
    else:
        with torch.no_grad():
            times = time_all({name: (lambda f=function: f(input)) for name, (function, _) in ways.items()})
    median = {name: timing.median_ms for name, timing in times.items()}
    layout = "channels_last" if channels_last else "NCHW"
    what = f"{kernel}x{kernel}" + (f" /{stride}" if stride > 1 else "") + (f" groups {groups}" if groups > 1 else "")
    back = f"{median['fold, back'] / median['tied']:.2f}" if channels_last else ""
    return [
        f"{what}, {channels} ch, {size}²", layout, blocks, f"{median['dense']:.2f}", f"{median['tied']:.2f}",
        f"{median['tied'] / median['dense']:.3f}", f"{1 / blocks:.3f}", f"{median['fold'] / median['tied']:.2f}", back,
        f"{median['definition'] / median['tied']:.2f}",
    ]


def main() -> None:
    setting, backward = prepare(), "--backward" in sys.argv[1:]
    rows = [measure(problem, layout, backward) for layout in (True, False) for problem in PROBLEMS]
    columns = ["convolution", "layout", "B", "dense ms", "tied ms", "tied / dense", "MACs", "fold / tied",
               "fold, back / tied", "definition / tied"]
    what = "forward and backward" if backward else "forward"
    notes = [f"{what}, batch {BATCH}, medians of interleaved rounds; {setting}",
             "MACs: of the tied over the dense convolution. fold: the authors' way; back: returned to channels_last."]
    report("tied_conv2d" + ("_backward" if backward else ""), Table(columns, rows, "Tied block convolution", notes))


if __name__ == "__main__":
    main()
