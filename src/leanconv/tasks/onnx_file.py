"""A classifier in an ONNX file that `leanconv export` wrote, and what the file says of its images."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from leanconv.surgery.verifying import OnnxFile, require_packages
from leanconv.tasks.data.images import ImageInfo


class OnnxClassifier(OnnxFile):
    """An ONNX file as a module that gives the scores of the classes, computed by ONNX Runtime on the CPU."""

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(images)[0]


def load_onnx(path: str | Path) -> tuple[OnnxClassifier, ImageInfo]:
    """Opens an ONNX file.

    Raises:
        ValueError: it is damaged, isn't a classifier's, or doesn't say how its images are made ready.
        ModuleNotFoundError: where the extra `export` isn't installed.
    """
    require_packages()
    file = OnnxClassifier(path)
    (_, channels, height, _), *_ = file.shapes()
    said = file.session.get_modelmeta().custom_metadata_map
    outputs = file.session.get_outputs()
    if len(outputs) != 1 or len(outputs[0].shape) != 2 or not isinstance(outputs[0].shape[1], int):
        shapes = ", ".join(str(tuple(output.shape)) for output in outputs)
        raise ValueError(f"{path} must hold a classifier, which gives (N, classes), got {shapes}")
    try:
        mean, std, classes = (tuple(json.loads(said[key])) for key in ("mean", "std", "classes"))
    except (KeyError, TypeError, ValueError):
        rule = "must be a file that leanconv export wrote: its metadata must name mean, std and classes"
        raise ValueError(f"{path} {rule}, got {', '.join(sorted(said))}") from None
    return file, ImageInfo(
        num_classes=outputs[0].shape[1], in_chans=channels, image_size=height, mean=mean, std=std, classes=classes
    )
