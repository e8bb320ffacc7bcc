"""How well networks that learned from upright images know rotated and flipped ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from leanconv.measure.accuracy import Distortion, hits
from leanconv.steps import Step
from leanconv.table import Table

if TYPE_CHECKING:
    from rich.console import RenderableType

UPRIGHT = "upright"


def rotated_90(images: Tensor) -> Tensor:
    """Images (N, C, H, W) turned to the left by a quarter.

    >>> rotated_90(torch.tensor([[[[1, 2], [3, 4]]]]))
    tensor([[[[2, 4],
              [1, 3]]]])
    """
    return torch.rot90(images, 1, (2, 3))


def rotated_180(images: Tensor) -> Tensor:
    """Images (N, C, H, W) upside down, as by a half turn.

    >>> rotated_180(torch.tensor([[[[1, 2], [3, 4]]]]))
    tensor([[[[4, 3],
              [2, 1]]]])
    """
    return torch.rot90(images, 2, (2, 3))


def flipped(images: Tensor) -> Tensor:
    """Images (N, C, H, W) mirrored at their horizontal middle line.

    >>> flipped(torch.tensor([[[[1, 2], [3, 4]]]]))
    tensor([[[[3, 4],
              [1, 2]]]])
    """
    return images.flip(2)


DISTORTIONS: Mapping[str, Distortion] = {
    "rotated 90°": rotated_90, "rotated 180°": rotated_180, "flipped up-down": flipped,
}  # fmt: skip


@dataclass(frozen=True)
class Robustness:
    """The accuracy of networks on upright and on distorted images. Prints as a table.

    Args:
        accuracies: 0 to 1, by the network's name, then by what was done to the images, `UPRIGHT` first.
        images: how many there were.
    """

    accuracies: Mapping[str, Mapping[str, float]]
    images: int

    def difference(self, name: str, distortion: str) -> float:
        """What a distortion adds to a network's accuracy on upright images: mostly below 0."""
        return self.accuracies[name][distortion] - self.accuracies[name][UPRIGHT]

    @property
    def error(self) -> float:
        """The largest standard error that an accuracy on so many images can have: √(p (1 − p) / n) with p = 1/2."""
        return 0.5 / self.images**0.5

    def table(self) -> Table:
        """One row a network: its accuracies, with the differences from upright images in percentage points."""
        distortions = list(next(iter(self.accuracies.values())))
        rows = [[name, *(self._cell(name, distortion) for distortion in distortions)] for name in self.accuracies]
        notes = [f"Top-1 accuracy on {self.images} images, and what the distortion changes in percentage points; "
                 f"standard error at most {100 * self.error:.2f}."]
        return Table(["model", *distortions], rows, notes=notes)

    def _cell(self, name: str, distortion: str) -> str:
        value = f"{self.accuracies[name][distortion]:.2%}"
        if distortion == UPRIGHT:
            return value
        return f"{value} ({100 * self.difference(name, distortion):+.2f})".replace("-", "−")

    def __rich__(self) -> RenderableType:
        return self.table().__rich__()

    def __str__(self) -> str:
        return str(self.table())


def robustness(
    models: nn.Module | Mapping[str, nn.Module],
    batches: Iterable[Any],
    distortions: Mapping[str, Distortion] = DISTORTIONS,
    *,
    progress: Step | None = None,
) -> Robustness:
    """The top-1 accuracy of networks on images as they are, and rotated by 90°, by 180° and flipped up-down.

    X. Ding et al., *ACNet: Strengthening the Kernel Skeletons for Powerful CNN via Asymmetric Convolution Blocks*, ICCV
    2019, Table 4. The distortions move pixels and compute none anew. The models run in eval mode and stay as they are.

    Args:
        models: one, or several by their names.
        batches: of images (N, C, H, W) with their labels (N,), to be gone through several times.
        distortions: by name, what makes distorted images (N, C, H, W) of a batch.
        progress: called after each batch with how many are done and how many there will be; the batches need a length.

    Raises:
        ValueError: for no models, or as `accuracy`.
        TypeError: as `accuracy`.

    >>> model = nn.Flatten()
    >>> batch = torch.eye(4).view(4, 1, 2, 2), torch.tensor([0, 1, 2, 3])
    >>> print(robustness(model, [batch]))
     model     upright       rotated 90°      rotated 180°   flipped up-down
    ─────────────────────────────────────────────────────────────────────────
     Flatten   100.00%   0.00% (−100.00)   0.00% (−100.00)   0.00% (−100.00)
    Top-1 accuracy on 4 images, and what the distortion changes in percentage points; standard error at most 25.00.
    """
    if isinstance(models, nn.Module):
        models = {type(models).__name__: models}
    if not models:
        raise ValueError("models must be at least one, got none")
    every: dict[str, Distortion | None] = {UPRIGHT: None, **distortions}
    accuracies: dict[str, dict[str, float]] = {}
    done = 0

    def taken() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, len(models) * len(every) * len(batches))  # type: ignore[arg-type]

    for name, model in models.items():
        found = {distortion: hits(model, batches, distort, taken) for distortion, distort in every.items()}
        accuracies[name] = {distortion: right / count for distortion, (right, count) in found.items()}
    return Robustness(accuracies, found[UPRIGHT][1])
