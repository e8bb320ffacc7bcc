"""Claim: the similarity of a network's filters takes no more than 1.5 times the plain backward passes of its patterns.

Of a ResNet-50 at 224 × 224, all 3 × 3 convolutions: checks the patterns against guided backpropagation of one filter
after another, prints the ratio, and the seconds that a filter and image take in fp32 and bf16; from those how many
filters a layer 100 images allow in 3 minutes; and the peak memory. `python benchmarks/similarity.py 3 bf16` measures
100 images with so many filters a layer.

    python benchmarks/similarity.py
"""

from __future__ import annotations

import resource
import sys
import time

import torch
from setting import prepare, report, same
from torch import Tensor, nn

from leanconv.measure import Similarity, filter_similarity, guided_backprop, interleaved
from leanconv.measure.observing import gradients, observe, recording
from leanconv.models import create
from leanconv.table import Table

BATCH, IMAGES, MINUTES = 4, 100, 3
SAMPLED = "layer[1234].0.conv2"  # of 16 layers, to compare with plain backward passes
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def network(dtype: torch.dtype) -> nn.Module:
    """A ResNet-50 whose norms have seen something."""
    torch.manual_seed(0)
    model = create("resnet50").eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.to(dtype, memory_format=torch.channels_last)


def check(model: nn.Module, images: Tensor) -> None:
    """Ends the benchmark where the patterns aren't those of guided backpropagation, filter by filter."""
    for layer in filter_similarity(model, images, SAMPLED, filters=2).layers:
        patterns = torch.stack([guided_backprop(model, images, channel, layer=layer.name).sum(0).flatten()
                                for channel in layer.channels])  # fmt: skip
        same(layer.matrix, cosines(patterns), layer.name)


def cosines(patterns: Tensor) -> Tensor:
    units = nn.functional.normalize(patterns.float(), dim=1)
    return units @ units.T


def plain(model: nn.Module, images: Tensor, filters: int) -> None:
    """One forward pass, and as many ordinary backward passes to the images as there are filters."""
    with recording(images.to(memory_format=torch.channels_last)) as leaf:
        names = [name for name, _ in model.named_modules() if name.endswith(".0.conv2")]
        _, kept = observe(model, leaf, names)
        for calls in kept.values():
            for channel in range(filters):
                gradients(calls[0][:, channel].sum(), leaf, retain_graph=True)


def ratio(model: nn.Module, images: Tensor) -> float:
    """How long the similarity of two filters of four layers takes, over plain backward passes."""
    times = interleaved(
        {
            "similarity": lambda: filter_similarity(model, images, SAMPLED, filters=2, batch_size=BATCH),
            "plain": lambda: plain(model, images, 2),
        },
        rounds=3,
        warmup=1,
        minimum_seconds=0,
    )
    return times["similarity"].median_ms / times["plain"].median_ms


def whole(model: nn.Module, images: Tensor, filters: int) -> tuple[Similarity, float]:
    """The similarity of all 3 × 3 convolutions, and the seconds that it took."""
    began = time.perf_counter()
    similarity = filter_similarity(model, images, "layer*.conv2", filters=filters, batch_size=BATCH)
    return similarity, time.perf_counter() - began


def resident() -> str:
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"


def main() -> None:
    setting = prepare()
    if sys.argv[1:]:
        filters, precision = int(sys.argv[1]), sys.argv[2]
        images = torch.randn(IMAGES, 3, 224, 224).to(DTYPES[precision])
        similarity, seconds = whole(network(DTYPES[precision]), images, filters)
        notes = [f"{IMAGES} images, {len(similarity.layers)} layers, {filters} filters each, {precision}; {setting}",
                 f"{seconds:.0f} s, peak resident memory {resident()}"]
        print(Table(["layers", "seconds"], [[len(similarity.layers), f"{seconds:.0f}"]], notes=notes))
        return
    check(network(torch.float32), torch.randn(2, 3, 224, 224))
    rows = []
    for precision, dtype in DTYPES.items():
        model, images = network(dtype), torch.randn(BATCH, 3, 224, 224).to(dtype)
        similarity, seconds = whole(model, images, 2)
        each = seconds / (BATCH * 2 * len(similarity.layers))
        fit = int(60 * MINUTES / (each * IMAGES * len(similarity.layers)))
        rows.append([precision, f"{ratio(model, images):.2f}", f"{1000 * each:.1f}", fit, resident()])
    columns = ["precision", "time / plain backward passes", "ms a filter and image",
               f"filters a layer, {IMAGES} images in {MINUTES} min", "peak resident memory"]
    notes = [f"ResNet-50, 224 × 224, 16 layers of 3 × 3, batch {BATCH}; {setting}",
             "Ratio: of the first 3 × 3 layer of each stage, 2 filters each, medians of 3 interleaved rounds."]
    report("similarity", Table(columns, rows, "Similarity of the filters of a ResNet-50", notes))


if __name__ == "__main__":
    main()
