"""Claim: on a GPU the dynamic filter takes at most 1.3 times as long as copying the bytes that it must read and write.

Compared in one interleaved run, in both memory formats: the filter, forward and all three gradients; a device copy of
as many bytes; a depthwise convolution of the same kernel, which has no filters of pixels. Each is captured CALLS times
in a CUDA graph, so that the time of launching is left out. Equality is checked first. Needs a GPU.

    python benchmarks/ddf_gpu.py
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from setting import report, same
from torch import Tensor

from leanconv.measure import device_name, interleaved
from leanconv.ops.dynamic import gpu, reference
from leanconv.ops.dynamic.geometry import Geometry
from leanconv.table import Table

PROBLEMS = [(64, 56), (128, 28), (256, 14), (512, 7), (256, 56)]  # channels, size
BATCH, CALLS = 128, 10
GEOMETRY = Geometry((3, 3), (1, 1), (1, 1), add=False)
FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


def captured(function):
    """CALLS calls as one graph."""
    for _ in range(3):
        function()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            function()
    return graph.replay


def size_of(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def copy_of(bytes: int, device: str):
    """A copy that reads and writes that many bytes together."""
    source = torch.zeros(bytes // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def check(tensors: list[Tensor], gradient: Tensor, what: str) -> None:
    """The first images, in float32, against the definition in float64."""
    some, sensitivity = [tensor[:2].float() for tensor in tensors], gradient[:2].float()
    leaves = [tensor.double().requires_grad_() for tensor in some]
    output = reference.ddf(*leaves, GEOMETRY)
    same(torch.ops.leanconv.ddf(*some, *GEOMETRY), output.detach().float(), what)
    found = torch.ops.leanconv.ddf_backward(sensitivity, *some, *GEOMETRY[:4], [True] * 3)
    expected = torch.autograd.grad(output, leaves, sensitivity.double())
    for actual, right in zip(found, expected, strict=True):
        same(actual, right.float(), f"{what} backward")


def measure(problem: tuple[int, int], dtype: torch.dtype, layout: str, device: str = "cuda") -> list[object]:
    channels, size = problem

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, device=device).to(dtype).contiguous(memory_format=FORMATS[layout])

    input, spatial, gradient = (random(BATCH, rows, size, size) for rows in (channels, 9, channels))
    channel, weight = (random(count, width, 3, 3).contiguous() for count, width in ((BATCH, channels), (channels, 1)))
    check([input, channel, spatial], gradient, f"{problem} {layout}")
    tensors = (input, channel, spatial)
    depthwise = ([1, 1], [1, 1], [1, 1], False, [0, 0], channels, [True, True, False])
    ways = {
        "forward": lambda: torch.ops.leanconv.ddf(*tensors, *GEOMETRY),
        "copy": copy_of(size_of(*tensors, input), device),
        "depthwise": lambda: F.conv2d(input, weight, None, 1, 1, 1, channels),
        "backward": lambda: torch.ops.leanconv.ddf_backward(gradient, *tensors, *GEOMETRY[:4], [True] * 3),
        "copy back": copy_of(size_of(gradient, *tensors, *tensors), device),
        "depthwise back": lambda: torch.ops.aten.convolution_backward(gradient, input, weight, None, *depthwise),
    }
    times = interleaved({name: captured(function) for name, function in ways.items()}, rounds=31, device=device)
    microseconds = {name: 1000 * timing.median_ms / CALLS for name, timing in times.items()}
    row: list[object] = [f"{channels} ch, {size}²", str(dtype).removeprefix("torch."), layout]
    for ours, copied, deep in (("forward", "copy", "depthwise"), ("backward", "copy back", "depthwise back")):
        row.append(f"{microseconds[ours]:.1f}")
        row += [f"{microseconds[ours] / microseconds[other]:.2f}" for other in (copied, deep)]
    return row


def main() -> None:
    if not gpu.available(torch.float32):
        raise SystemExit("this benchmark needs a GPU and triton; none was found, so nothing was measured")
    torch.manual_seed(0)
    rows = [measure(problem, dtype, layout) for dtype in (torch.float32, torch.bfloat16) for layout in FORMATS
            for problem in PROBLEMS]
    beside = ["/ copy", "/ depthwise"]
    columns = ["input", "dtype", "layout", "forward µs", *beside, "backward µs", *beside]
    notes = [f"batch {BATCH}, 3x3, one head, medians of interleaved rounds of CUDA graphs; {device_name('cuda')}, "
             f"torch {torch.__version__}",
             "copy: as many bytes as the filter must read and write. Small inputs and their copies stay in the cache."]
    report("ddf_gpu", Table(columns, rows, "Dynamic filter on a GPU", notes))


if __name__ == "__main__":
    main()
