"""The options that several commands take: how a network is built, which of its layers, a recipe."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from cyclopts import Group, Parameter

import leanconv
from leanconv.cli.words import Switch, default_of
from leanconv.tasks.recipe import Recipe
from leanconv.tasks.task import RECIPES, recipe_class
from leanconv.tasks.training_recipe import DEFAULT_TASK

if TYPE_CHECKING:
    from torch import Tensor, nn


@Parameter(name="*")
@dataclass(frozen=True)
class Build:
    """How a network is built from its name.

    Attributes:
        num_classes: Classes it tells apart; by default as many as it does by itself.
        in_chans: Channels of its images; by default 3.
        image_size: Height and width of its images; by default what it tells by itself, or else 224.
        pretrained: Load the weights that its author published.
    """

    num_classes: int | None = None
    in_chans: int | None = None
    image_size: int | None = None
    pretrained: Switch = False

    def network(self, name: str) -> tuple[nn.Module, dict[str, Any]]:
        """The network of that name, or of a checkpoint that leanconv wrote, and what a checkpoint of it must say."""
        from leanconv.models import create
        from leanconv.tasks.checkpoint import configuration
        from leanconv.tasks.data import ImageInfo

        if is_checkpoint(name):
            refuse(self, f"the checkpoint {name} says how its network is built")
            return load_classifier(name)
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"image_size must be at least 1, got {self.image_size}")
        in_chans = 3 if self.in_chans is None else self.in_chans
        network = create(name, num_classes=self.num_classes, in_chans=in_chans, pretrained=self.pretrained)
        known = getattr(network, "pretrained_cfg", {})
        mean, std = (
            tuple(known[key]) if len(known.get(key, ())) == in_chans else (0.5,) * in_chans
            for key in ("mean", "std")
        )
        # A network that doesn't tell is built again without a number.
        num_classes: Any = self.num_classes or getattr(network, "num_classes", None) or None
        info = ImageInfo(
            num_classes=num_classes,
            in_chans=in_chans,
            image_size=self.image_size or known.get("input_size", (3, 224, 224))[-1],
            mean=mean,
            std=std,
            classes=(),
        )
        return network, configuration(Recipe(model=name), info)

    def trained(self, name: str) -> bool:
        """Whether the network of that name comes with weights worth keeping: its author's, a user's, a checkpoint's."""
        return self.pretrained or ":" in name or is_checkpoint(name)


DEFAULT_BUILD = Build()


@Parameter(name="*")
@dataclass(frozen=True)
class Layers:
    """Which layers an operator takes.

    Attributes:
        where: Pattern for their names, as in a shell: "layer[34].*".
        kernel_size: Size of their kernels.
        stage: Number of the stage they are in, as their names count them.
        min_channels: Channels that they have at least, in and out.
        scope: "published" (the default) for the layers that the operator's paper applies it to, "all" for each it can.
    """

    where: str | None = None
    kernel_size: int | None = None
    stage: int | None = None
    min_channels: int | None = None
    scope: str | None = None

    def plan(self, network: nn.Module, operator: str, configuration: Mapping[str, Any]) -> leanconv.Plan:
        """What the operator is to do with a network, for images as its configuration says."""
        conditions = {
            "name": self.where,
            "kernel_size": self.kernel_size,
            "stage": self.stage,
            "min_channels": self.min_channels,
        }
        given = {key: value for key, value in conditions.items() if value is not None}
        scope = "published" if self.scope is None else self.scope
        return leanconv.plan(network, operator, where=given or None, scope=scope, example=blank_image(configuration))


DEFAULT_LAYERS = Layers()


def blank_image(configuration: Mapping[str, Any]) -> Tensor:
    """An image of the kind that a network's configuration speaks of."""
    import torch

    size = configuration["image_size"]
    return torch.zeros(1, configuration["in_chans"], size, size)


def refuse(options: Build | Layers, reason: str) -> None:
    """Refuses options that would be ignored.

    Raises:
        ValueError: one is given; the message names all that are, and the reason.
    """
    fields = dataclasses.fields(options)
    given = [field.name for field in fields if getattr(options, field.name) != field.default]
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(f"{names} can't be given: {reason}")


