"""A model as an ONNX file, proven equal on the spot by running it in ONNX Runtime."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

import leanconv
from leanconv.files import moved_into_place
from leanconv.surgery.verifying import (
    OnnxFile,
    Shape,
    four_sizes,
    largest_difference,
    on_cpu,
    random_images,
    require_packages,
    require_taken,
    shapes_to_run,
)

AXES: dict[bool | str, dict[int, str]] = {
    True: {0: "batch", 2: "height", 3: "width"}, "batch": {0: "batch"}, False: {},
}  # fmt: skip
STANDARD = {"", "ai.onnx"}  # two names of one domain


def export_onnx(
    model: nn.Module,
    path: str | Path,
    shape: Sequence[int],
    *,
    dynamic: bool | Literal["batch"] = True,
    tolerance: float = 1e-4,
    metadata: Mapping[str, str] | None = None,
) -> float:
    """Writes a model of images as an ONNX file, once ONNX Runtime has given the model's own numbers with it.

    The file holds the model in eval mode and standard operators alone. It is checked on the CPU with random images: of
    the shape given and, as far as its sizes are left open, of another batch and another, odd size. Its metadata say
    which versions made it: `leanconv`, `torch`, `onnx` and `opset`; and the example's `shape`.

    Weights of more than 1.5 GB are put into a second file beside it, FILE.onnx.data, since an ONNX file can't hold
    2 GB; the two belong together.

    Args:
        model: takes one tensor of images; fused or not, on any device, with weights in float32. It isn't changed.
        path: of the file, FILE.onnx; its folder exists. A file of that name is replaced once all is well.
        shape: (N, C, H, W) of an example.
        dynamic: which sizes are left open: batch, height and width, the batch alone ("batch"), or none (False).
        tolerance: largest difference that passes, over the largest output.
        metadata: further words for the file, such as the names of the classes.

    Returns:
        The largest relative difference found.

    Raises:
        ValueError: for a path, shape or metadata that can't be, or a model that doesn't take the shapes, can't be
            exported, or needs custom operators.
        RuntimeError: when the file's numbers aren't the model's; no file is left.
        ModuleNotFoundError: where the extra `export` isn't installed.
        OSError: where the file can't be written.

    >>> from tempfile import TemporaryDirectory
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> with TemporaryDirectory() as folder:
    ...     export_onnx(model, f"{folder}/model.onnx", (1, 3, 8, 8)) < 1e-5
    True
    """
    require_packages()
    path, example, axes = writable(path, ".onnx"), four_sizes(shape), axes_of(dynamic)
    ours = {name: version(name) for name in ("torch", "onnx")}
    ours |= {"leanconv": leanconv.__version__, "shape": ",".join(map(str, example))}
    if taken := sorted({*ours, "opset"} & set(metadata or {})):
        raise ValueError(f"metadata can't say {', '.join(taken)}: leanconv does")
    model = on_cpu(model)
    shapes = shapes_to_run(example, axes)
    require_taken(model, shapes)
    program = traced(model, example, axes)
    program.model.metadata_props.update({**(metadata or {}), **ours, "opset": str(program.model.opset_imports[""])})
    with moved_into_place(path.parent) as folder:  # weights in a second file come first: its name is longer
        program.save(folder / path.name)
        return largest_difference(model, OnnxFile(folder / path.name), shapes, tolerance)


def writable(path: str | Path, suffix: str) -> Path:
    """A path that a file of this kind can have."""
    path = Path(path)
    if path.suffix != suffix or path.is_dir():
        raise ValueError(f"path must be that of a file, FILE{suffix}, got {str(path)!r}")
    if not path.parent.is_dir():
        raise ValueError(f"path must be in a folder that exists, got {str(path)!r}")
    return path


def axes_of(dynamic: bool | Literal["batch"]) -> dict[int, str]:
    """The names of the axes whose sizes are left open."""
    if not (isinstance(dynamic, bool) or dynamic == "batch"):
        raise ValueError(f"dynamic must be True, 'batch' or False, got {dynamic!r}")
    return AXES[dynamic]


def images_to_trace(example: Shape, open_axes: Mapping[int, str]) -> Tensor:
    """Images of the example's shape, but for a batch of 1, which PyTorch may take for fixed."""
    batch, *image = example
    return random_images((max(batch, 2) if open_axes else batch, *image))


def traced(model: nn.Module, example: Shape, axes: Mapping[int, str]) -> torch.onnx.ONNXProgram:
    """The model as standard operators of ONNX."""
    images = images_to_trace(example, axes)
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            program: Any = torch.onnx.export(
                model, (images,), dynamo=True, dynamic_shapes=(axes,) if axes else None, input_names=["input"],
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ValueError(f"the model can't be exported: {error.__cause__ or error}") from error
    nodes = program.model.graph.all_nodes()
    if custom := {f"{node.domain}::{node.op_type}" for node in nodes if node.domain not in STANDARD}:
        raise ValueError(f"the model can't be exported to standard operators, it needs {', '.join(sorted(custom))}")
    return program
