"""How alike the filters of a layer are: the matrix of their similarities, and what is read off it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from leanconv.errors import unknown
from leanconv.table import Table

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass
class LayerSimilarity:
    """The pairwise similarities of a layer's filters.

    Args:
        name: the layer's path in the model.
        channels: the filters compared, by number.
        of: how many filters the layer has.
        matrix: (F, F), the cosine of each two of the F filters compared: from -1 to 1, and 1 on the diagonal. A filter
            whose pattern is zero has the cosine 0 with every other.
    """

    name: str
    channels: Sequence[int]
    of: int
    matrix: Tensor

    @property
    def values(self) -> Tensor:
        """The similarities of the F·(F-1)/2 pairs."""
        first, second = self._pairs()
        return self.matrix[first, second]

    @property
    def mean(self) -> float:
        """The mean of all pairs; NaN for a single filter."""
        return self.values.mean().item()

    @property
    def error(self) -> float:
        """The standard error of the mean, as that of all the layer's filters; 0 where all were compared.

        By the jackknife: with m_i the mean without filter i, its square is (1 - F/C) · (F-1)/F · Σ (m_i - m)². NaN for
        less than three filters out of more.
        """
        count = len(self.channels)
        if count == self.of:
            return 0.0
        if count < 3:
            return float("nan")
        matrix = self.matrix.double()
        rows = matrix.sum(1) - matrix.diagonal()
        without = (rows.sum() / 2 - rows) / ((count - 1) * (count - 2) / 2)
        spread = (without - without.mean()).square().sum() * (count - 1) / count
        return ((1 - count / self.of) * spread).sqrt().item()

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """The lower quartile, the median and the upper quartile of all pairs; NaN for a single filter."""
        if not len(self.values):
            return (float("nan"),) * 3
        low, middle, high = self.values.double().quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
        return low, middle, high

    def histogram(self, bins: int = 40) -> tuple[Tensor, Tensor]:
        """The share of the pairs in each of equal bins from -1 to 1, and the bins' edges.

        Raises:
            ValueError: for less than one bin.
        """
        if bins < 1:
            raise ValueError(f"bins must be at least 1, got {bins}")
        values = self.values.double()
        edges = torch.linspace(-1, 1, bins + 1, dtype=torch.float64)
        return torch.histc(values, bins, -1, 1) / max(len(values), 1), edges

    def most_similar(self, count: int = 5) -> list[tuple[int, int, float]]:
        """The pairs of highest similarity, best first: two channels and their cosine.

        >>> LayerSimilarity("conv", [4, 9], 16, torch.tensor([[1, 0.5], [0.5, 1]])).most_similar()
        [(4, 9, 0.5)]
        """
        best = self.values.argsort(descending=True, stable=True)[:count]
        pairs = torch.tensor(self.channels)[torch.stack(self._pairs())[:, best]]
        return list(zip(*pairs.tolist(), self.values[best].tolist(), strict=True))

    def _pairs(self) -> tuple[Tensor, Tensor]:
        first, second = torch.triu_indices(len(self.channels), len(self.channels), offset=1)
        return first, second


@dataclass
class Similarity:
    """How alike the filters of a model's layers are. Prints as a table; `similarity["layer1.0.conv2"]` is a layer's.

    Args:
        what: what was compared.
        layers: one entry a layer, in the model's order.
        notes: how it was measured.
    """

    what: str
    layers: list[LayerSimilarity]
    notes: Sequence[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> LayerSimilarity:
        layers = {layer.name: layer for layer in self.layers}
        if name not in layers:
            raise unknown("layer", name, layers)
        return layers[name]

    @property
    def mean(self) -> float:
        """The mean of the layers' means; layers with a single filter are left out."""
        return torch.tensor([layer.mean for layer in self.layers]).nanmean().item()

    def histogram(self, bins: int = 40) -> tuple[Tensor, Tensor]:
        """The share of the pairs in each of equal bins from -1 to 1, the mean of the layers', and the bins' edges.

        Layers with a single filter are left out.
        """
        shares, edges = zip(*(layer.histogram(bins) for layer in self.layers), strict=True)
        compared = [share for share, layer in zip(shares, self.layers, strict=True) if len(layer.channels) > 1]
        return torch.stack(compared or [torch.zeros(bins)]).double().mean(0), edges[0]

    def table(self) -> Table:
        """One row a layer: the mean with its standard error, the quartiles and the most similar pair."""
        rows = [row(layer) for layer in self.layers]
        columns = ["layer", "filters", "mean", "lower quartile", "median", "upper quartile", "most similar pair"]
        notes = [f"Cosine similarity of {self.what}: mean over the layers {self.mean:.3f}.", *self.notes]
        return Table(columns, rows, notes=notes)

    def __rich__(self) -> RenderableType:
        return self.table().__rich__()

    def __str__(self) -> str:
        return str(self.table())


def row(layer: LayerSimilarity) -> list[str]:
    """A layer's row of the table."""
    filters = f"{layer.of}" if len(layer.channels) == layer.of else f"{len(layer.channels)} of {layer.of}"
    if len(layer.channels) < 2:
        return [layer.name, filters, *["–"] * 5]
    mean = f"{layer.mean:.3f}" + (f" ± {layer.error:.3f}" if len(layer.channels) < layer.of else "")
    ((first, second, value),) = layer.most_similar(1)
    pair = f"{first}, {second}: {value:.3f}"
    return [layer.name, filters, mean, *(f"{quartile:.3f}" for quartile in layer.quartiles), pair]
