"""leanconv makes convolutional networks leaner or stronger by changing their convolutions.

Importing it costs next to nothing: each public name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leanconv import measure, nn, ops, surgery
    from leanconv.measure import profile
    from leanconv.surgery import Plan, export_onnx, export_package, fuse, plan, quantize_onnx, swap, verify

__version__ = "0.1.0"

__all__ = [
    "Plan", "__version__", "export_onnx", "export_package", "fuse", "measure", "nn", "ops", "plan", "profile",
    "quantize_onnx", "surgery", "swap", "verify",
]  # fmt: skip

_FLOOR_OF = {"profile": "measure"} | dict.fromkeys(
    ("Plan", "export_onnx", "export_package", "fuse", "plan", "quantize_onnx", "swap", "verify"), "surgery"
)


def __getattr__(name: str) -> Any:
    if name in _FLOOR_OF:
        return getattr(importlib.import_module(f"leanconv.{_FLOOR_OF[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"leanconv.{name}")
    raise AttributeError(f"module 'leanconv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
