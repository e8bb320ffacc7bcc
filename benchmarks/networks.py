"""Claim: the papers' networks are faster than the dense ones they replace, by which part of the saved operations.

Each beside its dense counterpart, fused, in channels_last at 224 × 224, interleaved. "realised" is the share of time
saved over the share of multiply-accumulates saved: 1 where time falls as they do.

    python benchmarks/networks.py                   every network, batch 1, eager
    python benchmarks/networks.py --batch 16
    python benchmarks/networks.py --compiled        torch.compile, with the weights frozen into the graph
    python benchmarks/networks.py resnet50          only the networks that replace this one
"""

from __future__ import annotations

import argparse
import sys

import timm
import torch
from rich.progress import track
from setting import prepare, report, same, time_all
from torch import nn

import leanconv as lc
import leanconv.models
from leanconv.table import Table

REPLACED = {  # by dense network, those that take its place
    "resnet50": [
        "tied_resnet50", "tied_resnet50_s", "tied_gcresnet50", "ddf_mul_resnet50", "ddf_add_resnet50",
        "ghost_resnet50_s2", "ghost_resnet50_s4", "split_resnet50_a2", "split_resnet50_a4", "split_resnet50_a8",
        "ac_resnet50",
    ],
    "resnet101": ["tied_resnet101", "tied_resnet101_s", "ddf_mul_resnet101", "split_resnet101_a2"],
    "resnet18": ["ddf_resnet18", "ac_resnet18"],
    "resnext50_32x4d": ["tied_resnext50", "tied_resnext50_s"],
    "seresnet50": ["tied_senet50", "tied_seresnet50"],
    "densenet121": ["ac_densenet121"],
    "efficientnet_b0": ["tied_efficientnet_b0"],
    "mobilenetv3_large_100": ["ghostnet_x050", "ghostnet_x100", "ghostnet_x130"],
}


def network(name: str) -> tuple[nn.Module, int, int]:
    """A network in channels_last with random norms, its parameters, and its multiply-accumulates for one image."""
    model = timm.create_model(name).eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.weight, 0.5, 1)
    cost = lc.measure.count(model, (1, 3, 224, 224))
    return model.to(memory_format=torch.channels_last), cost.params, cost.macs


def measure(dense: str, batch: int, compiled: bool) -> list[list[object]]:
    input = torch.randn(batch, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    functions, costs = {}, {}
    for name in track([dense, *REPLACED[dense]], f"building those of {dense}", transient=True):
        model, *costs[name] = network(name)
        fused = lc.fuse(model, input[:1])
        run = torch.compile(fused) if compiled else fused
        with torch.no_grad():
            same(run(input), model(input), name)
        functions[name] = lambda run=run: run(input)
    with torch.no_grad():
        times = time_all(functions, 31 if batch == 1 else 7)
    base = times[dense].median_ms
    rows = []
    for name, (params, macs) in costs.items():
        faster, fewer = 1 - times[name].median_ms / base, 1 - macs / costs[dense][1]
        realised = f"{faster / fewer:.2f}" if fewer > 0.02 else ""
        rows.append([name, f"{params / 1e6:.2f}", f"{macs / 1e9:.3f}", f"{1 - fewer:.3f}", str(times[name]),
                     f"{1 - faster:.2f}", realised])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dense", nargs="*", help=f"of {', '.join(REPLACED)}; all by default")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--compiled", action="store_true")
    chosen = parser.parse_args()
    if strangers := [name for name in chosen.dense if name not in REPLACED]:
        sys.exit(f"{parser.prog}: dense must be of {', '.join(REPLACED)}, got {', '.join(strangers)}")
    setting = prepare()
    if chosen.compiled:
        torch._inductor.config.freezing = True
        torch._dynamo.config.recompile_limit = 64  # the networks share their blocks' code
    names = chosen.dense or list(REPLACED)
    rows = [row for name in names for row in measure(name, chosen.batch, chosen.compiled)]
    columns = ["network", "M params", "G MACs", "MACs / dense", "ms (quartiles)", "ms / dense", "realised"]
    way = "compiled and frozen" if chosen.compiled else "eager"
    title = f"Networks of the papers beside those they replace: fused, {way}, channels_last, batch {chosen.batch}"
    of = "" if len(names) == len(REPLACED) else f"_{'_'.join(names)}"
    report(f"networks_{way.split()[0]}_{chosen.batch}{of}", Table(columns, rows, title, [setting]))


if __name__ == "__main__":
    main()
