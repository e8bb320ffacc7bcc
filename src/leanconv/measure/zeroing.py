"""Which part of a network's kernels its accuracy hangs on: weights are set to zero at random, region by region."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from leanconv.measure.skeleton import REGIONS, kernels, region
from leanconv.nn import AsymmetricConv2d
from leanconv.steps import Step
from leanconv.table import Table

if TYPE_CHECKING:
    from rich.console import RenderableType

SPARSITIES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)


class Zeroing(NamedTuple):
    """What is set to zero in each layer: a share of all its weights, drawn with a seed from those of a region."""

    region: str
    sparsity: float
    seed: int


UNCHANGED = Zeroing("none", 0.0, 0)


@dataclass(frozen=True)
class ZeroingCurves:
    """The accuracy of a network with weights set to zero. Prints as a table.

    Args:
        accuracies: by what was set to zero; `UNCHANGED` is the network as it is.
    """

    accuracies: Mapping[Zeroing, float]

    @property
    def regions(self) -> list[str]:
        """The regions, in the order in which they came."""
        return list(dict.fromkeys(point.region for point in self.accuracies if point != UNCHANGED))

    def curve(self, region: str) -> list[tuple[float, float, float]]:
        """For each sparsity from 0 on, the mean of the seeds' accuracies and their standard deviation."""
        points = [(0.0, self.accuracies[UNCHANGED], 0.0)]
        for sparsity in sorted({point.sparsity for point in self.accuracies if point.region == region}):
            values = [accuracy for point, accuracy in self.accuracies.items() if point[:2] == (region, sparsity)]
            points.append((sparsity, statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0))
        return points

    def table(self) -> Table:
        """One row a sparsity, one column a region: mean and standard deviation in per cent."""
        cells = {(name, sparsity): f"{mean:.2%}" + (f" ± {100 * spread:.2f}" if sparsity else "")
                 for name in self.regions for sparsity, mean, spread in self.curve(name)}
        sparsities = sorted({sparsity for _, sparsity in cells})
        rows = [[f"{sparsity:.1%}", *(cells.get((name, sparsity), "") for name in self.regions)]
                for sparsity in sparsities]
        seeds = len({point.seed for point in self.accuracies if point != UNCHANGED})
        notes = [f"Accuracy with a share of each layer's weights set to 0: mean ± standard deviation; seeds: {seeds}."]
        return Table(["set to 0", *self.regions], rows, notes=notes)

    def __rich__(self) -> RenderableType:
        return self.table().__rich__()

    def __str__(self) -> str:
        return str(self.table())


