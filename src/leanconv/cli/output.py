"""What the commands print."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from rich.console import Console, RenderableType
from rich.progress import Progress

from leanconv.steps import Step

PATIENCE = 2.0  # seconds that people wait without asking what goes on


def show(*what: RenderableType) -> None:
    """Prints, fitted to the width of the terminal if there is one."""
    console = Console(highlight=False, markup=False)
    for each in what:
        if console.is_terminal:
            console.print(each)
        else:
            print(each, flush=True)


@contextlib.contextmanager
def bar(doing: str) -> Iterator[Step]:
    """Gives a function that moves a bar on stderr, shown once it takes a while, to how much is done of how much.

    Args:
        doing: a word before the bar.
    """
    console = Console(stderr=True)
    began = time.monotonic()
    line = Progress(console=console, transient=True, disable=not console.is_terminal)
    task = line.add_task(doing, total=None)

    def step(done: int, total: int) -> None:
        line.update(task, completed=done, total=total)
        if time.monotonic() - began > PATIENCE:
            line.start()

    try:
        yield step
    finally:
        line.stop()


def watched(names: Sequence[str], doing: str) -> Iterator[str]:
    """The same names, with a bar while they are gone through.

    Args:
        names: one after the other.
        doing: a word before the bar.
    """
    with bar(doing) as step:
        for done, name in enumerate(names, start=1):
            yield name
            step(done, len(names))
