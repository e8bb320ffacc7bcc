"""How well objects are found that hide one another: scores by how much the instances of an image overlap.

Wang and Yu, Tied Block Convolution (2021), Fig. 7, sort images by the occlusion ratio r = total overlap area / total
instance area. Here both totals go over the instances: for each, the area that it shares with at least one other, and
its area. With n(p) the number of instances at a point p,

    r = Σ_p n(p) [n(p) ≥ 2] / Σ_p n(p),

from 0, where no two instances touch, to 1, where each is covered by others. The place where three overlap counts three
times in both sums, once for each. Crowd regions don't count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from leanconv.files import write_csv
from leanconv.steps import Step, unwatched
from leanconv.table import Table
from leanconv.tasks.detection import rle
from leanconv.tasks.detection.data import DetectionSet
from leanconv.tasks.detection.scenes import Scene
from leanconv.tasks.detection.scores import CocoScores

if TYPE_CHECKING:
    from rich.console import RenderableType

SHAPES = ("boxes", "masks")
EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
FEW = 20  # images; with fewer, one of them moves the score by percents


def overlap_ratio(instances: Tensor) -> float:
    """The share of the instances' area that lies under or over another instance, 0 to 1.

    Args:
        instances: boxes, float [n, 4] (left, top, right, bottom), measured exactly, fractions of pixels too; or masks,
            bool or uint8 [n, H, W]. Without crowd regions.

    Returns:
        The ratio; 0 when there are no instances.

    Raises:
        ValueError: it is neither.

    >>> overlap_ratio(torch.tensor([[0.0, 0, 4, 1], [2, 0, 6, 1]]))  # each shares half of its area
    0.5
    """
    if instances.ndim == 2 and instances.shape[1] == 4:
        return ratio(*coverage(instances.detach().cpu().double().numpy()))
    if instances.ndim == 3:
        return ratio((instances != 0).sum(0, dtype=torch.int64).cpu().numpy(), 1.0)
    raise ValueError(f"instances must be boxes [n, 4] or masks [n, H, W], got shape {list(instances.shape)}")


def ratio(counts: np.ndarray, areas: np.ndarray | float) -> float:
    """The overlap ratio, given how many instances cover each place, and the areas of the places."""
    covered = counts * areas
    total = covered.sum()
    return float(covered[counts >= 2].sum() / total) if total > 0 else 0.0


def coverage(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many boxes cover each cell of the grid that all their edges make, and the areas of the cells."""
    columns, rows = (np.unique(boxes[:, axis::2]) for axis in (0, 1))
    across = (boxes[:, :1] <= columns[:-1]) & (columns[1:] <= boxes[:, 2:3])
    down = (boxes[:, 1:2] <= rows[:-1]) & (rows[1:] <= boxes[:, 3:])
    counts = down.T.astype(np.float64) @ across.astype(np.float64)  # exact, and unlike that of integers by BLAS
    return counts, np.outer(np.diff(rows), np.diff(columns))


def ratio_of(scene: Scene, shapes: str) -> float:
    """The overlap ratio of an image."""
    single = np.flatnonzero(~scene.crowd)
    if shapes == "boxes":
        return overlap_ratio(torch.from_numpy(scene.boxes[single]))
    counts = np.zeros((scene.height, scene.width), np.int64)
    masks = scene.masks()
    for position in single:
        counts += rle.decoded(masks[position])
    return ratio(counts, 1.0)


@dataclass(frozen=True)
class Group:
    """Images whose ratio lies in a range, and how well each model does on them.

    Attributes:
        low: the least ratio.
        high: below which the ratios are; None when all from `low` up belong here.
        images: how many there are.
        instances: in these images, without crowd regions.
        scores: what `CocoScores.compute` gives, by the name of the model.
    """

    low: float
    high: float | None
    images: int
    instances: int
    scores: Mapping[str, Mapping[str, float]]

    @property
    def few(self) -> bool:
        """Whether there are too few images to trust the scores."""
        return self.images < FEW

    def __str__(self) -> str:
        if self.high is None:
            return f"r ≥ {self.low:g}" if self.low > 0 else "all"
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class OcclusionStudy:
    """Scores of models by how much instances overlap; printed, a table.

    Attributes:
        source: of the images, for people.
        shapes: what was measured for the ratio, "boxes" or "masks".
        models: their names.
        ratios: of each image.
        bins: images by their ratio.
        thresholds: images from a ratio up; the first is of all images.
        measures: which scores there are for all models: "ap", "ap75" and perhaps "mask_ap", "mask_ap75".
        unpredicted: in how many images no prediction was made, by the name of the model.
    """

    source: str
    shapes: str
    models: tuple[str, ...]
    ratios: tuple[float, ...]
    bins: tuple[Group, ...]
    thresholds: tuple[Group, ...]
    measures: tuple[str, ...]
    unpredicted: Mapping[str, int]

    @property
    def groups(self) -> tuple[Group, ...]:
        """The bins and the thresholds."""
        return self.bins + self.thresholds

    def table(self) -> Table:
        """The scores in percent, in each bin and from each threshold up with images; the gain over the first model."""
        rows = [
            [f"{group}*" if group.few else str(group), model, group.images, group.instances, *self.cells(group, model)]
            for group in self.groups
            if group.images
            for model in self.models
        ]
        notes = [f"ratios r measured on {self.shapes}: mean {np.mean(self.ratios):.2f}, highest {max(self.ratios):.2f}"]
        notes += [f"* fewer than {FEW} images"] if any(0 < group.images < FEW for group in self.groups) else []
        notes += [f"in brackets: gained over {self.models[0]}"] if len(self.models) > 1 else []
        notes += [
            f"{model}: {count} of {len(self.ratios)} images have no prediction"
            for model, count in self.unpredicted.items()
            if count
        ]
        columns = ["overlap ratio", "model", "images", "instances", *(f"{TITLES[name]} (%)" for name in self.measures)]
        return Table(columns, rows, self.source, notes)

    def cells(self, group: Group, model: str) -> list[str]:
        """The scores of a model as the table shows them."""
        cells = []
        for measure in self.measures:
            score, first = (group.scores[name][measure] for name in (model, self.models[0]))
            gain = f" ({100 * (score - first):+.1f})" if model != self.models[0] else ""
            cells.append("–" if np.isnan(score) else f"{100 * score:.1f}{gain}")
        return cells

    def save(self, path: Path) -> None:
        """Writes one row for each model and group of images as CSV, with all scores, 0 to 1.

        Raises:
            OSError: it can't be written.
        """
        names = list(self.bins[0].scores[self.models[0]])
        rows = [
            [model, group.low, group.high, group.images, group.instances,
             *(group.scores[model].get(name, float("nan")) for name in names)]
            for model in self.models for group in self.groups
        ]  # fmt: skip
        write_csv(path, ["model", "from", "below", "images", "instances", *names], rows)

    def __rich__(self) -> RenderableType:
        return self.table().__rich__()

    def __str__(self) -> str:
        return str(self.table())


