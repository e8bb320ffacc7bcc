"""How the words of a command line are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from leanconv.errors import unknown


def default_of(value: object) -> str | None:
    """How help shows a default; that nothing is given goes without saying.

    >>> default_of(("dense", "tied")), default_of(0.1), default_of(None)
    ('dense,tied', '0.1', None)
    """
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    return None if value in (None, "") else str(value)


Words = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative_iterable=(), show_default=default_of)]
Numbers = Annotated[
    tuple[float, ...], Parameter(consume_multiple=True, negative_iterable=(), show_default=default_of)
]
Switch = Annotated[bool, Parameter(negative=(), show_default=False)]


def split_operators(words: Sequence[str]) -> list[str]:
    """Operators from words that hold one or several, with commas in between.

    Raises:
        ValueError: there is none, one is unknown, or two mean the same.

    >>> split_operators(["dense,tied:blocks=4", "tied-se:blocks=4,reduction=8,tied"])
    ['dense', 'tied:blocks=4', 'tied-se:blocks=4,reduction=8', 'tied']
    """
    operators: list[str] = []
    for part in ",".join(words).split(","):
        if operators and "=" in part and ":" not in part:  # one more setting of the same operator
            operators[-1] += f",{part}"
        elif part:
            operators.append(part)
    meanings = [full_operator(operator) for operator in operators]
    if not operators or len(set(meanings)) < len(meanings):
        raise ValueError(f"operators must be at least one, each once, got {', '.join(operators) or 'none'}")
    return operators


def require_operator(operator: str) -> None:
    """Checks the name of an operator, "dense" for none, and its settings.

    Raises:
        ValueError: there is no such operator or setting.
    """
    from leanconv.surgery import operator_names, parse_operator

    name, colon, _ = operator.partition(":")
    if name == "dense" and colon:
        raise ValueError(f"operator 'dense' has no settings, got {operator!r}")
    if name != "dense":
        if name not in operator_names():
            raise unknown("operator", name, ["dense", *operator_names()])
        parse_operator(operator)


def full_operator(operator: str) -> str:
    """An operator with all its settings.

    >>> full_operator("tied"), full_operator("dense")
    ('tied:blocks=2', 'dense')
    """
    from leanconv.surgery import OPERATORS, format_operator, parse_operator

    require_operator(operator)
    if operator == "dense":
        return operator
    name, given = parse_operator(operator)
    return format_operator(name, OPERATORS[name].settings(given))


def split_shape(text: str) -> tuple[int, ...]:
    """The numbers of a shape.

    >>> split_shape("8,3,224,224")
    (8, 3, 224, 224)
    """
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        raise ValueError(f"shape must be numbers with commas in between, such as 1,3,224,224, got {text!r}") from None


def require_safetensors(out: Path) -> None:
    """Refuses a checkpoint to write that no command would take for one.

    Raises:
        ValueError: its name doesn't end in .safetensors.
    """
    if out.suffix != ".safetensors":
        raise ValueError(f"out must end in .safetensors, got {str(out)!r}")
