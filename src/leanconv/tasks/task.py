"""The tasks that networks are trained for, each as the parts that the training is put together from."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leanconv.errors import unknown
from leanconv.tasks.training_recipe import DEFAULT_TASK, TrainingRecipe, read

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from leanconv.tasks.learner import Learner

HOMES = {  # where each task says what it is made of, as TASK
    "classification": "leanconv.tasks.classifying",
    "detection": "leanconv.tasks.detection.detecting",
    "depth": "leanconv.tasks.depth.upsampling",
}
RECIPES = {
    "classification": ("leanconv.tasks.recipe", "Recipe"),
    "detection": ("leanconv.tasks.detection_recipe", "DetectionRecipe"),
    "depth": ("leanconv.tasks.depth_recipe", "DepthRecipe"),
}


@dataclass(frozen=True)
class Score:
    """The number that a task is judged by.

    Args:
        key: among the numbers of a test.
        name: for people.
        unit: "%" or "cm".
        scale: from the number to its unit.
    """

    key: str
    name: str
    unit: str = ""
    scale: float = 1.0

    @property
    def title(self) -> str:
        """The name with the unit, for the head of a column and the side of a plot."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def text(self, value: float) -> str:
        """A number with name and unit.

        >>> Score("accuracy", "accuracy", "%", 100).text(0.9173), Score("rmse", "RMSE", "cm").text(2.157)
        ('accuracy 91.73%', 'RMSE 2.16 cm')
        """
        return f"{self.name} {self.scale * value:.2f}{'' if self.unit in ('', '%') else ' '}{self.unit}"


SCORES = {
    "classification": Score("accuracy", "accuracy", "%", 100),
    "detection": Score("ap", "AP", scale=100),
    "depth": Score("rmse", "RMSE"),
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task, as the parts that a training is put together from.

    Args:
        info: class of what a network must know of the data, which a checkpoint keeps.
        open_data: of a recipe; it has `train`, `test`, `description`, `unreadable`, and `info`.
        build_network: of a recipe and an info, with the recipe's operator in it.
        check_runs: raises a ValueError where a network can't run on such data.
        feed: the batches of data, as lightning takes them, with the number of `steps` in an epoch.
        learner: of a network, a recipe, the data and the steps.
        evaluate: tests the network of a checkpoint with this configuration on data (None for its own), with a recipe's
            keys replaced; what it returns prints as a table.
        shape: of the batch of one image that costs are told for, of a recipe and an info; None for
            a task without operators to compare.
        fuse: the inference form of a network, for an example, with a form of tied convolutions.
    """

    info: type
    open_data: Callable[..., Any]
    build_network: Callable[[Any, Any], nn.Module]
    check_runs: Callable[[nn.Module, Any, Any], None]
    feed: Callable[[Any, Any], Any]
    learner: Callable[[nn.Module, Any, Any, int], Learner]
    evaluate: Callable[..., Any]
    shape: Callable[[Any, Any], tuple[int, ...]] | None = None
    fuse: Callable[..., nn.Module] | None = None


def task_named(name: str) -> Task:
    """The parts of a task.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in HOMES:
        raise unknown("task", name, HOMES)
    return importlib.import_module(HOMES[name]).TASK


def recipe_class(name: str) -> type[TrainingRecipe]:
    """The class of a task's recipes.

    Raises:
        ValueError: there is no task of that name.

    >>> recipe_class("classification").__name__
    'Recipe'
    """
    if name not in RECIPES:
        raise unknown("task", name, RECIPES)
    module, kind = RECIPES[name]
    return getattr(importlib.import_module(module), kind)


def load_recipe(source: str | Path, **overrides: Any) -> TrainingRecipe:
    """Reads a recipe of whatever task it says it is for.

    Args:
        source: path of the file, or the name of a recipe that leanconv carries.
        overrides: values that take the place of the file's.

    Raises:
        ValueError: as `TrainingRecipe.load`.

    >>> load_recipe("cifar10_resnet20", seed=1).model
    'cifar_resnet20'
    """
    values = {**read(source), **overrides}
    return recipe_class(values.get("task", DEFAULT_TASK)).of(values)
