"""Training one network with each operator alike, and measuring what each gives for what it costs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from torch import nn

from leanconv.measure import Setting, Timing, count
from leanconv.measure.profiling import timed
from leanconv.surgery.swapping import NothingTaken
from leanconv.tasks.circumstances import command, machine, versions
from leanconv.tasks.comparison import RESULTS, Comparison, Row, Training
from leanconv.tasks.devices import chosen_accelerator
from leanconv.tasks.manners import wait_for_the_first
from leanconv.tasks.result import Result
from leanconv.tasks.run_folder import claim, is_finished
from leanconv.tasks.seeding import seeded
from leanconv.tasks.task import Score, task_named
from leanconv.tasks.training import train
from leanconv.tasks.training_recipe import TrainingRecipe

OPERATORS = ("dense", "tied", "asymmetric", "ghost", "split", "ddf")
SEEDS = (0, 1)
ROUNDS = 20


def compare(
    recipe: TrainingRecipe,
    operators: Sequence[str] | None,
    seeds: Sequence[int],
    folder: str | Path,
    *,
    progress: bool = True,
) -> Comparison:
    """Trains a network with each operator and each seed, alike in all else, and measures what they cost.

    Whatever can be wrong with the arguments shows before the first training starts. Results are on disk as they come,
    and the same call again picks up where an interrupted one stopped. With other operators or seeds it adds them; those
    that the folder has results of stay, so that each operator is always trained with each seed. When all is there
    already, it is read.

    Args:
        recipe: what to train on what, and how; its operator and seed don't count.
        operators: "dense" for the network as it is, or names with settings as "tied:blocks=2". None for dense and
            each of `OPERATORS` that takes a layer of the network.
        seeds: of the weights, the order of the images and their augmentation.
        folder: made if need be. It will hold results.json, results.csv, and a run folder as `tied-blocks-2/seed-0` for
            each training.
        progress: whether to show how the trainings get on.

    Returns:
        The comparison, which prints as a table.

    Raises:
        ValueError: an operator, a seed, the model or the data is wrong, or the folder is that of another recipe.
        OSError: the folder can't be written or the disk is full; what was written before is whole.
        KeyboardInterrupt: after Ctrl-C; the epochs that were finished are safe.

    >>> compare(Recipe(epochs=5), ["dense", "tied:blocks=4"], [0, 1], "runs/comparison")  # doctest: +SKIP
    """
    folder = Path(folder)
    if operators is None:
        operators = applicable(recipe, progress=progress)
    for name, choices in (("operators", operators), ("seeds", seeds)):
        if not choices or len(set(choices)) < len(choices):
            raise ValueError(f"{name} must be at least one, each once, got {list(choices)}")
    earlier = Comparison.load(folder) if (folder / RESULTS).exists() else None
    if earlier:
        operators = list(dict.fromkeys([*(row.operator for row in earlier.rows if row.trainings), *operators]))
        seeds = [*seeds, *(training.seed for row in earlier.rows for training in row.trainings)]
    seeds = sorted(set(seeds))
    recipes = [replace(recipe, operator=operator, seed=seed) for seed in seeds for operator in operators]
    if earlier and is_whole(earlier, recipes, folder):
        return earlier
    task = task_named(recipe.task)
    if task.shape is None or task.fuse is None:
        raise ValueError(f"recipe key 'task' must be one whose networks take operators, got {recipe.task!r}")
    device = chosen_accelerator(recipe)
    data = task.open_data(recipe, progress=progress)
    shape = task.shape(recipe, data.info)
    inference = Setting.of(shape, device, channels_last=recipe.channels_last)
    rows, fused = [], {}
    for one in recipes[: len(operators)]:
        with seeded(one.seed):
            network = task.build_network(one, data.info)
        task.check_runs(network, one, data.info)
        replica, example = inference.replica(network), inference.input()
        cost = count(task.fuse(replica, example, tied="keep"), shape)
        rows.append(Row(one.operator, cost.params, cost.macs))
        fused[one.operator] = task.fuse(replica, example)
    for one in recipes:
        claim(run_folder(folder, one.operator, one.seed), one)

    comparison = Comparison(
        rows=rows,
        seeds=list(seeds),
        recipe={key: value for key, value in recipe.plain().items() if key not in ("operator", "seed")},
        setting={
            "data": data.description,
            "latency": f"{inference}, {ROUNDS} rounds",
            "machine": machine(device),
            "versions": versions(),
            "command": command(),
            "started": earlier.setting["started"] if earlier else now(),
            "finished": None,
        },
    )
    train_all(recipes, comparison, folder, progress=progress)
    measure(with_trainings(comparison, folder), fused, inference, folder)
    wait_for_the_first()
    return Comparison.load(folder)


def applicable(recipe: TrainingRecipe, *, progress: bool) -> list[str]:
    """Those of `OPERATORS` that take a layer of a recipe's network; says which don't."""
    task = task_named(recipe.task)
    info = task.open_data(recipe, progress=progress).info
    taken = []
    for operator in OPERATORS:
        try:
            with seeded(recipe.seed):
                task.build_network(replace(recipe, operator=operator), info)
        except NothingTaken:
            if progress:
                say(f"{operator} takes no layer of {recipe.model}: left out (`leanconv plan` says why)")
        else:
            taken.append(operator)
    return taken


def is_whole(earlier: Comparison, recipes: Sequence[TrainingRecipe], folder: Path) -> bool:
    """Whether a comparison has all that is wanted, trained and timed.

    Raises:
        ValueError: it is the comparison of another recipe.
    """
    wanted = {(recipe.operator, recipe.seed) for recipe in recipes}
    stored = {(row.operator, seed) for row in earlier.rows for seed in earlier.seeds}
    return (
        earlier.finished
        and wanted == stored
        and all(claim(run_folder(folder, recipe.operator, recipe.seed), recipe) for recipe in recipes)
    )


def train_all(recipes: Sequence[TrainingRecipe], comparison: Comparison, folder: Path, *, progress: bool) -> None:
    """Trains what isn't trained yet, and saves the comparison before the first training and after each."""
    folders = {recipe: run_folder(folder, recipe.operator, recipe.seed) for recipe in recipes}
    waiting = [recipe for recipe in recipes if not is_finished(folders[recipe])]
    save(with_trainings(comparison, folder), folder)
    score = comparison.score
    begin = perf_counter()
    for done, recipe in enumerate(waiting, start=1):
        result = train(recipe, folders[recipe], progress=progress)
        save(with_trainings(comparison, folder), folder)
        if progress:
            left = (perf_counter() - begin) / done * (len(waiting) - done) / 60
            say(
                f"{recipe.operator}, seed {recipe.seed}: {score.text(result.scores[score.key])} "
                f"after {result.seconds:.0f} s; "
                f"{len(recipes) - len(waiting) + done} of {len(recipes)} trained"
                + (f", about {left:.1f} min left" if left else "")
            )


