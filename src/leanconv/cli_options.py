"""What the commands have in common: the options that several of them take, and how their words are read."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from cyclopts import Group, Parameter

import leanconv
from leanconv.tasks.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn


def default_of(value: object) -> str | None:
    """How help shows a default; that nothing is given goes without saying.

    >>> default_of(("dense", "tied")), default_of(0.1), default_of(None)
    ('dense,tied', '0.1', None)
    """
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    return None if value in (None, "") else str(value)


Words = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative_iterable=(), show_default=default_of)]
Switch = Annotated[bool, Parameter(negative=(), show_default=False)]


def recipe_options(title: str, *, only: Collection[str] = (), without: Collection[str] = ()) -> Any:
    """The type of a dictionary that has those keys of a recipe that the command line gives.

    Args:
        title: above the options in the help.
        only: keys to offer, whose defaults lie elsewhere; by default all, with the recipe's defaults.
        without: keys not to offer.
    """
    hints = typing.get_type_hints(Recipe)
    helps = dict(re.findall(r"^ {8}(\w+): (.+)$", Recipe.__doc__ or "", re.MULTILINE))
    keys: dict[str, Any] = {}
    for field in dataclasses.fields(Recipe):
        if field.name in without or (only and field.name not in only):
            continue
        default = None if only else default_of(field.default)
        text = helps[field.name] + (f" [default: {default}]" if default else "")
        parameter = Parameter(help=text, consume_multiple=True, negative_iterable=())
        keys[field.name] = Annotated[hints[field.name], parameter]
    given: Any = TypedDict("given", keys, total=False)  # type: ignore[misc]
    return Annotated[given, Parameter(name="*", group=Group(title))]


TESTING = ("data", "data_root", "image_size", "limit", "batch_size", "workers", "accelerator", "precision",
           "channels_last", "bad_images")  # fmt: skip

if TYPE_CHECKING:
    RecipeOptions = dict[str, Any]
    ComparisonOptions = dict[str, Any]
    TestOptions = dict[str, Any]
else:
    RecipeOptions = recipe_options("Recipe, over that of the file")
    ComparisonOptions = recipe_options("Recipe, over that of the file", without=("operator", "seed"))
    TestOptions = recipe_options("Test, by default as in the training", only=TESTING)


def read_recipe(file: Path | None, options: RecipeOptions | None) -> Recipe:
    """The recipe of a file, or the default one, with what the command line gives in its place."""
    given = options or {}
    return Recipe.of(given) if file is None else Recipe.load(file, **given)


def run_name(recipe: Recipe) -> str:
    """A name for the folder of a training.

    >>> run_name(Recipe(operator="tied:blocks=2", data="arrays:some/file.npz", seed=3))
    'cifar_resnet20-tied-blocks=2-arrays-file.npz-seed3'
    """
    source, _, path = recipe.data.partition(":")
    words = [recipe.model, recipe.operator, source, Path(path).name, f"seed{recipe.seed}"]
    return re.sub(r"[^\w.=,-]+", "-", "-".join(filter(None, words)))


@Parameter(name="*")
@dataclass(frozen=True)
class Build:
    """How a network is built from its name.

    Attributes:
        num_classes: Classes it tells apart; by default as many as it does by itself.
        in_chans: Channels of its images.
        pretrained: Load the weights that its author published.
    """

    num_classes: int | None = None
    in_chans: int = 3
    pretrained: Switch = False

    def network(self, name: str) -> tuple[nn.Module, dict[str, Any]]:
        """The network of that name, or of a checkpoint that leanconv wrote, and what a checkpoint of it must say."""
        from leanconv.models import create
        from leanconv.tasks.checkpoint import configuration, load_model
        from leanconv.tasks.data import ImageInfo

        if name.endswith(".safetensors"):
            return load_model(name)
        network = create(name, num_classes=self.num_classes, in_chans=self.in_chans, pretrained=self.pretrained)
        known = getattr(network, "pretrained_cfg", {})
        mean, std = (
            tuple(known[key]) if len(known.get(key, ())) == self.in_chans else (0.5,) * self.in_chans
            for key in ("mean", "std")
        )
        info = ImageInfo(
            num_classes=self.num_classes or int(getattr(network, "num_classes", 1000)),
            in_chans=self.in_chans,
            image_size=known.get("input_size", (3, 224, 224))[-1],
            mean=mean,
            std=std,
            classes=(),
        )
        return network, configuration(Recipe(model=name), info)


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
        scope: "published" keeps to the layers that the operator's paper applies it to, "all" takes each that it can.
    """

    where: str | None = None
    kernel_size: int | None = None
    stage: int | None = None
    min_channels: int | None = None
    scope: str = "published"

    def plan(self, network: nn.Module, operator: str) -> leanconv.Plan:
        """What the operator is to do with a network."""
        conditions = {
            "name": self.where,
            "kernel_size": self.kernel_size,
            "stage": self.stage,
            "min_channels": self.min_channels,
        }
        given = {key: value for key, value in conditions.items() if value is not None}
        return leanconv.plan(network, operator, where=given or None, scope=self.scope)


DEFAULT_LAYERS = Layers()


def split_operators(words: Sequence[str]) -> list[str]:
    """Operators from words that hold one or several, with commas in between.

    >>> split_operators(["dense,tied:blocks=2", "tied-se:blocks=4,reduction=8,tied"])
    ['dense', 'tied:blocks=2', 'tied-se:blocks=4,reduction=8', 'tied']
    """
    operators: list[str] = []
    for part in ",".join(words).split(","):
        if operators and "=" in part and ":" not in part:  # one more setting of the same operator
            operators[-1] += f",{part}"
        else:
            operators.append(part)
    return operators


def split_shape(text: str) -> tuple[int, ...]:
    """The numbers of a shape.

    >>> split_shape("8,3,224,224")
    (8, 3, 224, 224)
    """
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        raise ValueError(f"shape must be numbers with commas in between, such as 1,3,224,224, got {text!r}") from None
