"""Training the networks for depth alike, and testing them beside methods that need no training."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from leanconv.files import make_folder
from leanconv.steps import Step, unwatched
from leanconv.table import Table
from leanconv.tasks.checkpoint import load_model
from leanconv.tasks.depth.evaluation import Evaluation, measured
from leanconv.tasks.depth.methods import BASELINES, Method
from leanconv.tasks.depth.sources import of_recipe
from leanconv.tasks.depth_recipe import NETWORKS, DepthRecipe
from leanconv.tasks.run_folder import MODEL, claim
from leanconv.tasks.training import train

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class DepthComparison:
    """How far off networks are, and methods that need no training. Prints as a table.

    Args:
        evaluation: of the networks of the first seed, and of the other methods.
        errors: of each network, the root mean square error with each seed.
        parameters: of each network.
        seeds: that each network is trained with.
    """

    evaluation: Evaluation
    errors: Mapping[str, Sequence[float]]
    parameters: Mapping[str, int]
    seeds: Sequence[int]

    def table(self) -> Table:
        """One row a method, the best first."""
        rows = []
        for name, error in sorted(self.evaluation.rmse.items(), key=lambda pair: self.mean(pair[0])):
            spread = f" ± {statistics.stdev(self.errors[name]):.2f}" if len(self.errors.get(name, ())) > 1 else ""
            shown = self.mean(name) if name in self.errors else error
            rows.append([name, f"{shown:.2f}{spread}", self.parameters.get(name, 0)])
        data, seeds = self.evaluation.data, ", ".join(map(str, self.seeds))
        over = f"mean ± standard deviation over seeds {seeds}" if len(self.seeds) > 1 else f"seed {seeds}"
        note = f"RMSE in {data.unit}, ×{self.evaluation.factor}, over {len(data.test)} test scenes; {over}"
        return Table(["method", "RMSE", "params"], rows, notes=[note, data.description])

    def mean(self, name: str) -> float:
        """The error of a method, the mean over the seeds if it learns."""
        return statistics.fmean(self.errors[name]) if name in self.errors else self.evaluation.rmse[name]

    def __rich__(self) -> RenderableType:
        return self.table().__rich__()

    def __str__(self) -> str:
        return str(self.table())


def compare_depth(
    recipe: DepthRecipe,
    seeds: Sequence[int],
    folder: str | Path,
    *,
    progress: bool = True,
    step: Step = unwatched,
) -> DepthComparison:
    """Trains each network for depth with each seed, alike in all else, and tests them beside simple methods.

    The same call again goes on where an interrupted one stopped.

    Args:
        recipe: what to train on, and how; its model and seed don't count.
        seeds: of the weights, the order of the scenes and their crops.
        folder: made if need be; it will hold a run folder as `ddf_up_net/seed-0` for each training.
        progress: whether to show how the trainings get on.
        step: is told how many tests are done of how many.

    Raises:
        ValueError: the data can't be read, or the folder is that of another recipe.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be at least one, each once, got {list(seeds)}")
    folder = Path(folder)
    make_folder(folder)
    recipes = [replace(recipe, model=model, seed=seed) for model in NETWORKS for seed in seeds]
    folders = {one: folder / one.model / f"seed-{one.seed}" for one in recipes}
    for one in recipes:
        claim(folders[one], one)
    errors: dict[str, list[float]] = {model: [] for model in NETWORKS}
    for one in recipes:
        errors[one.model].append(train(one, folders[one], progress=progress).scores["rmse"])
    networks: dict[str, Method] = {}
    parameters = {}
    for one in recipes[:: len(seeds)]:
        network, _ = load_model(folders[one] / MODEL)
        networks[one.model] = network
        parameters[one.model] = sum(weight.numel() for weight in network.parameters())
    evaluation = measured(
        {**networks, **BASELINES}, of_recipe(recipe), recipe.factor, sampling=recipe.sampling, step=step
    )
    return DepthComparison(evaluation, errors, parameters, list(seeds))
