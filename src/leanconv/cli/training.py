"""Commands that train and test: train, eval, compare."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from leanconv.cli.options import ComparisonOptions, RecipeOptions, TestOptions
from leanconv.cli.output import bar, show
from leanconv.cli.words import Words, require_operator, split_operators
from leanconv.tasks.task import SCORES, recipe_class
from leanconv.tasks.training_recipe import DEFAULT_TASK, TrainingRecipe, read

Task = Literal["classification", "detection", "depth"]


def train(
    *,
    task: Task | None = None,
    recipe: Path | None = None,
    out: Path | None = None,
    options: RecipeOptions | None = None,
) -> None:
    """Trains one network on one data set, as a recipe says. Repeated, the same command resumes or shows the result.

    For example:

        leanconv train --operator tied:blocks=2 --epochs 5
        leanconv train --recipe imagenet_ghostnet --data imagefolder:PATH
        leanconv train --recipe mine.yaml --seed 1 --out runs/1
        leanconv train --data imagefolder:flowers --model resnet18 --pretrained
        leanconv train --task detection --data coco:PATH --backbone tied_resnet50_s

    Args:
        task: What to train for; by default what the recipe says, or else classification.
        recipe: Name that `leanconv recipes` knows, or YAML file; what it leaves out has its default.
        out: Folder for the record and the weights; by default one below runs/ that is named after the recipe.
    """
    from leanconv import tasks
    from leanconv.tasks.manners import is_first_process

    chosen = read_recipe(recipe, options, task)
    folder = out or Path("runs") / run_name(chosen, recipe)
    with resumable():
        result = tasks.train(chosen, folder)
    if is_first_process():
        score = SCORES[chosen.task]
        show(f"{score.text(result.scores[score.key])} after {result.seconds:.0f} s of training; see {folder}")


def evaluate(checkpoint: Path, /, *, out: Path | None = None, options: TestOptions | None = None) -> None:
    """Tests a trained network: a classifier's accuracy, a detector's average precision, the error of depth maps.

    For example:

        leanconv eval runs/tied
        leanconv eval model.safetensors --data imagefolder:flowers --batch-size 32
        leanconv eval runs/detector --out runs/eval

    Args:
        checkpoint: Folder of a finished training, or FILE.safetensors that leanconv wrote.
        out: Folder for what was found, as files and as a report with pictures; by default it is only printed.
    """
    from leanconv import tasks

    given = options or {}
    with bar("testing") as step:
        evaluation = tasks.evaluate(checkpoint, step=step, **given)
    if out is None:
        show(evaluation)
    else:
        from leanconv.report import write_evaluation

        show(evaluation, f"report: {write_evaluation(evaluation, out)}")


def compare(
    *,
    task: Task | None = None,
    recipe: Path | None = None,
    operators: Words = (),
    seeds: int = 2,
    out: Path = Path("runs/compare"),
    options: ComparisonOptions | None = None,
) -> None:
    """Trains one network with each operator alike, and says in a table and a report what each gives for what it costs.

    Without arguments: a CIFAR ResNet-20 on handwritten digits, in minutes. Repeated, the same command resumes.

    For example:

        leanconv compare
        leanconv compare --operators dense,tied:blocks=8 --seeds 3 --epochs 20
        leanconv compare --model resnet18 --data imagefolder:flowers
        leanconv compare --task detection --data coco:PATH --operators dense,tied:blocks=2
        leanconv compare --task depth --data depth:PATH --factor 8

    For depth it is networks that are compared, and methods that need no training, not operators.

    Args:
        task: What to train for; by default what the recipe says, or else classification.
        recipe: Name that `leanconv recipes` knows, or YAML file; what it leaves out has its default.
        operators: A list with commas in between; by default the network as it is, and those that leanconv adds.
        seeds: Trainings with each operator, with seeds from 0.
        out: Folder for the trainings, the results and the report.
    """
    from leanconv.report import write_report
    from leanconv.report.insight import look_into
    from leanconv.report.insight_sections import insight_sections
    from leanconv.tasks import comparing
    from leanconv.tasks.manners import is_first_process

    chosen = read_recipe(recipe, options, task)
    if chosen.task == "depth":
        if operators or "model" in (options or {}):
            raise ValueError("--operators and --model can't be given for depth: what is compared is its networks, as "
                             "they are, and methods that need no training")
        compare_for_depth(chosen, seeds, out)
        return
    with resumable():
        comparison = comparing.compare(
            chosen, split_operators(operators) if operators else None, range(seeds), out
        )
        if not is_first_process():
            return
        if chosen.task == "detection":
            from leanconv.report.detection_page import compared_section

            sections = [compared_section(comparison, out)]
        else:
            with bar("looking into the networks") as step:
                sections = insight_sections(comparison, look_into(comparison, out, step), out)
        report = write_report(comparison, out, sections)
    show(comparison, f"report: {report}")


def compare_for_depth(recipe: Any, seeds: int, out: Path) -> None:
    """Compares the networks for depth, and methods that need no training."""
    from leanconv.report.depth_page import write_depth_report
    from leanconv.tasks.depth.comparing import compare_depth
    from leanconv.tasks.manners import is_first_process

    with resumable():
        with bar("testing") as step:
            comparison = compare_depth(recipe, range(seeds), out, step=step)
        if not is_first_process():
            return
        report = write_depth_report(comparison, out, command="compare")
    show(comparison, f"report: {report}")


def read_recipe(file: Path | None, options: RecipeOptions | None, task: str | None) -> Any:
    """The recipe of a file, or the default one of a task, with what the command line gives in its place."""
    given = options or {}
    if "operator" in given:
        require_operator(given["operator"])
    values = {} if file is None else read(file)
    return recipe_class(task or values.get("task", DEFAULT_TASK)).of({**values, **given})


def run_name(recipe: TrainingRecipe, file: Path | None = None) -> str:
    """A name for the folder of a training by a recipe, maybe of a file.

    >>> from leanconv.tasks import Recipe
    >>> run_name(Recipe(operator="tied:blocks=2", data="arrays:some/file.npz", seed=3), Path("mine.yaml"))
    'mine-cifar_resnet20-tied-blocks=2-arrays-file.npz-seed3'
    """
    source, _, path = recipe.data.partition(":")
    named = "" if file is None else file.stem
    words = [named, *recipe.subject, recipe.operator, source, Path(path).name, f"seed{recipe.seed}"]
    return re.sub(r"[^\w.=,-]+", "-", "-".join(filter(None, words)))


@contextmanager
def resumable() -> Iterator[None]:
    """Says, when interrupted, that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; repeat the command to resume") from None
