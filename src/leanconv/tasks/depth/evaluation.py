"""Testing a network that enlarges depth maps, beside methods that need no training."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from leanconv.steps import Step, unwatched
from leanconv.table import Table
from leanconv.tasks.depth.examples import WholeImages
from leanconv.tasks.depth.images import DepthData
from leanconv.tasks.depth.methods import BASELINES, Method
from leanconv.tasks.depth.protocol import rmse
from leanconv.tasks.depth.sources import of_recipe
from leanconv.tasks.depth_recipe import DepthRecipe
from leanconv.tasks.devices import chosen_accelerator
from leanconv.tasks.training_recipe import TESTED

if TYPE_CHECKING:
    from rich.console import RenderableType

@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What the test of one or several methods found; printed, a table.

    Attributes:
        errors: by method, the root mean square error of each test scene, in `data.unit`; NaN for one without depth.
        data: that they were tested on.
        factor: that depth maps were enlarged by.
        methods: by name.
        seconds: the test took.
        examples: the test scenes as the methods saw them.
    """

    errors: Mapping[str, list[float]]
    data: DepthData
    factor: int
    methods: Mapping[str, Method]
    seconds: float
    examples: WholeImages

    @property
    def rmse(self) -> dict[str, float]:
        """The mean over the scenes, by method."""
        return {name: torch.tensor(errors).nanmean().item() for name, errors in self.errors.items()}

    def table(self) -> Table:
        """One row a method, one column a scene as far as there are few."""
        scenes = self.data.test.names if len(self.data.test) <= 6 else ()
        rows = [
            [name, f"{self.rmse[name]:.2f}", *(f"{error:.2f}" for error in (errors if scenes else ()))]
            for name, errors in self.errors.items()
        ]
        notes = [
            f"RMSE in {self.data.unit}, ×{self.factor}: mean over {len(self.data.test)} scenes; "
            f"holes and a border of 6 pixels don't count; {self.seconds:.1f} s",
            self.data.description,
        ]
        return Table(["method", "RMSE", *scenes], rows, notes=notes)

    def __rich__(self) -> RenderableType:
        return self.table().__rich__()

    def __str__(self) -> str:
        return str(self.table())


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
        data: a source as in a recipe; by default what it was trained on.
        progress: not needed: depth maps are few.
        step: is told how many tests are done of how many.
        overrides: keys of the recipe that tell how to test: `limit`, `accelerator`, `bad_images`, `units_per_metre`.

    Raises:
        ValueError: the data can't be read.
    """
    from leanconv.tasks.checkpoint import recipe_of

    named = {} if data is None else {"data": data}
    recipe: DepthRecipe = recipe_of(config, **{**TESTED, **named, **overrides})
    opened = of_recipe(recipe)
    device = torch.device(chosen_accelerator(recipe))
    methods: dict[str, Method] = {recipe.model: network.to(device).eval(), **BASELINES}
    return measured(methods, opened, recipe.factor, sampling=recipe.sampling, device=device, step=step)


def measured(
    methods: Mapping[str, Method],
    data: DepthData,
    factor: int,
    *,
    sampling: Any = "centre",
    device: torch.device | str = "cpu",
    step: Step = unwatched,
) -> Evaluation:
    """Tests methods on the test scenes of a data set.

    Args:
        methods: by name.
        data: opened.
        factor: that depth maps are enlarged by.
        sampling: how the low resolution comes about, as `low_resolution` takes it.
        device: to test on.
        step: is told how many tests are done of how many.
    """
    begin = time.perf_counter()
    examples = WholeImages(data.test, factor, sampling=sampling)
    errors: dict[str, list[float]] = {name: [] for name in methods}
    done = 0
    with torch.inference_mode():
        for position in range(len(examples)):
            low, image, depth = (each.to(device) for each in examples[position])
            for name, method in methods.items():
                errors[name].append(rmse(method(low, image), depth).item())
                done += 1
                step(done, len(examples) * len(methods))
    return Evaluation(
        errors=errors, data=data, factor=factor, methods=methods, seconds=time.perf_counter() - begin, examples=examples
    )