TITLES = {"ap": "AP", "ap75": "AP75", "mask_ap": "mask AP", "mask_ap75": "mask AP75"}


def study_occlusion(
    models: Mapping[str, CocoScores],
    *,
    source: str = "",
    shapes: str = "boxes",
    edges: Sequence[float] = EDGES,
    step: Step = unwatched,
) -> OcclusionStudy:
    """Scores what models found by how much the instances of an image overlap.

    Args:
        models: what each found, by its name, all in the same images.
        source: of the images, for people.
        shapes: what the ratio is measured on. "boxes" tells occlusion in any data; "masks" only where masks cover the
            hidden parts too. Those of COCO mostly show what is visible, and a pixel rarely belongs to two: on 318 of
            its images the mean ratio is 0.08 by masks and 0.29 by boxes. Of cell nuclei it is 0 by masks.
        edges: of the bins of ratios, ascending from 0 to 1; the last bin includes 1. They are the thresholds too.
        step: is told how much is done of how much.

    Raises:
        ValueError: there are no models, they are of different images, or an argument breaks a rule.
    """
    check_arguments(models, shapes, edges)
    first = next(iter(models.values()))
    scenes = first.images.scenes
    bounds = list(pairwise(edges))
    total = len(scenes) + len(models) * (2 * len(bounds))
    ratios = []
    for scene in scenes:
        ratios.append(ratio_of(scene, shapes))
        step(len(ratios), total)
    done = len(ratios)

    def group(low: float, high: float | None) -> Group:
        nonlocal done
        inside = [
            scene
            for scene, r in zip(scenes, ratios, strict=True)
            if low <= r and (high is None or r < high or r == high == 1)
        ]
        scores = {}
        for name, found in models.items():
            scores[name] = found.compute([scene.image_id for scene in inside])
            done += 1
            step(done, total)
        return Group(low, high, len(inside), sum(int((~scene.crowd).sum()) for scene in inside), scores)

    masks = all(found.masks for found in models.values())
    return OcclusionStudy(
        source=source,
        shapes=shapes,
        models=tuple(models),
        ratios=tuple(ratios),
        bins=tuple(group(low, high) for low, high in bounds),
        thresholds=tuple(group(low, None) for low, _ in bounds),
        measures=("ap", "ap75", "mask_ap", "mask_ap75") if masks else ("ap", "ap75"),
        unpredicted={name: len(set(first.scenes) - set(found.found)) for name, found in models.items()},
    )


def check_arguments(models: Mapping[str, CocoScores], shapes: str, edges: Sequence[float]) -> None:
    """Raises a `ValueError` unless they make sense together."""
    if not models:
        raise ValueError("models must be at least one, got none")
    sets: list[DetectionSet] = [found.images for found in models.values()]
    if any(each.image_ids != sets[0].image_ids for each in sets):
        raise ValueError("all models must have looked at the same images")
    if not len(sets[0]):
        raise ValueError("there must be images, got none")
    if shapes not in SHAPES:
        raise ValueError(f"shapes must be {' or '.join(SHAPES)}, got {shapes!r}")
    if shapes == "masks" and not sets[0].has_masks:
        raise ValueError("shapes can't be 'masks': the images have none")
    ascending = all(low < high for low, high in pairwise(edges))
    if len(edges) < 2 or not ascending or edges[0] != 0 or edges[-1] != 1:
        raise ValueError(f"edges must ascend from 0 to 1, got {', '.join(f'{edge:g}' for edge in edges)}")