@rank_zero_only
def save(comparison: Comparison, folder: Path) -> None:
    comparison.save(folder)


@rank_zero_only
def say(line: str) -> None:
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(line)


@rank_zero_only
def measure(comparison: Comparison, fused: Mapping[str, nn.Module], inference: Setting, folder: Path) -> None:
    """Times the fused networks by turns, and saves the finished comparison."""
    timings = {
        batch: timed(fused, replace(inference, shape=(batch, *inference.shape[1:])), ROUNDS)
        for batch in comparison.batches
    }
    rows = [
        replace(row, latency={batch: per_image(timings[batch][row.operator], batch) for batch in comparison.batches})
        for row in comparison.rows
    ]
    replace(comparison, rows=rows, setting={**comparison.setting, "finished": now()}).save(folder)


def per_image(timing: Timing, batch: int) -> Timing:
    return Timing(timing.median_ms / batch, timing.low_ms / batch, timing.high_ms / batch, timing.rounds)


def with_trainings(comparison: Comparison, folder: Path) -> Comparison:
    """A comparison with all trainings that are finished in its folder."""
    rows = []
    for row in comparison.rows:
        folders = [run_folder(folder, row.operator, seed) for seed in comparison.seeds]
        finished = [finished_training(each, comparison.score) for each in folders if is_finished(each)]
        rows.append(replace(row, trainings=finished))
    return replace(comparison, rows=rows)


def finished_training(folder: Path, score: Score) -> Training:
    """What a run folder says of its training."""
    result = Result.load(folder)
    epochs = json.loads((folder / "metrics.json").read_text())
    curve = {
        "train_loss": [finite(epoch["train_loss"]) for epoch in epochs],
        "test_score": [finite(score.scale * epoch[f"test_{score.key}"]) for epoch in epochs],
    }
    return Training(result.seed, score.scale * result.scores[score.key], result.seconds, curve)


def finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def run_folder(folder: Path, operator: str, seed: int) -> Path:
    """Where a comparison keeps one of its trainings.

    >>> run_folder(Path("runs"), "tied:blocks=2", 0).as_posix()
    'runs/tied-blocks-2/seed-0'
    """
    return folder / re.sub(r"[^\w.-]", "-", operator) / f"seed-{seed}"


def now() -> str:
    """The time in ISO form, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
