"""On which machine, with which versions and by which command something runs."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import sys
from pathlib import Path

import torch

import leanconv
from leanconv.measure import device_name
from leanconv.measure.setting import processor_name

LIBRARIES = ("torch", "torchvision", "timm", "lightning")


def machine(device: str) -> dict[str, str | int]:
    """What this machine is, for people.

    Args:
        device: that does the work.
    """
    facts: dict[str, str | int] = {"processor": processor_name(), "cores": os.cpu_count() or 1}
    facts["threads"] = torch.get_num_threads()
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        facts["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    if device != "cpu":
        facts["device"] = device_name(device)
    return {**facts, "system": f"{platform.system()} {platform.release()}, {platform.machine()}"}


def versions() -> dict[str, str]:
    """The versions of Python, leanconv and the libraries that train."""
    own = {"python": platform.python_version(), "leanconv": leanconv.__version__}
    return own | {name: importlib.metadata.version(name) for name in LIBRARIES}


def command() -> str:
    """The command line of this process, as a shell takes it."""
    name = Path(sys.argv[0]).name
    return shlex.join([*(["python"] if name.endswith(".py") else []), name, *sys.argv[1:]])
