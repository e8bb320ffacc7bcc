"""Training and evaluating networks on data.

Each name is loaded when it is first used: the training loop needs seconds to import, a recipe does not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leanconv.tasks.checkpoint import load_model, save_model
    from leanconv.tasks.comparing import compare
    from leanconv.tasks.comparison import Comparison
    from leanconv.tasks.data import ImageData, ImageInfo, ImageSet, open_data
    from leanconv.tasks.evaluation import Evaluation, evaluate
    from leanconv.tasks.networks import build_network
    from leanconv.tasks.recipe import Recipe
    from leanconv.tasks.result import Result
    from leanconv.tasks.training import train

_HOME = {
    "Comparison": "comparison",
    "Evaluation": "evaluation",
    "ImageData": "data",
    "ImageInfo": "data",
    "ImageSet": "data",
    "Recipe": "recipe",
    "Result": "result",
    "build_network": "networks",
    "compare": "comparing",
    "evaluate": "evaluation",
    "load_model": "checkpoint",
    "open_data": "data",
    "save_model": "checkpoint",
    "train": "training",
}

__all__ = [
    "Comparison",
    "Evaluation",
    "ImageData",
    "ImageInfo",
    "ImageSet",
    "Recipe",
    "Result",
    "build_network",
    "compare",
    "evaluate",
    "load_model",
    "open_data",
    "save_model",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"leanconv.tasks.{_HOME[name]}"), name)
    raise AttributeError(f"module 'leanconv.tasks' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
