"""Claim: a Ghost module of ratio 2 takes at most 0.62 of the time of the convolution that it replaces.

Compared in one interleaved run, all without norms as they run at inference: the dense `nn.Conv2d`, without activation;
`GhostConv2d.fused()`; the same weights with the two halves concatenated, as the published code does ("cat"), with the
activations in place ("in place"), or written into one buffer by ATen ("out="); and what both begin with, the primary
convolution. Equality is checked first.

    python benchmarks/ghost.py
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from setting import prepare, report, same, time_all
from torch import Tensor, nn

from leanconv.nn import GhostConv2d
from leanconv.table import Table

# channels, size, kernel, batch, ratio
PROBLEMS = [
    (256, 28, 3, 8, 2),
    (256, 28, 3, 8, 4),
    (1024, 14, 1, 8, 2),
    (256, 28, 3, 1, 2),
    (1024, 14, 1, 1, 2),
]


def concatenated(layer: GhostConv2d, input: Tensor, inplace: bool = False) -> Tensor:
    intrinsic = F.relu(layer.primary(input), inplace)
    return torch.cat([intrinsic, F.relu(layer.cheap(intrinsic), inplace)], 1)


def into_buffer(layer: GhostConv2d, input: Tensor, memory_format: torch.memory_format) -> Tensor:
    maps = layer.primary(input)
    batch, channels, height, width = maps.shape
    output = torch.empty((batch, layer.out_channels, height, width), memory_format=memory_format)
    intrinsic = torch.clamp_min(maps, 0, out=output[:, :channels])
    torch.clamp_min(layer.cheap(intrinsic), 0, out=output[:, channels:])
    return output


def macs(layer: GhostConv2d) -> float:
    """Multiply-accumulates over those of the dense convolution."""
    weights = layer.primary.weight.numel() + layer.cheap.weight.numel()
    return weights / (layer.primary.weight[0].numel() * layer.out_channels)


def measure(problem: tuple[int, ...], channels_last: bool) -> list[object]:
    channels, size, kernel, batch, ratio = problem
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    dense = nn.Conv2d(channels, channels, kernel, padding=kernel // 2).to(memory_format=memory_format)
    ghost = GhostConv2d(channels, channels, kernel, padding=kernel // 2, ratio=ratio).eval().fused()
    ghost = ghost.to(memory_format=memory_format)
    input = torch.randn(batch, channels, size, size).to(memory_format=memory_format)
    ways = {
        "dense": lambda: dense(input),
        "ghost": lambda: ghost(input),
        "cat": lambda: concatenated(ghost, input),
        "in place": lambda: concatenated(ghost, input, True),
        "out=": lambda: into_buffer(ghost, input, memory_format),
        "primary": lambda: ghost.primary(input),
    }
    with torch.no_grad():
        for name in ("cat", "in place", "out="):
            same(ways[name](), ghost(input), f"{name} {problem}")
        median = {name: timing.median_ms for name, timing in time_all(ways).items()}
    return [
        f"{kernel}x{kernel}, {channels} ch, {size}²", batch, "channels_last" if channels_last else "NCHW", ratio,
        f"{median['dense']:.2f}", f"{median['ghost']:.2f}", f"{median['ghost'] / median['dense']:.3f}",
        f"{macs(ghost):.3f}", f"{median['primary'] / median['dense']:.3f}",
        *(f"{median[name] / median['ghost']:.2f}" for name in ("cat", "in place", "out=")),
    ]


def main() -> None:
    setting = prepare()
    rows = [measure(problem, layout) for layout in (True, False) for problem in PROBLEMS]
    columns = ["convolution", "batch", "layout", "s", "dense ms", "ghost ms", "ghost / dense", "MACs",
               "primary / dense", "cat / ghost", "in place / ghost", "out= / ghost"]
    notes = [f"forward, fused, medians of interleaved rounds; {setting}",
             "MACs: of the Ghost module over the dense convolution. primary: its first convolution alone."]
    report("ghost", Table(columns, rows, "Ghost module", notes))


if __name__ == "__main__":
    main()
