"""Where in its window a convolution has its weight: the skeleton of its kernels, and their corners."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from leanconv.errors import unknown
from leanconv.measure.observing import named_layers
from leanconv.modes import evaluating
from leanconv.nn import AsymmetricConv2d
from leanconv.table import Table

if TYPE_CHECKING:
    from rich.console import RenderableType

REGIONS = ("corner", "skeleton", "global")


@dataclass(frozen=True)
class LayerSkeleton:
    """The kernel magnitudes of one layer.

    Args:
        name: the layer's path in the model.
        filters: how many it has.
        matrix: (k, k), the sum of |F| over all filters and input channels, divided by its largest entry.
    """

    name: str
    filters: int
    matrix: Tensor

    def share(self, of: str) -> float:
        """The share of the magnitude that lies in a region, one of `REGIONS`; NaN where all weights are 0."""
        return (self.matrix[region(of, len(self.matrix))].sum() / self.matrix.sum()).item()


@dataclass(frozen=True)
class KernelSkeleton:
    """The kernel magnitudes of a model's layers. Prints as a table.

    Args:
        layers: one entry a layer, in the model's order, all with kernels of one size k.
    """

    layers: Sequence[LayerSkeleton]

    @property
    def average(self) -> Tensor:
        """A, (k, k): the mean of the layers' matrices."""
        return torch.stack([layer.matrix for layer in self.layers]).mean(0)

    def share(self, of: str) -> float:
        """The share of the average matrix that lies in a region, one of `REGIONS`."""
        return LayerSkeleton("all", 0, self.average).share(of)

    def table(self) -> Table:
        """One row a layer: how much of its magnitude lies on the skeleton and in the corners, in per cent."""
        size = len(self.average)
        skeleton = region("skeleton", size).double().mean().item()
        rows = [[layer.name, layer.filters, f"{layer.share('skeleton'):.1%}", f"{layer.share('corner'):.1%}"]
                for layer in self.layers]
        notes = [
            f"Average kernel magnitude of {len(rows)} layers: {self.share('skeleton'):.1%} on the skeleton, which is "
            f"{skeleton:.1%} of a {size} × {size} kernel.",
            *("  ".join(f"{value:.3f}" for value in line) for line in self.average.tolist()),
        ]
        return Table(["layer", "filters", "skeleton", "corner"], rows, notes=notes)

    def __rich__(self) -> RenderableType:
        return self.table().__rich__()

    def __str__(self) -> str:
        return str(self.table())


def kernel_skeleton(
    model: nn.Module, layers: Sequence[str] | None = None, *, kernel_size: int | None = None
) -> KernelSkeleton:
    """How large a network's weights are at each place of their kernels, on average over the layers.

    X. Ding et al., *ACNet: Strengthening the Kernel Skeletons for Powerful CNN via Asymmetric Convolution Blocks*, ICCV
    2019, Fig. 6: with F the kernels of layer i,

        A = 1/n Σ_i S_i / max(S_i),   S_i = Σ |F| over all filters and input channels.

    The kernels are those of each `nn.Conv2d` with its stored weights, of a tied convolution its shared ones, and of an
    `AsymmetricConv2d` those that its branches add up to, whatever mode the model is in. The model stays as it is.

    Args:
        model: any module.
        layers: paths or shell patterns; by default all layers. What a layer holds is taken, too.
        kernel_size: k, odd; by default the most frequent of the square kernels larger than 1 × 1.

    Raises:
        ValueError: for a layer that doesn't exist, an even size, or layers without kernels of that size; for an
            `AsymmetricConv2d` whose norms keep no running statistics.

    >>> conv = nn.Conv2d(1, 1, 3, bias=False)
    >>> conv.weight.data[0, 0] = torch.tensor([[1, 2, 1], [2, -4, 2], [1, 2, 1]])
    >>> kernel_skeleton(nn.Sequential(conv)).average
    tensor([[0.2500, 0.5000, 0.2500],
            [0.5000, 1.0000, 0.5000],
            [0.2500, 0.5000, 0.2500]], dtype=torch.float64)
    """
    found = []
    for name, kernel in kernels(model, layers, kernel_size).items():
        total = kernel.double().abs().sum((0, 1)).cpu()
        found.append(LayerSkeleton(name, len(kernel), total / total.max().clamp_min(torch.finfo(total.dtype).tiny)))
    return KernelSkeleton(found)


def kernels(model: nn.Module, layers: Sequence[str] | None, kernel_size: int | None) -> dict[str, Tensor]:
    """The kernels (F, C, k, k) of the chosen layers by path, detached; weights that several layers share count once.

    Raises:
        ValueError: as `kernel_skeleton`.
    """
    if kernel_size is not None and (kernel_size < 2 or kernel_size % 2 == 0):
        raise ValueError(f"kernel_size must be odd and larger than 1, for an even kernel has no centre, "
                         f"got {kernel_size}")
    chosen = None if layers is None else named_layers(model, layers)
    found: dict[str, Tensor] = {}
    shared: list[Tensor] = []
    for name, weight in weights(model):
        height, width = weight.shape[2:]
        if (chosen is None or within(name, chosen)) and height == width > 1 and not any(weight is w for w in shared):
            shared.append(weight)
            found[name] = weight.detach()
    sizes = Counter(len(kernel[0, 0]) for kernel in found.values())
    if kernel_size is None:
        kernel_size = max((size for size in sizes if size % 2), key=lambda size: sizes[size], default=3)
    if not sizes[kernel_size]:
        there = ", ".join(f"{size} × {size}" for size in sorted(sizes)) or "none larger than 1 × 1"
        raise ValueError(f"the layers must have {kernel_size} × {kernel_size} kernels, those of {type(model).__name__} "
                         f"have: {there}")
    return {name: kernel for name, kernel in found.items() if len(kernel[0, 0]) == kernel_size}


def weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The weight of each convolution with its path; an asymmetric one's is what its branches add up to."""
    asymmetric: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, AsymmetricConv2d):
            asymmetric.append(name)
            with evaluating(module):
                yield name, module.fused().weight
        elif isinstance(module, nn.Conv2d) and not within(name, asymmetric):
            yield name, module.weight


def within(name: str, paths: Iterable[str]) -> bool:
    """Whether a path is one of some, or below it.

    >>> within("layer1.0.conv", ["layer1.0"]), within("layer10", ["layer1"]), within("conv", [""])
    (True, False, True)
    """
    return any(not path or name == path or name.startswith(f"{path}.") for path in paths)


def region(name: str, size: int) -> Tensor:
    """The places of a kernel that belong to a region, bool (size, size).

    The skeleton is the central row with the central column, the corners are what they leave.

    Raises:
        ValueError: for another name than those of `REGIONS`.

    >>> region("corner", 3).int()
    tensor([[1, 0, 1],
            [0, 0, 0],
            [1, 0, 1]], dtype=torch.int32)
    """
    if name not in REGIONS:
        raise unknown("region", name, REGIONS)
    places = torch.full((size, size), name == "global")
    if name != "global":
        places[size // 2] = places[:, size // 2] = True
    return ~places if name == "corner" else places
