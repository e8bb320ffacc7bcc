"""The command that gives an ONNX file weights and activations of 8 bits: quantize."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import leanconv
from leanconv.cli.export import Out
from leanconv.cli.output import bar, show
from leanconv.cli.words import Words

if TYPE_CHECKING:
    from torch import Tensor

    from leanconv.tasks.data import ImageData

BATCH = 32


def quantize(
    file: Path, /, *, out: Out, data: str, calibrate: int = 512, skip: Words = (), limit: int = 0, seed: int = 0
) -> None:
    """Writes an ONNX file anew with weights and activations of 8 bits, and says what that costs and gains.

    The ranges of the activations are taken from training images, the accuracy from test images. Both files are timed by
    turns, by ONNX Runtime on the CPU.

    For example:

        leanconv quantize tied.onnx -o int8.onnx --data cifar10
        leanconv quantize ghost.onnx -o int8.onnx --data imagefolder:flowers --skip "blocks.*.conv_dw"

    Args:
        file: FILE.onnx that `leanconv export` wrote.
        out: File to write, FILE.onnx.
        data: Source of images, as in a recipe.
        calibrate: Training images that the ranges are taken from, drawn at random.
        skip: Layers to leave in float: their paths, or patterns of them as in a shell.
        limit: At most so many training and so many test images; 0 for all.
        seed: Of the draw.
    """
    if calibrate < 1:
        raise ValueError(f"calibrate must be at least 1, got {calibrate}")
    import torch

    from leanconv.measure.latency import interleaved
    from leanconv.table import Table
    from leanconv.tasks.evaluation import measured, on_file
    from leanconv.tasks.onnx_file import load_onnx

    images, recipe = on_file(load_onnx(file)[1], data, {"limit": limit, "batch_size": BATCH})
    batches = drawn(images, calibrate, seed)
    difference = leanconv.quantize_onnx(file, out, batches, skip=skip)
    networks = {str(path): load_onnx(path)[0] for path in (file, out)}
    accuracies = {}
    for name, network in networks.items():
        with bar(f"testing {name}") as step:
            accuracies[name] = measured(network, images, recipe, step).accuracy
    one, _ = images.test.batch([0])
    times = interleaved({name: partial(network, one) for name, network in networks.items()})
    show(
        Table(
            ["file", "accuracy", "MB", "ms an image"],
            [[name, f"{accuracies[name]:.2%}", f"{Path(name).stat().st_size / 1e6:.2f}", str(times[name])]
             for name in networks],
            notes=[
                f"accuracy on {len(images.test)} test images; ranges from {sum(map(len, batches))} training images; "
                f"outputs differ by {difference:.1%} of the largest",
                f"ONNX Runtime on the CPU, {torch.get_num_threads()} threads, one image at a time",
            ],
        ),
        f"wrote {out}",
    )


def drawn(images: ImageData, count: int, seed: int) -> list[Tensor]:
    """Training images as a network sees them, in batches."""
    import torch

    order = torch.randperm(len(images.train), generator=torch.Generator().manual_seed(seed))[:count]
    return [images.train.batch(positions.tolist())[0] for positions in order.split(BATCH)]