def zeroing_curves(
    model: nn.Module,
    test: Callable[[nn.Module], float],
    *,
    regions: Sequence[str] = REGIONS,
    sparsities: Sequence[float] = SPARSITIES,
    seeds: Iterable[int] = range(5),
    layers: Sequence[str] | None = None,
    kernel_size: int | None = None,
    known: Mapping[Zeroing, float] | None = None,
    found: Callable[[Zeroing, float], object] | None = None,
    progress: Step | None = None,
) -> ZeroingCurves:
    """How a network's accuracy falls when weights of a region of its kernels are set to zero, without retraining.

    X. Ding et al., *ACNet: Strengthening the Kernel Skeletons for Powerful CNN via Asymmetric Convolution Blocks*, ICCV
    2019, Fig. 5. Sparsity is the share of all weights of a layer, in each layer alike. A region has no point where it
    holds less: the corners of a 3 × 3 kernel are 4/9 of its weights, its skeleton is 5/9. With the same seed, a larger
    sparsity zeroes what a smaller one does, and more.

    The model stays as it is: a copy in eval mode is tested, whose asymmetric convolutions are fused.

    Args:
        model: any module.
        test: gives the accuracy of a network, 0 to 1.
        regions: some of "corner", "skeleton" and "global".
        sparsities: shares from 0 to 1.
        seeds: of the draws, which leave the global generator alone.
        layers: paths or shell patterns, as for `kernel_skeleton`.
        kernel_size: of the layers, as for `kernel_skeleton`.
        known: accuracies that need no test any more, from an earlier run.
        found: called with each point and its accuracy as soon as it is tested.
        progress: called after each test with how many points are done and how many there will be.

    Raises:
        ValueError: for an unknown region, a sparsity outside of 0 to 1, no region, sparsity or seed; for layers as
            `kernel_skeleton`.

    >>> model = nn.Conv2d(1, 1, 3)
    >>> curves = zeroing_curves(model, lambda network: (network.weight != 0).double().mean().item(), sparsities=[4 / 9])
    >>> print(curves)
     set to 0          corner        skeleton          global
    ──────────────────────────────────────────────────────────
     0.0%             100.00%         100.00%         100.00%
     44.4%      55.56% ± 0.00   55.56% ± 0.00   55.56% ± 0.00
    Accuracy with a share of each layer's weights set to 0: mean ± standard deviation; seeds: 5.
    """
    plain = plain_copy(model)
    weights = kernels(plain, layers, kernel_size)
    size = next(iter(weights.values())).shape[-1]
    points = zeroings(regions, sparsities, seeds, size)
    accuracies = {point: accuracy for point, accuracy in (known or {}).items() if point in points}
    originals = {name: weight.clone() for name, weight in weights.items()}
    for point in points:
        if point in accuracies:
            continue
        set_to_zero(weights, originals, point)
        accuracies[point] = float(test(plain))
        if found is not None:
            found(point, accuracies[point])
        if progress is not None:
            progress(len(accuracies), len(points))
    return ZeroingCurves({point: accuracies[point] for point in points})


def zeroings(regions: Sequence[str], sparsities: Sequence[float], seeds: Iterable[int], size: int) -> list[Zeroing]:
    """The points to test, the unchanged network first, then all of one seed before the next.

    >>> zeroings(["corner"], [0, 0.4, 0.5], [0, 1], 3)[1:]
    [Zeroing(region='corner', sparsity=0.4, seed=0), Zeroing(region='corner', sparsity=0.4, seed=1)]
    """
    seeds, sparsities = list(seeds), [float(sparsity) for sparsity in sparsities]
    for name, values in (("regions", regions), ("sparsities", sparsities), ("seeds", seeds)):
        if not values:
            raise ValueError(f"{name} must be at least one, got none")
    for sparsity in sparsities:
        if not 0 <= sparsity <= 1:
            raise ValueError(f"sparsities must be from 0 to 1, got {sparsity}")
    largest = {name: region(name, size).double().mean().item() for name in regions}
    points = [Zeroing(name, sparsity, seed) for seed, name, sparsity in product(seeds, regions, sparsities)
              if 0 < sparsity <= largest[name] + 1e-9]
    return list(dict.fromkeys([UNCHANGED, *points]))


def set_to_zero(weights: Mapping[str, Tensor], originals: Mapping[str, Tensor], what: Zeroing) -> None:
    """Sets weights to zero; the others are as they were originally."""
    generator = torch.Generator().manual_seed(what.seed)
    for name, original in originals.items():
        drop = torch.zeros(original.shape, dtype=torch.bool)
        if what != UNCHANGED:
            places = region(what.region, original.shape[-1]).expand_as(drop).flatten().nonzero()[:, 0]
            order = torch.randperm(len(places), generator=generator)
            drop.view(-1)[places[order[: round(what.sparsity * drop.numel())]]] = True
        weights[name].copy_(original.masked_fill(drop.to(original.device), 0))


def plain_copy(model: nn.Module) -> nn.Module:
    """A copy in eval mode whose asymmetric convolutions are fused, and whose weights are stored as they are used."""
    plain = copy.deepcopy(model).eval()
    if isinstance(plain, AsymmetricConv2d):
        return plain.fused()
    for block in [module for module in plain.modules() if isinstance(module, AsymmetricConv2d)]:
        fused = block.fused()
        for path in [path for path, module in plain.named_modules(remove_duplicate=False) if module is block]:
            plain.set_submodule(path, fused)
    for module in plain.modules():
        if isinstance(module, nn.Conv2d) and parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    return plain
