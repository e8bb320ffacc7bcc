"""A model compiled ahead of time into one package, proven equal on the spot by loading and running it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim

from leanconv.files import moved_into_place
from leanconv.surgery.exporting import axes_of, images_to_trace, writable
from leanconv.surgery.verifying import (
    four_sizes,
    largest_difference,
    on_cpu,
    require_taken,
    shapes_to_run,
    text_of,
)


def export_package(
    model: nn.Module,
    path: str | Path,
    shape: Sequence[int],
    *,
    dynamic: bool | Literal["batch"] = True,
    tolerance: float = 1e-4,
) -> float:
    """Writes a model of images as a package of AOTInductor, once the package has given the model's own numbers.

    It holds the model in eval mode, compiled for this machine's kind of CPU, with its weights. PyTorch runs it without
    the model's code, from Python, by `torch._inductor.aoti_load_package`, or from C++. It needs a C++ compiler and is
    checked as `export_onnx` checks its files.

    Args:
        model: takes one tensor of images; fused or not, on any device, with weights in float32. It isn't changed.
        path: of the package, FILE.pt2; its folder exists. A file of that name is replaced once all is well.
        shape: (N, C, H, W) of an example.
        dynamic: which sizes are left open: batch, height and width, the batch alone ("batch"), or none (False).
        tolerance: largest difference that passes, over the largest output.

    Returns:
        The largest relative difference found.

    Raises:
        ValueError: for a path or shape that can't be, or a model that doesn't take the shapes or can't be compiled.
        RuntimeError: when the package's numbers aren't the model's; no file is left.
        OSError: where the file can't be written.
    """
    path, example, axes = writable(path, ".pt2"), four_sizes(shape), axes_of(dynamic)
    model = on_cpu(model)
    shapes = shapes_to_run(example, axes)
    require_taken(model, shapes)
    with moved_into_place(path.parent) as folder:
        compile_into(folder / path.name, model, images_to_trace(example, axes), dict.fromkeys(axes, Dim.AUTO))
        return largest_difference(model, Package(folder / path.name), shapes, tolerance)


def compile_into(path: Path, model: nn.Module, images: Tensor, open_axes: dict[int, Any]) -> None:
    """Writes the compiled model."""
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            program = torch.export.export(model, (images,), dynamic_shapes=(open_axes,))
            torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    except Exception as error:  # the compilers' errors have no other class in common
        raise ValueError(f"the model can't be compiled: {error}") from error


class Package(nn.Module):
    """A package of AOTInductor as a module."""

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.compiled: Any = torch._inductor.aoti_load_package(str(path))

    def forward(self, images: Tensor) -> Any:
        """What the compiled model makes of the images.

        Raises:
            RuntimeError: it refuses them.
        """
        try:
            return self.compiled(images)
        except Exception as error:  # a generic one
            raise RuntimeError(f"the package can't be run on input {text_of(images.shape)}: {error}") from error
