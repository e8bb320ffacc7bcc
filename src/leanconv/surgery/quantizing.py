"""An ONNX file with weights and activations of 8 bits, by ONNX Runtime's static quantisation."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from leanconv.errors import unknown
from leanconv.files import moved_into_place
from leanconv.surgery.exporting import writable
from leanconv.surgery.fusing import difference
from leanconv.surgery.verifying import OnnxFile, require_packages

MARK = "quantized"  # the key of the metadata
LAYERS = {"Conv", "Gemm", "MatMul"}  # operators with weights


def quantize_onnx(path: str | Path, out: str | Path, batches: Iterable[Any], *, skip: Sequence[str] = ()) -> float:
    """Writes an ONNX file of `export_onnx` anew with weights and activations of 8 bits, for inference on CPUs.

    This is static post-training quantisation: weights get one scale an output channel, activations one scale a tensor,
    from their range over the images given. The file holds pairs of QuantizeLinear and DequantizeLinear, which other
    runtimes read too. How accurate it is, only a test tells. The metadata are kept; under `quantized` they say, as
    JSON, how many images were looked at and what was skipped.

    Args:
        path: of the file, which stays as it is.
        out: of the file to write, FILE.onnx; its folder exists. A file of that name is replaced once all is well.
        batches: images as the model sees them, normalised, float (N, C, H, W), some hundreds in all, from the training
            images; or (images, labels), as a data loader gives them.
        skip: layers to leave in float, by their paths in the model or patterns of them, as in a shell: "conv_stem",
            "blocks.*.conv_dw".

    Returns:
        How far the new file is from the old one for the first batch: largest difference over largest output.

    Raises:
        ValueError: for a file that `export_onnx` didn't write, or that is quantised already, or has its weights in a
            second file; a path that can't be; batches of another shape; or a pattern that fits no layer.
        ModuleNotFoundError: where the extra `export` isn't installed.
        OSError: where the file can't be written.

    >>> from tempfile import TemporaryDirectory
    >>> import torch
    >>> from leanconv import export_onnx
    >>> images = torch.randn(8, 3, 8, 8)
    >>> with TemporaryDirectory() as folder:
    ...     _ = export_onnx(torch.nn.Conv2d(3, 8, 3), f"{folder}/model.onnx", (1, 3, 8, 8))
    ...     quantize_onnx(f"{folder}/model.onnx", f"{folder}/int8.onnx", [images]) < 0.05
    True
    """
    require_packages()
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    out, file = writable(out, ".onnx"), OnnxFile(path)
    file.shapes()
    said = file.session.get_modelmeta().custom_metadata_map
    if MARK in said:
        raise ValueError(f"path must be a file that isn't quantised, got {str(path)!r}")
    if Path(f"{path}.data").exists():
        raise ValueError(f"path must be a file that holds its weights itself, got {str(path)!r} with {path}.data")
    images = Calibration(file, batches)
    example = images.first()
    with TemporaryDirectory() as work, moved_into_place(out.parent) as folder, in_silence():
        prepared, written = Path(work) / "prepared.onnx", folder / out.name
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)  # it stops at reshapes of open sizes
        left = layers_to_skip(onnx.load(prepared), skip)
        quantize_static(prepared, written, images, per_channel=True, activation_type=QuantType.QUInt8,
                        weight_type=QuantType.QInt8, nodes_to_exclude=left)
        model = onnx.load(written)
        del model.metadata_props[:]
        record = json.dumps({"images": images.count, "skip": list(skip)})
        onnx.helper.set_model_props(model, {**said, MARK: record})
        onnx.save(model, written)
        return difference(file, OnnxFile(written), example)


class Calibration:
    """The batches as ONNX Runtime's quantisation asks for them.

    Attributes:
        count: how many images it has given.
    """

    def __init__(self, file: OnnxFile, batches: Iterable[Any]) -> None:
        (input,) = file.session.get_inputs()
        self.name, self.shape = input.name, input.shape
        self.batches = self.checked(batches)
        self.ahead: list[Tensor] = []
        self.count = 0

    def checked(self, batches: Iterable[Any]) -> Iterator[Tensor]:
        """The images of each batch.

        Raises:
            ValueError: they haven't the shape that the file takes.
        """
        for batch in batches:
            images = batch[0] if isinstance(batch, tuple | list) else batch
            if not (isinstance(images, Tensor) and images.is_floating_point() and self.takes(images.shape)):
                came = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
                shape = ", ".join(map(str, self.shape))
                raise ValueError(f"batches must hold real images as the file takes them, ({shape}), got {came}")
            yield images.detach().cpu().float()

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether the file takes images of that shape."""
        return len(shape) == len(self.shape) and all(
            isinstance(size, str) or size == came for size, came in zip(self.shape, shape, strict=True)
        )

    def first(self) -> Tensor:
        """The first batch, which will be given to the quantisation too."""
        if (images := next(self.batches, None)) is None:
            raise ValueError("batches must hold at least one batch of images, got none")
        self.ahead.append(images)
        return images

    def get_next(self) -> dict[str, Any] | None:
        """The next batch as ONNX Runtime takes it, None at the end."""
        images = self.ahead.pop() if self.ahead else next(self.batches, None)
        if images is None:
            return None
        self.count += len(images)
        return {self.name: images.numpy()}


def layers_to_skip(model: Any, patterns: Sequence[str]) -> list[str]:
    """The names of the nodes whose layers, named by their weights, fit one of the patterns.

    Raises:
        ValueError: a pattern fits no layer.
    """
    weights = {node.name: node.input[1] for node in model.graph.node if node.op_type in LAYERS}
    layers = {name: weight.removesuffix(".weight") for name, weight in weights.items() if weight.endswith(".weight")}
    for pattern in patterns:
        if not any(fnmatchcase(layer, pattern) for layer in layers.values()):
            raise unknown("layer", pattern, layers.values())
    return [name for name, layer in layers.items() if any(fnmatchcase(layer, pattern) for pattern in patterns)]


@contextmanager
def in_silence() -> Iterator[None]:
    """Keeps ONNX Runtime's notes on what it does from being shown."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(disabled)
