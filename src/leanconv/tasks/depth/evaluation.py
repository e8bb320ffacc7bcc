"""Testing networks that enlarge depth maps, beside methods that need no training."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from leanconv.steps import Step, unwatched
from leanconv.table import Table
from leanconv.tasks.data import loader
from leanconv.tasks.data.loading import Draws
from leanconv.tasks.depth.examples import WholeImages
from leanconv.tasks.depth.images import DepthData, DepthInfo, require_unit
from leanconv.tasks.depth.methods import BASELINES, Method
from leanconv.tasks.depth.protocol import BORDER, counted, rmse
from leanconv.tasks.depth.sources import of_recipe
from leanconv.tasks.depth_recipe import DepthRecipe
from leanconv.tasks.devices import chosen_accelerator
from leanconv.tasks.training_recipe import TESTED

if TYPE_CHECKING:
    from rich.console import RenderableType

Errors = Sequence[float | None]  # of the test scenes, in the data's unit; None for one without depth


class Placed:
    """A method that takes maps on the CPU and answers there, wherever it runs.

    Args:
        method: a network is moved to the device, and set to evaluation mode.
        recipe: says the device and, for a network, precision and memory format.
    """

    def __init__(self, method: Method, recipe: DepthRecipe) -> None:
        self.device = torch.device(chosen_accelerator(recipe))
        self.bf16 = recipe.precision == "bf16"
        self.method, self.parameters = method, 0
        if isinstance(method, nn.Module):
            layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
            method.to(self.device).to(memory_format=layout).eval()
            self.parameters = sum(weight.numel() for weight in method.parameters())

    @torch.inference_mode()
    def __call__(self, low: Tensor, image: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.method(low.to(self.device), image.to(self.device)).cpu()


@dataclass(frozen=True)
class Run:
    """The test of one method, of a network as it was trained with one seed.

    Args:
        method: its name.
        seed: None for a method that doesn't learn.
        errors: the root mean square error of each scene.
    """

    method: str
    seed: int | None
    errors: Errors

    @property
    def rmse(self) -> float:
        """The mean over the scenes that have a depth; NaN without any."""
        known = [error for error in self.errors if error is not None]
        return statistics.fmean(known) if known else math.nan


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What the test of one or several methods found; printed, a table.

    Attributes:
        runs: one for each method that doesn't learn, and one for each network and seed.
        data: that they were tested on.
        factor: that depth maps were enlarged by.
        methods: by name, networks with their first seed.
        examples: the test scenes as the methods saw them.
    """

    runs: Sequence[Run]
    data: DepthData
    factor: int
    methods: Mapping[str, Placed]
    examples: WholeImages

    @property
    def rmse(self) -> dict[str, float]:
        """The mean over the scenes and the seeds, by method, the best first."""
        means = {name: statistics.fmean(run.rmse for run in self.of(name)) for name in self.methods}
        return dict(sorted(means.items(), key=lambda pair: (math.isnan(pair[1]), pair[1])))

    @property
    def seeds(self) -> list[int]:
        """Those that networks were trained with."""
        return sorted({run.seed for run in self.runs if run.seed is not None})

    def of(self, name: str) -> list[Run]:
        """The runs of a method."""
        return [run for run in self.runs if run.method == name]

    def table(self) -> Table:
        """One row a method, the best first, one column a scene as far as there are few."""
        scenes = self.data.test.names if len(self.data.test) <= 6 else ()
        rows = []
        for name, error in self.rmse.items():
            runs = self.of(name)
            spread = torch.tensor([run.rmse for run in runs], dtype=torch.float64).std() if len(runs) > 1 else None
            shown = f"{error:.2f}" if spread is None else f"{error:.2f} ± {spread:.2f}"
            by_scene = zip(*(run.errors for run in runs), strict=True) if scenes else ()
            rows.append([name, shown, self.methods[name].parameters, *map(mean_text, by_scene)])
        seeds = ", ".join(map(str, self.seeds))
        over = f"mean ± standard deviation over seeds {seeds}" if len(self.seeds) > 1 else f"seed {seeds}"
        tested = "1 scene" if len(self.data.test) == 1 else f"{len(self.data.test)} scenes"
        notes = [
            f"RMSE in {self.data.unit}, ×{self.factor}: mean over {tested}; holes and a border of {BORDER} pixels "
            f"don't count; {over}",
            self.data.description,
        ]
        return Table(["method", "RMSE", "params", *scenes], rows, notes=notes)

    def __rich__(self) -> RenderableType:
        return self.table().__rich__()

    def __str__(self) -> str:
        return str(self.table())


def mean_text(errors: Errors) -> str:
    """The mean of the errors on one scene over seeds, as tables show it; a dash for a scene without depth.

    >>> mean_text([1.0, 2.0]), mean_text([None, None])
    ('1.50', '–')
    """
    known = [error for error in errors if error is not None]
    return f"{statistics.fmean(known):.2f}" if known else "–"


def evaluate(
    network: nn.Module,
    config: Mapping[str, Any],
    data: str | None,
    *,
    progress: bool = True,
    step: Step = unwatched,
    **overrides: Any,
) -> Evaluation:
    """Tests the network of a checkpoint, and `BASELINES` beside it.

    Args:
        network: a `Method`.
        config: of the checkpoint.
        data: a source as in a recipe; by default what it was trained on. Other data has its own `units_per_metre`.
        progress: not needed: depth maps are few.
        step: is told how many tests are done of how many.
        overrides: keys of the recipe that tell how to test: `limit`, `workers`, `accelerator`, `precision`,
            `channels_last`, `bad_images`, `units_per_metre`.

    Raises:
        ValueError: the data can't be read or is in another unit than the network has learned.
    """
    from leanconv.tasks.checkpoint import info_of, recipe_of

    if "batch_size" in overrides:
        raise ValueError(f"batch_size can't be given: scenes are tested one by one, got {overrides['batch_size']}")
    named = {} if data in (None, config["recipe"]["data"]) else {"data": data, "units_per_metre": None}
    recipe = recipe_of(config, **{**TESTED, **named, **overrides})
    opened = of_recipe(recipe)
    info: DepthInfo = info_of(config)
    require_unit(info.unit, opened.unit, recipe.data)
    methods = {recipe.model: Placed(network, recipe)}
    methods |= {name: Placed(method, recipe) for name, method in BASELINES.items()}
    examples = WholeImages(opened.test, recipe.factor, sampling=recipe.sampling)
    errors = errors_of(list(methods.values()), examples, workers=recipe.workers, step=step)
    runs = [
        Run(name, recipe.seed if name == recipe.model else None, each)
        for name, each in zip(methods, errors, strict=True)
    ]
    return Evaluation(runs=runs, data=opened, factor=recipe.factor, methods=methods, examples=examples)


def errors_of(
    methods: Sequence[Placed], examples: WholeImages, *, workers: int = 0, step: Step = unwatched
) -> list[list[float | None]]:
    """The root mean square errors of methods: of each one on each scene, None for a scene without depth.

    Args:
        methods: to test.
        examples: to test them on.
        workers: processes that read them.
        step: is told how many tests are done of how many.
    """
    errors: list[list[float | None]] = [[] for _ in methods]
    total = len(examples) * len(methods)
    scenes = loader(examples, Draws(len(examples), 1, training=False), workers=workers) if methods else ()
    for low, image, depth in scenes:
        known = bool(counted(depth).any())
        for method, found in zip(methods, errors, strict=True):
            found.append(rmse(method(low, image), depth).item() if known else None)
            step(sum(map(len, errors)), total)
    return errors
