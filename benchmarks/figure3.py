"""The TBC paper's Fig. 3: time against the number of blocks of a tied, and of groups of a grouped convolution.

There, on a GPU, the grouped convolution's time grows with its groups while the tied one's stays. The protocol is ours,
the paper gives none: fixed channels in and out, 3x3, time against B = G, dense beside them, forward and forward with
backward. On a GPU where there is one, else on the CPU.

    python benchmarks/figure3.py
"""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from setting import RESULTS, prepare, report, same
from torch import nn

from leanconv.measure import device_name, interleaved
from leanconv.nn import TiedConv2d
from leanconv.table import Table

CHANNELS, SIZE, BATCH = 256, 28, 8
NUMBERS = (1, 2, 4, 8, 16, 32)
ROUNDS = 21


def forward(layer: nn.Module, input: torch.Tensor):
    def run():
        with torch.no_grad():
            layer(input)

    return run


def forward_and_backward(layer: nn.Module, input: torch.Tensor):
    leaf = input.clone(memory_format=torch.preserve_format).requires_grad_()

    def run():
        output = layer(leaf)
        torch.autograd.grad(output, (leaf, *layer.parameters()), torch.ones_like(output))

    return run


def main() -> None:
    setting = prepare()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.backends.cudnn.benchmark = True
        setting = f"{device_name(device)}, fp32, torch {torch.__version__}"
    rows, figure = [], Figure(figsize=(10, 4.2), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True)
    for row, channels_last in enumerate((True, False)):
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        input = torch.randn(BATCH, CHANNELS, SIZE, SIZE, device=device).to(memory_format=memory_format)
        layers: dict[str, nn.Module] = {"dense": nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)}
        for number in NUMBERS:
            tied = TiedConv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False, blocks=number)
            layers[f"tied {number}"], layers[f"grouped {number}"] = tied, tied.fused()
        layers = {name: layer.to(device, memory_format=memory_format) for name, layer in layers.items()}
        with torch.no_grad():
            for number in NUMBERS:
                same(layers[f"tied {number}"](input), layers[f"grouped {number}"](input), f"B = {number}")
        for column, (what, way) in enumerate((("forward", forward), ("forward + backward", forward_and_backward))):
            functions = {name: way(layer, input) for name, layer in layers.items()}
            times = interleaved(functions, rounds=ROUNDS, device=device)
            median = {name: f"{timing.median_ms:.2f}" for name, timing in times.items()}
            layout = "channels_last" if channels_last else "NCHW"
            panel = panels[row][column]
            for kind, colour in (("grouped", "#0072B2"), ("tied", "#D55E00")):
                medians = [times[f"{kind} {number}"].median_ms for number in NUMBERS]
                panel.plot(NUMBERS, medians, marker="o", color=colour, label=kind)
            panel.axhline(times["dense"].median_ms, color="#777777", linestyle="--", label="dense")
            panel.set(xscale="log", title=f"{what}, {layout}", ylabel="ms", ylim=(0, None), xticks=NUMBERS,
                      xticklabels=NUMBERS, xlabel="blocks B or groups G" if row else "")
            panel.minorticks_off()
            rows += [[what, layout, number, median["dense"], median[f"grouped {number}"], median[f"tied {number}"]]
                     for number in NUMBERS]
    panels[0][0].legend()
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "figure3.png", dpi=160)
    columns = ["pass", "layout", "B = G", "dense ms", "grouped ms", "tied ms"]
    notes = [f"3x3, {CHANNELS} channels, {SIZE}², batch {BATCH}; {setting}", "as a picture: results/figure3.png"]
    report("figure3", Table(columns, rows, "Time against blocks and groups (Fig. 3 protocol)", notes))


if __name__ == "__main__":
    main()
