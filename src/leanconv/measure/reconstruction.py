"""How well a small filter makes one feature map from another that is like it: what Ghost convolutions live on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.measure.batches import Batches, Images
from leanconv.measure.observing import observe
from leanconv.measure.similarity import CONVOLUTIONS, layer_widths, map_similarity
from leanconv.nn.arguments import require_positive
from leanconv.steps import Step, unwatched
from leanconv.table import Table

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class MapPair:
    """Two feature maps of a layer, and how well one is made from the other.

    Attributes:
        layer: its path in the model.
        source: the channel that the filter reads.
        target: the channel that it shall give.
        similarity: the cosine of the two in one image, averaged over the images.
        power: the mean of the target's squares.
        errors: by kernel size, the mean squared error of the best filter.
        filters: by kernel size d, that filter, (d, d).
    """

    layer: str
    source: int
    target: int
    similarity: float
    power: float
    errors: dict[int, float]
    filters: dict[int, Tensor]

    def relative(self, size: int) -> float:
        """The error as a share of the target's power: 0 for a perfect map, at most 1; 0 for a target of zeros."""
        return self.errors[size] / self.power if self.power else 0.0


@dataclass
class Reconstruction:
    """How well maps are made from one another, a row a pair. Prints as a table.

    Attributes:
        pairs: the most similar pairs of each layer, best first.
        sizes: of the kernels.
        images: how many were looked at.
    """

    pairs: list[MapPair]
    sizes: Sequence[int]
    images: int

    def table(self) -> Table:
        """The mean squared error of each pair with each size of kernel, and what share of the target's power it is."""
        columns = ["layer", "from → to", "cosine", "power", *(f"{size} × {size}" for size in self.sizes)]
        rows = [
            [pair.layer, f"{pair.source} → {pair.target}", f"{pair.similarity:.3f}", f"{pair.power:.3g}",
             *(f"{pair.errors[size]:.2e} ({pair.relative(size):.1%})" for size in self.sizes)]
            for pair in self.pairs
        ]
        note = f"Mean squared error of the best d × d filter over {self.images} images (its share of the map's power)."
        return Table(columns, rows, notes=[note])

    def __rich__(self) -> RenderableType:
        return self.table().__rich__()

    def __str__(self) -> str:
        return str(self.table())


def reconstruction_error(
    model: nn.Module,
    images: Images,
    layers: str | Sequence[str] | None = None,
    *,
    kernel_sizes: Sequence[int] = (1, 3, 5, 7),
    pairs: int = 3,
    batch_size: int = 8,
    progress: Step | None = None,
) -> Reconstruction:
    """How far the most similar feature maps of a layer are from being a small convolution of one another.

    The toy experiment of K. Han et al., *GhostNet: More Features from Cheap Operations*, CVPR 2020. For two maps a and
    b, over all images and positions p, and the d × d shifts s,

        MSE(d) = min over k of the mean of (b[p] - Σ_s k[s] · a[p + s])²,  with a = 0 outside of the map.

    The minimum is that of a linear least-squares problem, so that it is found at once, and never grows with d. One
    filter serves all images, and has no bias, as a depthwise convolution's.

    Args:
        model: any module that takes images; it runs in eval mode and stays as it is.
        images: (N, C, H, W), or batches, as for `filter_similarity`; their sizes may differ.
        layers: paths of layers that give maps, or shell patterns; by default the first block of several convolutions,
            or without one the first layer with a window.
        kernel_sizes: odd sizes d.
        pairs: how many of a layer's pairs, the most similar first. The filter makes the higher channel from the lower.
        batch_size: images at once, where they are one tensor.
        progress: called after each batch, of two rounds, with how many are done and how many there will be.

    Raises:
        ValueError: for a layer that doesn't exist, doesn't run or doesn't give at least two maps; for sizes that
            aren't odd, or none; pairs or batch_size below 1; for images of another shape, or none.
        TypeError: for images that aren't floating-point numbers, or can be gone through only once.

    >>> conv = nn.Conv2d(1, 2, 3, padding=1, bias=False)
    >>> conv.weight.data[0] = torch.tensor([[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    >>> error = reconstruction_error(nn.Sequential(conv), torch.randn(2, 1, 8, 8), "0")
    >>> [f"{error.pairs[0].relative(size):.3f}" for size in (3, 5)]
    ['0.000', '0.000']
    """
    require_positive(pairs=pairs, batch_size=batch_size)
    sizes = sorted(kernel_sizes)
    if not sizes or any(not isinstance(size, int) or size < 1 or size % 2 == 0 for size in sizes):
        raise ValueError(f"kernel_sizes must be odd numbers of at least 1, got {tuple(kernel_sizes)}")
    batches = Batches(images, batch_size)
    widths = layer_widths(model, batches.example(), first_block(model) if layers is None else layers)
    paths = list(widths)[:1] if layers is None else list(widths)
    for path in paths:
        if widths[path] < 2:
            raise ValueError(f"layer {path!r} must give at least two maps, got {widths[path]}")
    step = progress or unwatched
    rounds = 2 * len(batches)
    similarity = map_similarity(
        model, images, paths, batch_size=batch_size, progress=lambda done, total: step(done, rounds)
    )
    chosen = {path: similarity[path].most_similar(pairs) for path in paths}
    problems = {path: [LeastSquares(sizes[-1]) for _ in found] for path, found in chosen.items()}
    with torch.no_grad():
        for done, batch in enumerate(batches, start=len(batches) + 1):
            for path, calls in observe(model, batch, paths)[1].items():
                for maps in calls:
                    for problem, (source, target, _) in zip(problems[path], chosen[path], strict=True):
                        problem.add(maps[:, source], maps[:, target])
            step(done, rounds)
    found = []
    for path in paths:
        for problem, (source, target, cosine) in zip(problems[path], chosen[path], strict=True):
            solved = {size: problem.solve(size) for size in sizes}
            errors = {size: error for size, (error, _) in solved.items()}
            filters = {size: filter for size, (_, filter) in solved.items()}
            found.append(MapPair(path, source, target, cosine, problem.power, errors, filters))
    return Reconstruction(found, sizes, batches.count)


