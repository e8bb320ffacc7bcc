"""Claim: `import leanconv` adds at most 0.3 s to `import torch`, and `leanconv --help` answers within 1 s.

    python benchmarks/start_up.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from setting import prepare, report

from leanconv.table import Table

ROUNDS = 7
EVERYTHING = "import leanconv; leanconv.nn, leanconv.ops, leanconv.plan, leanconv.swap, leanconv.fuse, leanconv.profile"
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "import leanconv": ["-c", "import leanconv"],
    "import leanconv and use each public name": ["-c", EVERYTHING],
    "leanconv --help": ["-m", "leanconv.cli", "--help"],
    "leanconv compare --help": ["-m", "leanconv.cli", "compare", "--help"],
}


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    setting = prepare()
    samples: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            samples[name].append(seconds(arguments))
    rows = [[name, f"{statistics.median(values):.2f}"] for name, values in samples.items()]
    notes = [f"medians of {ROUNDS} interleaved rounds; {setting}"]
    report("start_up", Table(["command", "s"], rows, "Start-up", notes))


if __name__ == "__main__":
    main()
