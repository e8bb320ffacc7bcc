"""What runs here and why: the machine, the kernels, the extras."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from time import perf_counter

import torch

import leanconv
from leanconv.ops import ghost, native
from leanconv.ops.dynamic import cpu, gpu
from leanconv.table import Table

REQUIREMENT = re.compile(r"(?P<name>[\w.-]+).*extra\s*==\s*['\"](?P<extra>\w+)['\"]")


def examine() -> Table:
    """Everything that decides which code runs on this machine, as a table.

    The native kernels are compiled for it if they weren't yet.

    >>> examine().columns
    ['what', 'here']
    """
    rows = [
        ["leanconv", f"{leanconv.__version__}, Python {platform.python_version()}, {platform.platform()}"],
        ["torch", f"{torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"],
        *native_kernels(),
        ["OpenMP runtimes", openmp()],
        ["GPU", graphics()],
        *extras(),
    ]
    return Table(["what", "here"], rows)


def native_kernels() -> list[list[str]]:
    """For each C file what became of it; for the processor's dtypes, what runs."""
    begin = perf_counter()
    names = ("float32", "float64", "bfloat16", "float16")
    taken = [name for name in names if cpu.available(getattr(torch, name))]
    native.load(ghost.KERNELS)
    seconds = perf_counter() - begin
    rows = [["CPU kernels", f"ddf in {', '.join(taken)}; ready after {seconds:.2f} s" if taken
             else "none: ddf runs as shifted slices, which is slower"]]
    for found in native.report():
        if found.library is None:
            name = f"{found.source.name}: " if found.source.suffix else ""
            rows.append(["", f"{name}{found.reason}"])
            continue
        made = f"compiled in {found.seconds:.1f} s" if found.seconds else "found in the cache"
        rows.append(["", f"{found.source.name}: {made}, {found.library}"])
        rows.append(["", f"made by {' '.join((*found.compiler, *found.flags))}"])
        if found.reason:
            rows.append(["", found.reason])
    return rows


def openmp() -> str:
    runtimes = native.openmp_runtimes()
    listed = ", ".join(runtimes) or "none found"
    return listed if len(runtimes) < 2 else f"{listed}: two of them compete for the cores, and all of torch is slower"


def graphics() -> str:
    if not torch.cuda.is_available():
        return "none that PyTorch sees"
    kernels = "Triton kernels run" if gpu.available(torch.float32) else "no Triton kernels: ddf runs as shifted slices"
    return f"{torch.cuda.get_device_name()}; {kernels}"


def extras() -> list[list[str]]:
    """For each extra of the package, what it lacks."""
    missing: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires("leanconv") or []:
        match = REQUIREMENT.match(requirement)
        if match is None or match["name"] == "leanconv":
            continue
        lacking = missing.setdefault(match["extra"], [])
        try:
            importlib.metadata.version(match["name"])
        except importlib.metadata.PackageNotFoundError:
            lacking.append(match["name"])
    return [[f"extra {name}", f"lacks {', '.join(lacking)}: pip install 'leanconv[{name}]'" if lacking else "complete"]
            for name, lacking in missing.items()]
