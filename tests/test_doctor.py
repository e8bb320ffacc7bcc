"""What the doctor says of this machine, and of one without kernels."""

from __future__ import annotations

import os
import subprocess
import sys

from leanconv.doctor import examine
from leanconv.ops import native
from leanconv.ops.dynamic import cpu


def findings() -> dict[str, str]:
    rows = examine().rows
    return {row[0]: row[1] for row in rows if row[0]}


def test_it_says_what_runs() -> None:
    import torch

    found = findings()
    assert str(torch.get_num_threads()) + " threads" in found["torch"]
    assert ("ddf in float32" in found["CPU kernels"]) == cpu.available(torch.float32)
    assert "gomp" in found["OpenMP runtimes"] or found["OpenMP runtimes"] == "none found"
    assert found["extra train"] == "complete"


def test_it_says_why_nothing_runs() -> None:
    with native.using(None):
        assert "shifted slices" in findings()["CPU kernels"]
    code = "from leanconv.doctor import examine; print(examine())"
    environment = {**os.environ, "LEANCONV_NATIVE": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert "turned off by LEANCONV_NATIVE=0" in done.stdout


def test_two_runtimes_are_named(monkeypatch) -> None:
    monkeypatch.setattr(native, "openmp_runtimes", lambda: ["/a/libgomp.so.1", "/b/libiomp5.so"])
    assert "compete for the cores" in findings()["OpenMP runtimes"]
