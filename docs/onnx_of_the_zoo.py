"""Writes onnx.md, the ONNX files of leanconv's networks: `python docs/onnx_of_the_zoo.py`.

It goes on where it was stopped: what is found of each network is kept in benchmarks/results/onnx_of_the_zoo.csv. Delete
a line there, or the file, to have it found anew.
"""

from __future__ import annotations

import csv
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from counting import table
from torch import nn

import leanconv as lc
from leanconv.files import write, write_csv
from leanconv.models import create, list_models

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results" / "onnx_of_the_zoo.csv"
COLUMNS = ("network", "image", "sizes left open", "largest relative difference", "MB", "seconds")
SMALL, SIZES = 64, {"ac_alexnet": 224}  # pixels; networks for CIFAR take their 32
OPEN: dict[str, bool | Literal["batch"]] = {"batch, height, width": True, "batch": "batch"}

INTRODUCTION = """\
# The networks as ONNX files

Each of leanconv's networks, with its default number of classes, random weights and random norm statistics, exported by
`leanconv.export_onnx` and run by ONNX Runtime on the CPU beside PyTorch. The check is of two images of the size named,
and of one image 13 pixels higher and 27 wider, where height and width are left open.

* **largest relative difference**: between any two outputs, over the largest output. 1e-4 is the limit.
* **MB**: of the file, 10⁶ bytes.
* **seconds**: export and check, on one thread of a busy machine.

`python docs/onnx_of_the_zoo.py` exports all anew and writes this page. See [export.md](export.md) for how to."""


def randomise(model: nn.Module) -> nn.Module:
    """The model with norms that do something."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return model.eval()


def found(name: str) -> list[str]:
    """The line of one network; height and width stay fixed where it can't be otherwise."""
    torch.manual_seed(0)
    model = randomise(create(name))
    size = SIZES.get(name, min(SMALL, model.pretrained_cfg["input_size"][-1]))
    for open, dynamic in OPEN.items():
        begin = time.perf_counter()
        with TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.onnx"
            try:
                difference = lc.export_onnx(model, path, (2, 3, size, size), dynamic=dynamic)
            except (RuntimeError, ValueError) as error:
                print(f"{name}, {open} open: {error}", flush=True)
                continue
            megabytes = path.stat().st_size / 1e6
        return [name, f"{size}x{size}", open, f"{difference:.1e}", f"{megabytes:.1f}",
                f"{time.perf_counter() - begin:.0f}"]
    return [name, f"{size}x{size}", "✗", "", "", ""]


def page(rows: list[list[str]]) -> str:
    """The whole of onnx.md."""
    lines = [[f"`{name}`", *rest] for name, *rest in rows]
    return f"{INTRODUCTION}\n\n{table(list(COLUMNS), lines)}\n"


def kept() -> dict[str, list[str]]:
    """The lines found so far, by network."""
    if not RESULTS.exists():
        return {}
    with open(RESULTS, newline="", encoding="utf-8") as file:
        return {row[0]: row for row in list(csv.reader(file))[1:]}


def keep(rows: list[list[str]]) -> None:
    """Writes the lines found so far."""
    write_csv(RESULTS, COLUMNS, rows)


def main() -> None:
    known, names = kept(), list_models("*", own=True)
    for name in names:
        if name not in known:
            known[name] = found(name)
            print(*known[name], sep=", ", flush=True)
            keep([known[each] for each in names if each in known])
    write(DOCS / "onnx.md", page([known[name] for name in names]))


if __name__ == "__main__":
    main()
