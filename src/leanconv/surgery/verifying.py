"""An ONNX file beside the model that it was made from: run on the same images, are the numbers the same?"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from leanconv.modes import evaluating
from leanconv.surgery.fusing import difference

PACKAGES = ("onnx", "onnxruntime", "onnxscript")

Shape = tuple[int, ...]


def verify(path: str | Path, model: nn.Module, *, tolerance: float = 1e-4) -> float:
    """Runs a file that `export_onnx` wrote beside a model, on random images, and says how far apart they are.

    The images have the shape of the file's example and, as far as its sizes are open, another batch and an odd size.

    Args:
        path: of the file.
        model: the one it was exported from, on any device; it isn't changed.
        tolerance: largest difference that passes, over the largest output.

    Returns:
        The largest relative difference found.

    Raises:
        ValueError: for a file that is damaged or that `export_onnx` didn't write, or a model that doesn't take its
            images.
        RuntimeError: when the file's numbers aren't the model's.
        ModuleNotFoundError: where the extra `export` isn't installed.

    >>> from tempfile import TemporaryDirectory
    >>> from leanconv import export_onnx
    >>> model = nn.Conv2d(3, 8, 3)
    >>> with TemporaryDirectory() as folder:
    ...     _ = export_onnx(model, f"{folder}/model.onnx", (1, 3, 8, 8), dynamic=False)
    ...     verify(f"{folder}/model.onnx", model) < 1e-5
    True
    """
    require_packages()
    file = OnnxFile(path)
    shapes = file.shapes()
    model = on_cpu(model)
    require_taken(model, shapes)
    return largest_difference(model, file, shapes, tolerance)


class OnnxFile(nn.Module):
    """An ONNX file as a module: it takes images and gives a list of outputs, computed by ONNX Runtime on the CPU."""

    def __init__(self, path: str | Path) -> None:
        import onnxruntime

        super().__init__()
        if not Path(path).is_file():
            raise ValueError(f"path must be an ONNX file, got {str(path)!r}: there is no such file")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what is wrong comes as an exception too
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no other class in common
            raise ValueError(f"{path} must be an ONNX file that ONNX Runtime can run: {error}") from error
        self.path = path

    def shapes(self) -> list[Shape]:
        """The shapes of images to try it with.

        Raises:
            ValueError: the file doesn't say, as those of `export_onnx` do.
        """
        text = self.session.get_modelmeta().custom_metadata_map.get("shape", "")
        inputs = self.session.get_inputs()
        try:
            example = four_sizes([int(size) for size in text.split(",")])
            (declared,) = [input.shape for input in inputs]
            open_axes = {axis: size for axis, size in enumerate(declared) if isinstance(size, str)}
            if [*declared] != [open_axes.get(axis, size) for axis, size in enumerate(example)]:
                raise ValueError
        except ValueError:
            rule = "must be a file that export_onnx wrote: its metadata must name the shape of its example"
            raise ValueError(f"{self.path} {rule}, got {text!r}") from None
        return shapes_to_run(example, open_axes)

    def forward(self, images: Tensor) -> list[Tensor]:
        """What ONNX Runtime makes of the images.

        Raises:
            RuntimeError: it refuses them.
        """
        (input,) = self.session.get_inputs()
        try:
            return [torch.from_numpy(array) for array in self.session.run(None, {input.name: images.numpy()})]
        except Exception as error:  # ONNX Runtime's errors have no other class in common
            raise RuntimeError(f"ONNX Runtime can't run the file on input {text_of(images.shape)}: {error}") from error


def largest_difference(model: nn.Module, file: nn.Module, shapes: Sequence[Shape], tolerance: float) -> float:
    """The largest relative difference between a model and a file over several shapes.

    Raises:
        RuntimeError: it is above the tolerance.
    """
    errors = []
    for shape in shapes:
        errors.append(difference(model, file, random_images(shape)))
        if not errors[-1] <= tolerance:
            raise RuntimeError(
                f"the file differs from the model: relative error {errors[-1]:.1e} for input {text_of(shape)}"
                f"{other_sizes(shape, shapes)}, above {tolerance:.1e}"
            )
    return max(errors)


def require_packages() -> None:
    """Refuses to go on without the packages of the extra."""
    for name in PACKAGES:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"ONNX files need {name}: pip install 'leanconv[export]'", name=name)


def four_sizes(shape: Sequence[int]) -> Shape:
    """The shape of images."""
    if len(shape) != 4 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"shape must be four positive whole numbers (N, C, H, W), got {tuple(shape)}")
    return tuple(shape)


def text_of(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def shapes_to_run(example: Shape, open_axes: Mapping[int, str]) -> list[Shape]:
    """The example and, where sizes are open, another shape: one image or three, a height and a width of other parity.

    >>> shapes_to_run((1, 3, 224, 224), {0: "batch", 2: "height", 3: "width"})
    [(1, 3, 224, 224), (3, 3, 237, 251)]
    """
    batch, channels, height, width = example
    other = (1 if batch > 1 else 3, channels, height + 13, width + 27)
    second = tuple(size if axis in open_axes else example[axis] for axis, size in enumerate(other))
    return [example] if second == example else [example, second]


def on_cpu(model: nn.Module) -> nn.Module:
    """A copy of a model, on the CPU and in eval mode."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise ValueError(f"model must have numbers for weights, got {name} on the meta device")
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ValueError(f"model must have weights in float32, got {name} in {tensor.dtype}")
    return copy.deepcopy(model).cpu().eval().requires_grad_(False)


def random_images(shape: Shape) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def require_taken(model: nn.Module, shapes: Sequence[Shape]) -> None:
    """Refuses shapes that a model doesn't take."""
    for shape in shapes:
        try:
            with torch.no_grad(), evaluating(model):
                model(random_images(shape))
        except (RuntimeError, TypeError, ValueError, AssertionError, IndexError) as error:
            where = f"{text_of(shape)}{other_sizes(shape, shapes)}"
            raise ValueError(f"the model doesn't take input {where}: {error}") from error


def other_sizes(shape: Shape, shapes: Sequence[Shape]) -> str:
    """A way out for a model that goes wrong with the second shape, if it differs from the first in height and width."""
    return " (with dynamic='batch', height and width can stay fixed)" if shape[2:] != shapes[0][2:] else ""
