"""The operators that surgery knows: what each one makes of a layer, and where its paper applies it."""

from __future__ import annotations

import contextlib
from typing import Any

from leanconv.errors import unknown
from leanconv.surgery.operators.asymmetric import ASYMMETRIC
from leanconv.surgery.operators.attention import TIED_SE
from leanconv.surgery.operators.dynamic import DYNAMIC
from leanconv.surgery.operators.ghost import GHOST
from leanconv.surgery.operators.operator import Operator, Settings
from leanconv.surgery.operators.split import SPLIT
from leanconv.surgery.operators.tied import TIED

OPERATORS: dict[str, Operator] = {
    operator.name: operator for operator in (TIED, TIED_SE, ASYMMETRIC, GHOST, SPLIT, DYNAMIC)
}


def operator_names() -> list[str]:
    """The operators that `plan` knows."""
    return list(OPERATORS)


def parse_operator(text: str) -> tuple[str, dict[str, Any]]:
    """Reads an operator with its settings from one word, as commands and recipes give it.

    Raises:
        ValueError: for an unknown operator or setting, or text of another form.

    >>> parse_operator("tied:blocks=4")
    ('tied', {'blocks': 4})
    """
    name, colon, rest = text.partition(":")
    if name not in OPERATORS:
        raise unknown("operator", name, OPERATORS)
    settings: dict[str, Any] = {}
    for part in rest.split(",") if colon else []:
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not value or key in settings:
            raise ValueError(f"operator must be NAME or NAME:SETTING=VALUE,... with each setting once, got {text!r}")
        settings[key] = number_or_word(value)
    OPERATORS[name].settings(settings)
    return name, settings


def number_or_word(text: str) -> int | float | str:
    """What a setting's text says.

    >>> number_or_word("4"), number_or_word("1e-1"), number_or_word("relu")
    (4, 0.1, 'relu')
    """
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def format_operator(name: str, settings: Settings) -> str:
    """Writes an operator with its settings as one word, the inverse of `parse_operator`.

    >>> format_operator("tied", {"blocks": 4})
    'tied:blocks=4'
    """
    return name + (":" if settings else "") + ",".join(f"{key}={value}" for key, value in settings.items())
