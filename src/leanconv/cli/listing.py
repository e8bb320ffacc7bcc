"""Commands that list what there is: ops, doctor, models, recipes."""

from __future__ import annotations

from leanconv.cli.output import show, watched


def ops() -> None:
    """Lists the operators that networks can be changed with, and their settings.

    For example:

        leanconv ops
    """
    from leanconv.surgery import OPERATORS
    from leanconv.table import Table

    rows = [["dense", "", "the convolutions that the network has: nothing is changed"]]
    for operator in OPERATORS.values():
        settings = ", ".join(f"{key}={value}" for key, value in operator.defaults.items())
        rows.append([operator.name, settings, operator.summary])
    notes = ["Write NAME or NAME:SETTING=VALUE,... to choose one, such as tied:blocks=4."]
    show(Table(["operator", "settings", "what it does"], rows, notes=notes))


def doctor() -> None:
    """Says which kernels run on this machine and why, and what is missing. Compiles the native ones if need be.

    For example:

        leanconv doctor
        LEANCONV_NATIVE=0 leanconv doctor
    """
    from leanconv.doctor import examine

    show(examine())


def models(pattern: str | None = None, /, *, costs: bool = True) -> None:
    """Lists networks and what they cost: leanconv's own or, with a pattern, all whose names match, timm's included.

    Multiply-accumulates (MACs) are those of one image of the network's own size.

    For example:

        leanconv models
        leanconv models "resnet*"
        leanconv models "*" --no-costs

    Args:
        pattern: As in a shell: * stands for anything.
        costs: Build and count them, a few a second; otherwise only the names are listed.
    """
    from leanconv.models import list_models
    from leanconv.models.create import unknown_model

    names = list_models(own=True) if pattern is None else list_models(pattern)
    if pattern is not None and not names:
        raise unknown_model(pattern)
    if costs:
        from leanconv.cli.catalogue import catalogue

        show(catalogue(watched(names, "counting")))
    else:
        show("\n".join(names))


def recipes() -> None:
    """Lists the trainings that leanconv carries as recipes, most of them published ones.

    For example:

        leanconv recipes
        leanconv train --recipe cifar10_resnet20 --seed 1
    """
    from leanconv.table import Table
    from leanconv.tasks.task import load_recipe
    from leanconv.tasks.training_recipe import recipe_names

    named = {name: load_recipe(name) for name in recipe_names()}
    rows = [[name, recipe.model, recipe.operator, recipe.data, recipe.epochs] for name, recipe in named.items()]
    notes = ["leanconv train --recipe NAME carries one out; other options take the place of what it says."]
    show(Table(["recipe", "model", "operator", "data", "epochs"], rows, notes=notes))
