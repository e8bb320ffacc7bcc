"""Claim: forward and backward of a tied convolution need no more memory at their peak than the dense convolution's.

Two measures: the peak of live tensors, to the byte; and the peak resident memory of a process of its own, which also
sees what the kernels take and give back.

    python benchmarks/peak_memory.py
"""

from __future__ import annotations

import resource
import subprocess
import sys

import torch
from setting import prepare, report, same
from torch import nn

from leanconv.measure import peak_memory
from leanconv.nn import TiedConv2d
from leanconv.table import Table

PROBLEMS = [(256, 56, 3, 1), (256, 56, 3, 2), (1024, 28, 1, 1)]  # channels, size, kernel, stride
BATCH, BLOCKS = 16, (1, 2, 4, 8)


def run(channels: int, size: int, kernel: int, stride: int, blocks: int, channels_last: bool) -> int:
    """One forward and backward pass; returns the bytes of its live tensors at the peak."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    arguments = (channels, channels, kernel, stride, kernel // 2, 1, 1, False)
    layer = nn.Conv2d(*arguments) if blocks == 1 else TiedConv2d(*arguments, blocks=blocks)
    layer = layer.to(memory_format=memory_format)
    input = torch.randn(BATCH, channels, size, size).to(memory_format=memory_format).requires_grad_()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bytes_of_tensors = peak_memory(lambda: layer(input).square().sum().backward())
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    sys.stdout.write(f"{bytes_of_tensors} {resident * 1024}\n")
    return bytes_of_tensors


def check(problem, channels_last: bool) -> None:
    """Ends the benchmark where the tied convolution isn't its definition."""
    channels, size, kernel, stride = problem
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    input = torch.randn(1, channels, size, size).to(memory_format=memory_format)
    for blocks in BLOCKS[1:]:
        tied = TiedConv2d(channels, channels, kernel, stride, kernel // 2, bias=False, blocks=blocks)
        same(tied(input), tied.fused()(input), f"{problem}, B = {blocks}")


def in_a_process(problem, blocks: int, channels_last: bool) -> tuple[float, float]:
    arguments = [str(int(value)) for value in (*problem, blocks, channels_last)]
    command = [sys.executable, __file__, "one", *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    tensors, resident = map(int, output.split())
    return tensors / 1e6, resident / 1e6


def main() -> None:
    setting = prepare()
    if sys.argv[1:2] == ["one"]:
        channels, size, kernel, stride, blocks, channels_last = map(int, sys.argv[2:])
        run(channels, size, kernel, stride, blocks, bool(channels_last))
        return
    rows = []
    for channels_last in (True, False):
        for problem in PROBLEMS:
            check(problem, channels_last)
            dense = in_a_process(problem, 1, channels_last)
            for blocks in BLOCKS[1:]:
                tied = in_a_process(problem, blocks, channels_last)
                channels, size, kernel, stride = problem
                rows.append([f"{kernel}x{kernel} /{stride}, {channels} ch, {size}²",
                             "channels_last" if channels_last else "NCHW", blocks,
                             f"{dense[0]:.1f}", f"{tied[0]:.1f}", f"{tied[0] / dense[0]:.3f}",
                             f"{dense[1]:.0f}", f"{tied[1]:.0f}", f"{tied[1] / dense[1]:.3f}"])
    columns = ["convolution", "layout", "B", "dense MB", "tied MB", "ratio", "dense RSS MB", "tied RSS MB", "ratio"]
    notes = [f"forward and backward, batch {BATCH}; {setting}",
             "MB: peak of live tensors. RSS: growth of the process's peak resident memory."]
    report("peak_memory", Table(columns, rows, "Peak memory of a training step of one layer", notes))


if __name__ == "__main__":
    main()
