"""Claim: on a CPU, the dynamic filter takes about the time and the memory of a depthwise convolution of its shape.

Compared in one interleaved run: `F.conv2d` with groups = channels; the operator that launches the native kernels;
`ddf`, which adds checks and gradients to it; the definition, one shifted slice a tap, which runs where there is no
compiler; the definition under torch.compile; and windows by `F.unfold`, as the operator is often written. Equality is
checked first. Backward rows are a forward and all three gradients. The process keeps the memory that it frees, as a
training loop's does: what the system takes for new pages is no part of the times.

    python benchmarks/ddf_cpu.py [forward | backward | more | start | memory]
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile

import torch
import torch.nn.functional as F
from setting import prepare, report, same, time_all
from torch import Tensor

from leanconv.ops import ddf, ddf_up, filter_norm, native
from leanconv.ops.dynamic import cpu, reference
from leanconv.ops.dynamic.ddf import dynamic_filter
from leanconv.ops.dynamic.geometry import Geometry
from leanconv.ops.dynamic.norms import Norms
from leanconv.table import Table

# batch, channels, size
PROBLEMS = [(8, 64, 56), (8, 256, 28), (8, 512, 14), (8, 512, 7), (1, 256, 56)]
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
PLAIN = Geometry((3, 3), (1, 1), (1, 1), add=False)


def keep_memory() -> None:
    """Tells glibc to return no memory to the system between calls."""
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
    libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def tensors_of(problem, memory_format, dtype=torch.float32, stride=1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The input, a filter for each sample and channel, one for each pixel, and one of a depthwise convolution."""
    batch, channels, size = problem
    outputs = -(-size // stride)
    return (torch.randn(batch, channels, size, size).to(dtype).to(memory_format=memory_format),
            torch.randn(batch, channels, 3, 3).to(dtype),
            torch.randn(batch, 9, outputs, outputs).to(dtype).to(memory_format=memory_format),
            torch.randn(channels, 1, 3, 3).to(dtype))


def by_unfold(input: Tensor, channel: Tensor, spatial: Tensor) -> Tensor:
    batch, channels, height, width = input.shape
    windows = F.unfold(input, 3, padding=1).view(batch, channels, 9, height, width)
    return (windows * (channel.flatten(2)[..., None, None] * spatial[:, None])).sum(2)


def up_by_unfold(input: Tensor, channel: Tensor, spatial: Tensor) -> Tensor:
    """Each sub-pixel's filter by windows, then shuffled."""
    branches = [by_unfold(input, c, s) for c, s in zip(channel.chunk(4, 1), spatial.chunk(4, 1), strict=True)]
    return F.pixel_shuffle(torch.stack(branches, 2).flatten(1, 2), 2)


def median(functions, rounds=21) -> dict[str, float]:
    return {name: timing.median_ms for name, timing in time_all(functions, rounds).items()}


def gradients(function, *tensors):
    """A forward and a backward pass with respect to all tensors, as a function without arguments."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    with torch.no_grad():
        output = function(*tensors)
    sensitivity = torch.randn_like(output)
    return lambda: torch.autograd.grad(function(*leaves), leaves, sensitivity)


def forward_row(problem, layout: str, stride: int) -> list[object]:
    input, channel, spatial, weight = tensors_of(problem, LAYOUTS[layout], stride=stride)
    geometry = Geometry((3, 3), (stride, stride), (1, 1), add=False)
    definition = reference.ddf(input.double(), channel.double(), spatial.double(), geometry)
    ways = {
        "depthwise": lambda: F.conv2d(input, weight, None, stride, 1, 1, len(weight)),
        "operator": lambda: torch.ops.leanconv.ddf(input, channel, spatial, *geometry),
        "ddf": lambda: ddf(input, channel, spatial, stride=stride),
        "slices": lambda: off(ways["ddf"]),
    }
    if stride == 1:
        ways["unfold"] = lambda: by_unfold(input, channel, spatial)
    for name, function in ways.items():
        if name != "depthwise":
            same(function(), definition, f"{name} {problem}")
    times = median({name: ways[name] for name in ("depthwise", "operator", "ddf")}, 41)
    others = median({name: function for name, function in ways.items() if name not in ("depthwise", "operator")}, 5)
    return [named(problem, stride), layout, *(f"{times[name]:.3f}" for name in ("depthwise", "operator", "ddf")),
            f"{times['operator'] / times['depthwise']:.2f}", f"{times['ddf'] / times['depthwise']:.2f}",
            f"{others['slices'] / others['ddf']:.0f}", f"{others['unfold'] / others['ddf']:.0f}" if stride == 1 else ""]


def forward_rows() -> list[list[object]]:
    return [forward_row(problem, layout, stride) for layout in LAYOUTS
            for problem, stride in [*((each, 1) for each in PROBLEMS), ((8, 256, 28), 2)]]


def off(function):
    with native.using(None):
        return function()


def named(problem, stride=1) -> str:
    batch, channels, size = problem
    return f"{batch}×{channels}×{size}²" + (f" /{stride}" if stride > 1 else "")


def backward_rows() -> list[list[object]]:
    rows = []
    for layout, memory_format in LAYOUTS.items():
        for problem in PROBLEMS:
            input, channel, spatial, weight = tensors_of(problem, memory_format)
            leaves = [tensor.double().requires_grad_() for tensor in (input, channel, spatial)]
            sensitivity = torch.randn_like(input)
            expected = torch.autograd.grad(reference.ddf(*leaves, PLAIN), leaves, sensitivity.double())
            found = cpu.backward(sensitivity, input, channel, spatial, PLAIN, [True] * 3)
            for actual, right in zip(found, expected, strict=True):
                same(actual, right, f"gradient {problem}")
            times = median({
                "depthwise": gradients(lambda x, w: F.conv2d(x, w, None, 1, 1, 1, len(w)), input, weight),
                "ddf": gradients(ddf, input, channel, spatial),
            }, 9)
            rows.append([named(problem), layout, f"{times['depthwise']:.2f}", f"{times['ddf']:.2f}",
                         f"{times['ddf'] / times['depthwise']:.2f}"])
    return rows


def more_rows() -> list[list[object]]:
    """Other ways to the same numbers, each against ours."""
    rows = []

    def add(what, layout, ours, other, equal=True):
        with torch.no_grad():
            if equal:
                same(ours(), other(), what)
            times = median({"ours": ours, "other": other}, 11)
        ratio = times["ours"] / times["other"]
        rows.append([what, layout, f"{times['ours']:.3f}", f"{times['other']:.3f}", f"{ratio:.2f}"])

    compiled = torch.compile(lambda *tensors: reference.ddf(*tensors, PLAIN))
    operator = torch.compile(lambda *tensors: ddf(*tensors))
    for layout, memory_format in LAYOUTS.items():
        problem = (8, 256, 28)
        input, channel, spatial, weight = tensors_of(problem, memory_format)
        half = [tensor.bfloat16() for tensor in (input, channel, spatial, weight)]
        add("bfloat16 / depthwise in bfloat16", layout, lambda half=half: ddf(*half[:3]),
            lambda half=half: F.conv2d(half[0], half[3], None, 1, 1, 1, 256), equal=False)
        add("compiled operator / compiled slices", layout, lambda t=(input, channel, spatial): operator(*t),
            lambda t=(input, channel, spatial): compiled(*t))
        scales = torch.rand(256 * 9), torch.full((9,), 0.4714)
        norms = Norms(scales[0], None, scales[1], None, None)
        add("filters normalised on the way / before", layout,
            lambda t=(input, channel, spatial), n=norms: dynamic_filter(*t, 3, 1, 1, norms=n),
            lambda t=(input, channel, spatial), s=scales: ddf(t[0], filter_norm(t[1].flatten(1), 9, s[0]).view_as(t[1]),
                                                             filter_norm(t[2], 9, s[1])))
        small = torch.randn(1, 256, 25, 40).to(memory_format=memory_format)
        filters = torch.randn(1, 1024, 3, 3), torch.randn(1, 36, 25, 40).to(memory_format=memory_format)
        add("ddf_up 256×25×40 / by unfold", layout, lambda t=(small, *filters): ddf_up(*t),
            lambda t=(small, *filters): up_by_unfold(*t))
    return rows


START = """
import time, torch
from leanconv.ops import native
from leanconv.ops.dynamic import cpu
start = time.perf_counter()
assert cpu.available(torch.float32), native.report()
native.team()
print(time.perf_counter() - start)
"""

PEAK = """
import ctypes, resource, sys, torch
ctypes.CDLL(None).mallopt(-3, 1 << 20)  # large tensors go back to the system at once: holes in the heap aren't counted
import torch.nn.functional as F
from leanconv.ops import ddf
torch.set_num_threads(2)
x = torch.randn(8, 64, 112, 112)
if sys.argv[2] == "channels_last":
    x = x.contiguous(memory_format=torch.channels_last)
small = [torch.randn(1, 64, 8, 8), torch.randn(1, 64, 3, 3), torch.randn(1, 9, 8, 8), torch.randn(64, 1, 3, 3)]
def ours(x, c, s): return ddf(x, c, s)
def conv(x, w): return F.conv2d(x, w, None, 1, 1, 1, 64)
def both(function, *tensors):
    leaves = [tensor.requires_grad_() for tensor in tensors]
    output = function(*leaves)
    return torch.autograd.grad(output, leaves, torch.ones_like(output))
both(ours, *small[:3])
both(conv, small[0].detach(), small[3])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.argv[1] == "ddf":
    both(ours, x, torch.randn(8, 64, 3, 3), torch.randn(8, 9, 112, 112))
else:
    both(conv, x, torch.randn(64, 1, 3, 3))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def said(script: str, *arguments: str, **environment: str) -> float:
    done = subprocess.run([sys.executable, "-c", script, *arguments], env=os.environ | environment, check=True,
                          capture_output=True, text=True)
    return float(done.stdout)


def start_rows() -> list[list[object]]:
    with tempfile.TemporaryDirectory() as folder:
        first = said(START, XDG_CACHE_HOME=folder)
        later = sorted(said(START, XDG_CACHE_HOME=folder) for _ in range(3))[1]
    return [["first process, compiling", f"{first * 1e3:.0f}"], ["later processes", f"{later * 1e3:.1f}"]]


def memory_rows() -> list[list[object]]:
    rows = []
    for layout in LAYOUTS:
        ours, theirs = said(PEAK, "ddf", layout), said(PEAK, "depthwise", layout)
        rows.append(["8×64×112²", layout, f"{theirs:.0f}", f"{ours:.0f}", f"{ours / theirs:.2f}"])
    return rows


TABLES = {
    "forward": (forward_rows, "Dynamic filter, forward",
                ["problem", "layout", "depthwise ms", "operator ms", "ddf ms", "operator / depthwise",
                 "ddf / depthwise", "slices / ddf", "unfold / ddf"]),
    "backward": (backward_rows, "Dynamic filter, forward and three gradients",
                 ["problem", "layout", "depthwise ms", "ddf ms", "ddf / depthwise"]),
    "more": (more_rows, "Dynamic filter against other ways",
             ["ours / other", "layout", "ours ms", "other ms", "ratio"]),
    "start": (start_rows, "Native kernels, until they can be called", ["process", "ms"]),
    "memory": (memory_rows, "Peak memory of forward and backward, above the weights' and the library's",
               ["problem", "layout", "depthwise MiB", "ddf MiB", "ratio"]),
}


def main() -> None:
    setting = prepare()
    keep_memory()
    if not cpu.available(torch.float32):
        raise SystemExit(f"there are no native kernels: {native.report()}")
    for name in sys.argv[1:] or TABLES:
        rows, title, columns = TABLES[name]
        notes = [f"3×3, medians of interleaved rounds; {setting}"]
        report(f"ddf_cpu_{name}", Table(columns, rows(), title, notes))


if __name__ == "__main__":
    main()
