"""Claim: of the two fused forms of a tied convolution with its norm, `leanconv.fuse` takes the faster by itself.

Kept tied with the norm behind it, or untied with the norm folded in; with the ReLU that follows, interleaved.

    python benchmarks/fused_tied.py
"""

from __future__ import annotations

import torch
from setting import prepare, report, same, time_all
from torch import nn

import leanconv as lc
from leanconv.nn import TiedConv2d
from leanconv.table import Table

# batch, channels, size, kernel, stride, blocks
PROBLEMS = [
    (batch, channels, size, kernel, stride, blocks)
    for batch in (1, 8)
    for channels, size, kernel, stride in (
        (16, 32, 3, 1), (64, 8, 3, 1), (64, 56, 3, 1), (256, 28, 3, 1), (256, 28, 3, 2), (512, 7, 3, 1),
        (256, 56, 1, 1), (1024, 14, 1, 1), (2048, 7, 1, 1),
    )
    for blocks in (2, 4, 8)
]


def randomised(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    for tensor in (norm.running_var, norm.weight):
        nn.init.uniform_(tensor, 0.5, 1.5)
    for tensor in (norm.running_mean, norm.bias):
        nn.init.normal_(tensor)
    return norm


def measure(problem, channels_last: bool) -> list[object]:
    batch, channels, size, kernel, stride, blocks = problem
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    tied = TiedConv2d(channels, channels, kernel, stride, kernel // 2, bias=False, blocks=blocks)
    model = nn.Sequential(tied, randomised(channels), nn.ReLU(inplace=True)).eval().to(memory_format=memory_format)
    input = torch.randn(batch, channels, size, size).to(memory_format=memory_format)
    forms = {form: lc.fuse(model, input, tied=form) for form in ("keep", "untie")}
    with torch.no_grad():
        for form, fused in forms.items():
            same(fused(input), model(input), f"{form} {problem}")
        times = time_all({form: (lambda f=fused: f(input)) for form, fused in forms.items()}, 15)
    keep, untie = (times[form].median_ms for form in ("keep", "untie"))
    automatic = lc.fuse(model, input)
    chosen = keep if isinstance(automatic[0], TiedConv2d) else untie
    return [f"{kernel}x{kernel} /{stride}, {channels} ch, {size}²", batch, "channels_last" if channels_last else "NCHW",
            blocks, f"{keep:.3f}", f"{untie:.3f}", f"{untie / keep:.2f}", f"{chosen / min(keep, untie):.2f}"]


def main() -> None:
    setting = prepare()
    rows = [measure(problem, layout) for layout in (True, False) for problem in PROBLEMS]
    columns = ["convolution", "batch", "layout", "B", "kept tied ms", "untied ms", "untied / kept", "auto / best"]
    report("fused_tied", Table(columns, rows, "A tied convolution with its norm, fused", [setting]))


if __name__ == "__main__":
    main()
