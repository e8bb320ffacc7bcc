"""How long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Step = Callable[[int, int], object]  # is told how much is done of how much


def unwatched(done: int, total: int) -> None:
    """For work that nobody watches."""