def refuse_fused(model: str, configuration: Mapping[str, Any]) -> None:
    """Refuses to change a network that is fused.

    Raises:
        ValueError: it is.
    """
    if "fused" in configuration:
        raise ValueError(f"{model} is fused, and its convolutions can't be changed any more: swap first, then fuse")


def is_checkpoint(name: str) -> bool:
    """Whether a name is that of a checkpoint, or of the folder of a training."""
    from leanconv.models import list_models

    return name.endswith(".safetensors") or (Path(name).is_dir() and name not in list_models())


def load_classifier(checkpoint: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The classifier of a checkpoint, or of the folder of a training, and its configuration.

    Raises:
        ValueError: it can't be read, or is of another task.
    """
    from leanconv.tasks.checkpoint import load_model, read_config, task_name

    path = checkpoint_path(checkpoint)
    if (task := task_name(read_config(path))) != DEFAULT_TASK:
        raise ValueError(f"{checkpoint} must be of a classifier for this command, got one of {task}")
    return load_model(path)


def checkpoint_path(path: str | Path) -> Path:
    """The checkpoint at a path: the file itself, or that in the folder of a training."""
    if not Path(path).is_dir():
        return Path(path)
    from leanconv.tasks.run_folder import MODEL

    return Path(path) / MODEL


def recipe_options(title: str, *, only: Collection[str] = (), without: Collection[str] = ()) -> Any:
    """The type of a dictionary that has those keys of a recipe that the command line gives.

    Args:
        title: above the options in the help, with the task for keys that one task alone has.
        only: keys to offer, whose defaults lie elsewhere; by default all, with the recipe's defaults.
        without: keys not to offer.
    """
    kinds = {task: recipe_class(task) for task in RECIPES}
    helps = {task: explained(kind) for task, kind in kinds.items()}
    hints = {name: hint for kind in kinds.values() for name, hint in typing.get_type_hints(kind).items()}
    defaults: dict[str, dict[str, str | None]] = {}
    for task, kind in kinds.items():
        for field in dataclasses.fields(kind):
            if field.name not in without and (not only or field.name in only):
                defaults.setdefault(field.name, {})[task] = default_of(field.default)
    keys: dict[str, Any] = {}
    for name, by_task in defaults.items():
        text = told({task: helps[task][name] for task in by_task}, " For {task}: {text}")
        if not only and any(by_task.values()):
            text += f" [default: {told({task: value or 'none' for task, value in by_task.items()}, ', {task} {text}')}]"
        group = title if len(by_task) == len(kinds) else f"{title}, for {' and '.join(by_task)}"
        parameter = Parameter(help=text, consume_multiple=True, negative_iterable=(), group=Group(group))
        keys[name] = Annotated[hints[name], parameter]
    given: Any = TypedDict("given", keys, total=False)  # type: ignore[misc]
    return Annotated[given, Parameter(name="*")]


def told(by_task: Mapping[str, str], form: str) -> str:
    """What is said of a key: the first task's words, and those of the others that differ.

    >>> told({"classification": "8", "detection": "12", "depth": "8"}, ", {task} {text}")
    '8, detection 12'
    """
    first, *others = by_task.items()
    return first[1] + "".join(form.format(task=task, text=text) for task, text in others if text != first[1])


def explained(kind: type) -> dict[str, str]:
    """What the docstrings of a recipe's class say of its keys, its own before those of its bases."""
    text = "\n".join(base.__doc__ or "" for base in reversed(kind.__mro__))
    found = re.findall(r"^ {8}(\w+): (.+(?:\n {12}.+)*)$", text, re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in found}


TESTING = ("data", "data_root", "image_size", "limit", "batch_size", "workers", "accelerator", "precision",
           "channels_last", "bad_images", "flip_test", "short_sides", "long_side", "detections",
           "units_per_metre")  # fmt: skip

if TYPE_CHECKING:
    RecipeOptions = dict[str, Any]
    ComparisonOptions = dict[str, Any]
    TestOptions = dict[str, Any]
else:
    RecipeOptions = recipe_options("Recipe, over that of the file")
    ComparisonOptions = recipe_options("Recipe, over that of the file", without=("operator", "seed"))
    TestOptions = recipe_options("Test, by default as in the training", only=TESTING)
