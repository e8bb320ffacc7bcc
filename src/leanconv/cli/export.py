"""Commands that ship a network as an ONNX file or a package: export, verify."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

import leanconv
from leanconv.cli.options import load_classifier
from leanconv.cli.output import show

Out = Annotated[Path, Parameter(name=("--out", "-o"))]
OPEN: dict[str, bool | Literal["batch"]] = {"all": True, "batch": "batch", "none": False}


def export(
    checkpoint: Path, /, *, out: Out, open: Literal["all", "batch", "none"] = "all", tolerance: float = 1e-4
) -> None:
    """Writes a trained network as an ONNX file or a compiled package, once the file has given the same numbers.

    An ONNX file, FILE.onnx, runs anywhere; it says how its images are made ready and what its classes are, as far as
    the checkpoint does. A package of AOTInductor, FILE.pt2, is for PyTorch on this machine's kind of CPU. Fuse the
    network first for the fastest file.

    For example:

        leanconv export runs/tied -o tied.onnx
        leanconv export fused.safetensors -o fused.onnx --open batch
        leanconv export fused.safetensors -o fused.pt2

    Args:
        checkpoint: Folder of a finished training, or FILE.safetensors that leanconv wrote.
        out: File to write, FILE.onnx or FILE.pt2.
        open: Sizes of the images that the file leaves open: batch, height and width, the batch alone, or none.
        tolerance: Largest difference that passes, over the largest output.
    """
    if out.suffix not in (".onnx", ".pt2"):
        raise ValueError(f"out must end in .onnx or .pt2, got {str(out)!r}")
    network, configuration = load_classifier(checkpoint)
    size = configuration["image_size"]
    shape, dynamic = (1, configuration["in_chans"], size, size), OPEN[open]
    with mistakes_in_one_line():
        if out.suffix == ".pt2":
            difference = leanconv.export_package(network, out, shape, dynamic=dynamic, tolerance=tolerance)
        else:
            metadata = {key: json.dumps(configuration[key]) for key in ("mean", "std", "classes")}
            difference = leanconv.export_onnx(
                network, out, shape, dynamic=dynamic, tolerance=tolerance, metadata=metadata
            )
    show(f"equal to the network: largest relative difference {difference:.1e}", f"wrote {out}")


def verify(file: Path, /, *, against: Path, tolerance: float = 1e-4) -> None:
    """Runs an ONNX file and the network of a checkpoint on the same random images; fails where they differ.

    For example:

        leanconv verify tied.onnx --against runs/tied

    Args:
        file: FILE.onnx that `leanconv export` wrote.
        against: Folder of a finished training, or FILE.safetensors that leanconv wrote.
        tolerance: Largest difference that passes, over the largest output.
    """
    network, _ = load_classifier(against)
    with mistakes_in_one_line():
        difference = leanconv.verify(file, network, tolerance=tolerance)
    show(f"equal: largest relative difference {difference:.1e}")


@contextlib.contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """Makes a user's mistake of numbers that differ.

    Raises:
        ValueError: in their place.
    """
    try:
        yield
    except RuntimeError as error:
        raise ValueError(str(error)) from error