class LeastSquares:
    """The filter that makes one map from another, from sums over as many maps as one likes.

    With the shifted maps as the columns of X and the target y, it keeps XᵀX, Xᵀy and yᵀy for the largest filter; a
    smaller one's are parts of them.

    Args:
        size: of the largest filter, odd.

    >>> problem = LeastSquares(3)
    >>> a = torch.randn(2, 5, 5)
    >>> problem.add(a, 2 * a)
    >>> error, filter = problem.solve(1)
    >>> round(filter.item(), 9)
    2.0
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.gram = torch.zeros(size**2, size**2, dtype=torch.float64)
        self.product = torch.zeros(size**2, dtype=torch.float64)
        self.square = 0.0
        self.count = 0

    @property
    def power(self) -> float:
        """The mean of the target's squares."""
        return self.square / self.count

    def add(self, source: Tensor, target: Tensor) -> None:
        """Takes in two maps, (N, H, W)."""
        height, width = target.shape[1:]
        wanted = target.double().flatten()
        padded = F.pad(source.double(), (self.size // 2,) * 4)
        shifts = [(down, right) for down in range(self.size) for right in range(self.size)]
        shifted = torch.stack([padded[:, down:down + height, right:right + width].flatten() for down, right in shifts])
        self.gram += (shifted @ shifted.T).cpu()
        self.product += (shifted @ wanted).cpu()
        self.square += wanted.square().sum().item()
        self.count += wanted.numel()

    def solve(self, size: int) -> tuple[float, Tensor]:
        """The mean squared error of the best filter of that size, and the filter, (size, size)."""
        edge = (self.size - size) // 2
        inner = torch.arange(self.size**2).view(self.size, self.size)[edge:self.size - edge, edge:self.size - edge]
        inner = inner.flatten()
        gram, product = self.gram[inner][:, inner], self.product[inner]
        filter = torch.linalg.lstsq(gram, product[:, None], driver="gelsd").solution[:, 0]
        residue = self.square - 2 * filter @ product + filter @ gram @ filter
        return max(residue.item(), 0.0) / self.count, filter.view(size, size)


def first_block(model: nn.Module) -> list[str] | None:
    """The path of the first block of several convolutions in a stack, such as a ResNet's "layer1.0".

    >>> block = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    >>> first_block(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(block))), first_block(block)
    (['1.0'], None)
    """
    members = [(path, module) for path, module in model.named_modules() if path.rpartition(".")[2].isdecimal()]
    blocks = [path for path, module in members if is_block(module)]
    innermost = [path for path in blocks if not any(other.startswith(f"{path}.") for other in blocks)]
    return innermost[:1] or None


def is_block(module: nn.Module) -> bool:
    """Whether a module, not a convolution itself, holds several."""
    convolutions = [child for child in module.modules() if isinstance(child, nn.Conv2d)]
    return len(convolutions) > 1 and not isinstance(module, CONVOLUTIONS)
