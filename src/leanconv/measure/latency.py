"""How long functions take, side by side: interleaved runs, so that a slow moment of the machine hits all alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Function = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Milliseconds a call takes: the median and the quartiles over the rounds.

    >>> print(Timing(median_ms=2.0, low_ms=1.9, high_ms=2.25, rounds=30))
    2.000 (1.900–2.250)
    """

    median_ms: float
    low_ms: float
    high_ms: float
    rounds: int

    def __str__(self) -> str:
        digits = 3 if self.median_ms < 10 else 1
        return f"{self.median_ms:.{digits}f} ({self.low_ms:.{digits}f}–{self.high_ms:.{digits}f})"


def interleaved(
    functions: Mapping[str, Function],
    *,
    rounds: int = 30,
    warmup: int = 3,
    minimum_seconds: float = 0.002,
    device: str | torch.device = "cpu",
) -> dict[str, Timing]:
    """Times functions by turns: each round takes one sample of each, and who goes first rotates from round to round.

    Compare the medians of one call; the medians of two calls were taken on two different machines, so to speak.

    Args:
        functions: the functions by name, called without arguments.
        rounds: samples of each function.
        warmup: calls of each function before the first sample; the fastest tells how often a sample repeats it.
        minimum_seconds: a sample repeats its function until about this long, and is divided by the repetitions.
        device: where the work runs; on a GPU each sample waits until the work is done.

    Returns:
        One `Timing` a function, under its name.

    Raises:
        ValueError: without functions, or when rounds or warmup is less than 1.

    >>> timings = interleaved({"add": lambda: 1 + 1, "sum": lambda: sum(range(10_000))}, rounds=5)
    >>> timings["add"].median_ms < timings["sum"].median_ms
    True
    """
    if not functions:
        raise ValueError("functions must name at least one function to time, got none")
    for name, number in (("rounds", rounds), ("warmup", warmup)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    device = torch.device(device)
    repeats = {}
    for name, function in functions.items():
        fastest = min(seconds(function, 1, device) for _ in range(warmup))
        repeats[name] = max(1, math.ceil(minimum_seconds / fastest))
    samples: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            samples[name].append(seconds(functions[name], repeats[name], device))
    return {name: timing(samples[name]) for name in names}


def seconds(function: Function, repeats: int, device: torch.device) -> float:
    """Seconds of one call, the mean over the repeats."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    synchronize(device)
    return (time.perf_counter() - start) / repeats


def synchronize(device: torch.device) -> None:
    """Waits until a device has done its work; on the CPU it has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def timing(samples: list[float]) -> Timing:
    """The quartiles of samples in seconds.

    >>> timing([0.004, 0.001, 0.002, 0.003, 0.005])
    Timing(median_ms=3.0, low_ms=2.0, high_ms=4.0, rounds=5)
    """
    quarters = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    low, median, high = (1000 * torch.tensor(samples, dtype=torch.float64).quantile(quarters)).tolist()
    return Timing(median_ms=median, low_ms=low, high_ms=high, rounds=len(samples))
