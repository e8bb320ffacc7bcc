"""Training the networks for depth alike, and testing them beside methods that need no training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from leanconv.files import make_folder, write
from leanconv.steps import Step, unwatched
from leanconv.tasks.checkpoint import load_model
from leanconv.tasks.comparison import RESULTS
from leanconv.tasks.depth.evaluation import Evaluation, Placed, Run, errors_of
from leanconv.tasks.depth.examples import WholeImages
from leanconv.tasks.depth.images import DepthData
from leanconv.tasks.depth.methods import BASELINES
from leanconv.tasks.depth.sources import of_recipe
from leanconv.tasks.depth.upsampling import TASK
from leanconv.tasks.depth_recipe import NETWORKS, DepthRecipe
from leanconv.tasks.devices import chosen_accelerator
from leanconv.tasks.manners import wait_for_the_first
from leanconv.tasks.run_folder import CIRCUMSTANCES, MODEL, claim
from leanconv.tasks.seeding import seeded
from leanconv.tasks.training import train
from leanconv.tasks.training_recipe import DEFAULT_TASK

Key = tuple[str, int | None]  # of a run: method and seed


def compare_depth(
    recipe: DepthRecipe,
    seeds: Sequence[int],
    folder: str | Path,
    *,
    progress: bool = True,
    step: Step = unwatched,
) -> Evaluation:
    """Trains each network for depth with each seed, alike in all else, and tests them beside simple methods.

    Whatever can be wrong with the arguments shows before the first training starts. The same call again goes on where
    an interrupted one stopped; what is trained and tested already is read.

    Args:
        recipe: what to train on, and how; its model and seed don't count.
        seeds: of the weights, the order of the scenes and their crops.
        folder: made if need be. It will hold results.json, and a run folder as `ddf_up_net/seed-0` for each training.
        progress: whether to show how the trainings get on.
        step: is told how many tests are done of how many.

    Raises:
        ValueError: the recipe can't be followed, or the folder is that of another recipe or of other networks.
        OSError: the folder can't be written or the disk is full; what was written before is whole.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be at least one, each once, got {list(seeds)}")
    if recipe.weights is not None:
        raise ValueError(f"recipe key 'weights' must be empty to compare networks, as it fits one of them only, "
                         f"got {str(recipe.weights)!r}")
    folder = Path(folder)
    recipes: dict[Key, DepthRecipe] = {
        (model, seed): replace(recipe, model=model, seed=seed) for model in NETWORKS for seed in seeds
    }
    folders = {key: folder / one.model / f"seed-{one.seed}" for key, one in recipes.items()}
    stored = read_results(folder)
    data = checked(list(recipes.values())[:: len(seeds)])
    make_folder(folder)
    finished = {key for key, one in recipes.items() if claim(folders[key], one)}
    subject = {
        "recipe": {key: value for key, value in recipe.plain().items() if key not in {"model", "seed", *CIRCUMSTANCES}},
        "scenes": list(data.test.names),
    }
    same = all(stored.get(key) == value for key, value in subject.items())
    earlier = [Run(**run) for run in stored["runs"]] if same else []
    runs = {key: run for run in earlier if (key := (run.method, run.seed)) in finished or run.seed is None}
    save(folder, subject, runs)
    for key, one in recipes.items():
        train(one, folders[key], progress=progress)
    methods = {key: Placed(load_model(folders[key] / MODEL)[0], one) for key, one in recipes.items()}
    methods |= {(name, None): Placed(method, recipe) for name, method in BASELINES.items()}
    examples = TASK.feed(data, recipe).test
    test_missing(methods, examples, runs, folder, subject, workers=recipe.workers, step=step)
    wait_for_the_first()
    found = {(run["method"], run["seed"]): Run(**run) for run in read_results(folder)["runs"]}
    return Evaluation(
        runs=[found[key] for key in methods],
        data=data,
        factor=recipe.factor,
        methods={name: method for (name, seed), method in methods.items() if seed in (None, seeds[0])},
        examples=examples,
    )


def checked(recipes: Sequence[DepthRecipe]) -> DepthData:
    """The data of recipes for several networks, which are all built to see whether they can be trained and tested.

    Raises:
        ValueError: one can't.
    """
    chosen_accelerator(recipes[0])
    data = of_recipe(recipes[0])
    for recipe in recipes:
        with seeded(recipe.seed):
            network = TASK.build_network(recipe, data.info)
        TASK.check_runs(network, recipe, data.info)
        feed = TASK.feed(data, recipe)
        feed.train_dataloader()
        feed.val_dataloader()
    return data


def read_results(folder: Path) -> dict[str, Any]:
    """What a folder holds of a comparison of networks for depth; nothing for a new one.

    Raises:
        ValueError: it holds the comparison of another task, or a damaged one.
    """
    path = folder / RESULTS
    if not path.exists():
        return {}
    try:
        stored = json.loads(path.read_text())
        task = stored["recipe"].get("task", DEFAULT_TASK)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} isn't the result of a comparison: {error!r}") from error
    if task != DepthRecipe.task:
        raise ValueError(f"{folder} must be new or hold a comparison of networks for depth, got one of {task}: choose "
                         "another --out")
    return stored


@rank_zero_only
def test_missing(
    methods: Mapping[Key, Placed],
    examples: WholeImages,
    runs: Mapping[Key, Run],
    folder: Path,
    subject: Mapping[str, Any],
    *,
    workers: int,
    step: Step,
) -> None:
    """Tests the methods that there are no runs of, and saves the finished comparison."""
    missing = [key for key in methods if key not in runs]
    errors = errors_of([methods[key] for key in missing], examples, workers=workers, step=step)
    tested = {key: Run(*key, each) for key, each in zip(missing, errors, strict=True)}
    save(folder, subject, {**runs, **tested})


@rank_zero_only
def save(folder: Path, subject: Mapping[str, Any], runs: Mapping[Key, Run]) -> None:
    """Writes results.json: the recipe, the names of the scenes, and the errors of each run."""
    write(folder / RESULTS, json.dumps({**subject, "runs": [vars(run) for run in runs.values()]}, indent=1) + "\n")
