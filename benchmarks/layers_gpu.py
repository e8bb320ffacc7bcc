"""Claim: what every layer costs on a GPU beside the dense one that it replaces, in eager mode and compiled.

Compared in one interleaved run for each batch and dtype: a dense 3x3 `nn.Conv2d`, the layers of `leanconv.nn` of the
same channels, and for the upsampling layer a transposed convolution. Inference is of the fused layers; training is
forward and backward. Everything is channels_last. Equality with the CPU in float64 is checked first. Needs a GPU.

    python benchmarks/layers_gpu.py
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from setting import report, same
from torch import Tensor, nn

from leanconv.measure import device_name, interleaved
from leanconv.nn import DDF, AsymmetricConv2d, DDFUp, GhostConv2d, SplitConv2d, TiedConv2d
from leanconv.table import Table

CHANNELS, SIZE = 256, 28
CONV = (CHANNELS, CHANNELS, 3, 1, 1)
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "dense": lambda: nn.Conv2d(*CONV),
    "tied, 4 blocks": lambda: TiedConv2d(*CONV, blocks=4),
    "asymmetric": lambda: AsymmetricConv2d(*CONV),
    "ghost": lambda: GhostConv2d(*CONV),
    "split": lambda: SplitConv2d(*CONV),
    "ddf": lambda: DDF(CHANNELS),
    "transposed, x2": lambda: nn.ConvTranspose2d(CHANNELS, CHANNELS, 4, 2, 1),
    "ddf_up, x2": lambda: DDFUp(CHANNELS),
}
BATCHES, DTYPES = (1, 64), (torch.float32, torch.bfloat16)


def for_inference(layer: nn.Module) -> nn.Module:
    layer = copy.deepcopy(layer).eval().requires_grad_(False)
    return layer.fused() if hasattr(layer, "fused") and not isinstance(layer, TiedConv2d) else layer


def step(layer: nn.Module, input: Tensor) -> Callable[[], object]:
    """One forward and backward pass as it is trained."""
    parameters = [parameter for parameter in layer.parameters() if parameter.requires_grad]

    def run() -> object:
        output = layer(input)
        return torch.autograd.grad(output, [input, *parameters], torch.ones_like(output))

    return run


def check(name: str, layer: nn.Module, input: Tensor) -> None:
    """As it is inferred on the device, exact sums and all, against the CPU."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    with torch.no_grad():
        found = for_inference(layer)(input)
        same(found.cpu(), layer.eval().cpu().double()(input.cpu().double()).float(), name)
    torch.backends.cudnn.allow_tf32 = allowed


def measure(batch: int, dtype: torch.dtype, device: str = "cuda") -> list[list[object]]:
    torch.compiler.reset()
    where = dict(device=device, dtype=dtype, memory_format=torch.channels_last)
    layers = {name: make().to(**where) for name, make in LAYERS.items()}
    input = torch.randn(batch, CHANNELS, SIZE, SIZE).to(**where)
    leaf = input.clone().requires_grad_()
    ways = {}
    for name, layer in layers.items():
        check(name, copy.deepcopy(layer).float(), input[:2].float())
        fused = for_inference(layer)
        compiled = torch.compile(fused, fullgraph=True)
        ways[name, "inference", "eager"] = lambda fused=fused: fused(input)
        ways[name, "inference", "compiled"] = lambda compiled=compiled: compiled(input)
        ways[name, "training", "eager"] = step(layer.train(), leaf)
        ways[name, "training", "compiled"] = step(torch.compile(layer, fullgraph=True), leaf)
    times = interleaved({str(key): function for key, function in ways.items()}, rounds=21, device=device)
    median = {key: times[str(key)].median_ms for key in ways}
    rows = []
    for name in layers:
        whole = "transposed, x2" if "x2" in name else "dense"
        cells = [
            cell for use in ("inference", "training") for how in ("eager", "compiled")
            for cell in (f"{median[name, use, how]:.3f}", f"{median[name, use, how] / median[whole, use, how]:.2f}")
        ]
        rows.append([name, batch, str(dtype).removeprefix("torch."), *cells])
    return rows


def main() -> None:
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a GPU; none was found, so nothing was measured")
    torch.manual_seed(0)
    rows = [row for batch in BATCHES for dtype in DTYPES for row in measure(batch, dtype)]
    uses = [f"{use}{how}" for use in ("inference", "training") for how in ("", ", compiled")]
    columns = ["layer", "batch", "dtype", *(cell for use in uses for cell in (f"{use} ms", "/ dense"))]
    notes = [f"3x3, {CHANNELS} channels, {SIZE}², channels_last, medians of interleaved rounds; {device_name('cuda')}, "
             f"torch {torch.__version__}",
             "Inference: fused, but for the tied layer. Training: forward and backward. The layers of twice the size "
             "are beside the transposed convolution. float32 convolutions are in TF32, as PyTorch has it by default."]
    report("layers_gpu", Table(columns, rows, "Layers on a GPU", notes))


if __name__ == "__main__":
    main()
