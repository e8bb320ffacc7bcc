"""What the commands that look into networks look at: the networks, and the images that they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from leanconv.cli.options import Build, checkpoint_path, is_checkpoint
from leanconv.cli.words import default_of
from leanconv.tasks.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from leanconv.tasks.specimen import Specimen

Files = Annotated[
    tuple[Path, ...], Parameter(consume_multiple=True, negative_iterable=(), show_default=default_of)
]


@Parameter(name="*")
@dataclass(frozen=True)
class Sight:
    """Which images networks are shown.

    Attributes:
        data: Source of test images, as in a recipe; by default what the first network was trained on.
        images: Image files, or folders of them, instead.
        limit: At most so many test images, drawn at random; 0 for all; by default as many as suit the command.
        seed: Of every random choice.
    """

    data: str | None = None
    images: Files = ()
    limit: int | None = None
    seed: int = 0


DEFAULT_SIGHT = Sight()


def specimens(
    models: Sequence[str], sight: Sight, build: Build, *, usual: int = 64, labelled: bool = False
) -> list[Specimen]:
    """The networks, each with the same images, prepared as it wants them.

    Args:
        models: names that `leanconv models` knows, "module:callable", "file.py:callable" or checkpoints.
        sight: which images.
        build: how a network is built that isn't a checkpoint.
        usual: how many test images where `sight` doesn't say.
        labelled: whether the class of every image must be known.

    Raises:
        ValueError: for no model or the same twice, a network that can't be had, or images that can't.
    """
    from leanconv.tasks.checkpoint import info_of
    from leanconv.tasks.evaluation import TESTED
    from leanconv.tasks.specimen import Specimen, pictures, sample

    limit = usual if sight.limit is None else sight.limit
    if limit < 0:
        raise ValueError(f"limit must be at least 0, got {limit}")
    if sight.images and (sight.data or labelled):
        rule = "can't be given with --data" if sight.data else "have no classes, which this needs: give --data"
        raise ValueError(f"--images {rule}")
    built = networks(models, build)
    source = sight.data
    if is_checkpoint(models[0]):
        source = source or next(iter(built.values()))[1]["recipe"]["data"]
    if not (sight.images or source):
        remedy = "give --data" if labelled else "give --data or --images"
        raise ValueError(f"{models[0]} doesn't say which images to show it: {remedy}")
    found = []
    for name, (network, configuration) in built.items():
        info = info_of(configuration)
        if sight.images:
            images = pictures(info, sight.images)
        else:
            recipe = Recipe.of({**configuration["recipe"], **TESTED, "data": source})
            images = sample(info, recipe, limit, seed=sight.seed, labelled=labelled)
        found.append(Specimen(name, network.eval(), info, images))
    return found


def networks(models: Sequence[str], build: Build) -> dict[str, tuple[nn.Module, dict[str, Any]]]:
    """Networks by a short name, each with what a checkpoint of it must say.

    Raises:
        ValueError: for no model or the same twice, or a network that can't be had.
    """
    if not models or len(set(models)) < len(models):
        raise ValueError(f"models must be at least one, each once, got {', '.join(models) or 'none'}")
    return {name: build.network(model) for name, model in zip(short_names(models), models, strict=True)}


def short_names(models: Sequence[str]) -> list[str]:
    """Names short enough for a plot: of paths, as many of the last parts as tell them apart.

    >>> short_names(["resnet18", "runs/compare/tied-blocks-2/seed-0", "runs/compare/ghost/seed-0"])
    ['resnet18', 'tied-blocks-2/seed-0', 'ghost/seed-0']
    >>> short_names(["runs/tied/model.safetensors", "lean.safetensors"])
    ['tied', 'lean']
    """
    paths = [trimmed(model) for model in models]
    most = max(len(path.parts) for path in paths)
    for count in range(1, most + 1):
        names = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return list(models)


def trimmed(model: str) -> Path:
    """A path without the name that every training gives its checkpoint; a name as it is."""
    path = checkpoint_path(model) if is_checkpoint(model) else Path(model)
    if path.suffix != ".safetensors":
        return path
    return path.parent if path.name == "model.safetensors" and path.parent.name else path.with_suffix("")
