"""Claim: DDF-Up is at least five times as fast as CARAFE written with `unfold` as its equation says, kernel for kernel.

Both enlarge 256 channels of 25 x 40 twofold. CARAFE (Wang et al., ICCV 2019, Eq. 1 to 4): a 1x1 convolution to 64
channels, a 3x3 one to 4 k² maps, a softmax over the k² taps of each sub-pixel, and the weighted sum of the window
around each source pixel, the same for all channels. Two ways to that sum: the windows unfolded, enlarged and multiplied
(as the equation says), or unfolded and multiplied by the filters of one sub-pixel after the other (the fastest of four
forms tried). With CARAFE's filters `ops.ddf_up` gives the same sum, which is checked first; "op" times that sum alone.

    python benchmarks/ddf_up.py
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from setting import prepare, report, same, time_all
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from leanconv.nn import DDFUp
from leanconv.ops import ddf_up
from leanconv.table import Table

CHANNELS, SQUEEZED = 256, 64
SIZES = ((25, 40), (50, 80), (100, 160))  # of a pyramid's maps at 800 x 1280, from the top


class KernelPrediction(nn.Module):
    """CARAFE's filters (N, 4 k², H, W), sub-pixel by sub-pixel."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.compress = nn.Conv2d(CHANNELS, SQUEEZED, 1)
        self.encode = nn.Conv2d(SQUEEZED, 4 * kernel * kernel, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        return self.encode(self.compress(input)).unflatten(1, (4, -1)).softmax(2).flatten(1, 2)


def enlarged(input: Tensor, filters: Tensor, kernel: int) -> Tensor:
    """The sum as its equation says: every window at every place of the output, times the filter there."""
    batch, channels, height, width = input.shape
    windows = F.unfold(input, kernel, padding=kernel // 2).view(batch, -1, height, width)
    windows = F.interpolate(windows, scale_factor=2).view(batch, channels, kernel * kernel, 2 * height, 2 * width)
    by_tap = filters.unflatten(1, (4, -1)).transpose(1, 2).flatten(1, 2)
    return (windows * F.pixel_shuffle(by_tap, 2)[:, None]).sum(2)


def by_branch(input: Tensor, filters: Tensor, kernel: int) -> Tensor:
    """The same, with the windows at the input's size, times the filters of one sub-pixel after the other."""
    batch, channels, height, width = input.shape
    windows = F.unfold(input, kernel, padding=kernel // 2).view(batch, channels, kernel * kernel, height, width)
    branches = filters.unflatten(1, (4, -1)).unbind(1)
    outputs = torch.stack([(windows * filter[:, None]).sum(2) for filter in branches], 2)
    return F.pixel_shuffle(outputs.flatten(1, 2), 2)


def macs(kernel: int) -> float:
    """Billions of multiply-accumulates of the three modules: of their convolutions, and of applying the filters."""
    layer, total = DDFUp(CHANNELS, kernel_size=kernel), 0
    for height, width in SIZES:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            layer(torch.zeros(1, CHANNELS, height, width))
        counts = counter.get_flop_counts()["Global"]
        filtering = sum(count for name, count in counts.items() if "leanconv" in str(name))
        total += counter.get_total_flops() / 2 - filtering / 2
        total += 4 * CHANNELS * kernel * kernel * height * width
    return total / 1e9


def measure(kernel: int, channels_last: bool) -> list[object]:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    input = torch.randn(1, CHANNELS, *SIZES[0]).contiguous(memory_format=memory_format)
    layer = DDFUp(CHANNELS, kernel_size=kernel).to(memory_format=memory_format)
    predict = KernelPrediction(kernel).to(memory_format=memory_format)
    filters = predict(input)
    ours = partial(ddf_up, input, None, filters, 2, kernel)
    for name, way in (("enlarged", enlarged), ("by branch", by_branch)):
        same(ours(), way(input, filters, kernel), f"{name}, k {kernel}")
    times = time_all({
        "ddf": lambda: layer(input),
        "enlarged": lambda: enlarged(input, predict(input), kernel),
        "by branch": lambda: by_branch(input, predict(input), kernel),
        "ours": lambda: ddf_up(input, None, predict(input), 2, kernel),
        "op": ours,
        "enlarged op": lambda: enlarged(input, filters, kernel),
        "by branch op": lambda: by_branch(input, filters, kernel),
    })
    median = {name: timing.median_ms for name, timing in times.items()}
    layout = "channels_last" if channels_last else "NCHW"
    ratios = (median["enlarged"] / median["ddf"], median["by branch"] / median["ddf"],
              median["enlarged op"] / median["op"], median["by branch op"] / median["op"])
    return [kernel, layout, *(f"{median[name]:.2f}" for name in ("ddf", "ours", "enlarged", "by branch")),
            *(f"{ratio:.1f}" for ratio in ratios)]


def main() -> None:
    setting = prepare()
    with torch.no_grad():
        rows = [measure(kernel, layout) for kernel in (3, 5) for layout in (True, False)]
    columns = ["k", "layout", "DDF-Up ms", "CARAFE, our op ms", "enlarged ms", "by branch ms", "enlarged / DDF-Up",
               "by branch / DDF-Up", "op: enlarged / ours", "op: by branch / ours"]
    counts = ", ".join(f"k {kernel}: {macs(kernel):.3f} G" for kernel in (3, 5))
    notes = [f"{CHANNELS} channels, 25x40 to 50x80, batch 1, forward, medians of interleaved rounds; {setting}",
             "CARAFE in full with its sum by our op, windows enlarged, or taken branch by branch; op: the sum alone.",
             f"MACs of three DDF-Up modules in a pyramid at 800 x 1280, {counts}"]
    report("ddf_up_carafe", Table(columns, rows, "DDF-Up and CARAFE", notes))


if __name__ == "__main__":
    main()
