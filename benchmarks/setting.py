"""What every benchmark shares: two threads, one line that names the machine, and a result folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from leanconv.measure import Timing, device_name, interleaved
from leanconv.table import Table

RESULTS = Path(__file__).parent / "results"
THREADS = 2


def prepare() -> str:
    """Sets the threads and the seed, and names what the figures hold for."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    return f"{device_name('cpu')} of {os.cpu_count()}, fp32, torch {torch.__version__}"


def same(actual: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    """Ends the benchmark where two ways to the same numbers don't give the same numbers."""
    difference = float((actual - expected).abs().max() / expected.abs().max())
    if not difference < 1e-4:
        raise SystemExit(f"{what}: relative difference {difference:.1e}; no time is worth reporting")


def time_all(functions: Mapping[str, object], rounds: int = 31) -> dict[str, Timing]:
    """Interleaved medians of functions that were shown to be equal."""
    return interleaved(functions, rounds=rounds, warmup=3, minimum_seconds=0.01)  # type: ignore[arg-type]


def report(name: str, table: Table) -> None:
    """Prints a table, and keeps it beside the scripts."""
    from rich.console import Console

    Console(width=140).print(table)
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / f"{name}.csv")
    (RESULTS / f"{name}.txt").write_text(str(table) + "\n", encoding="utf-8")
