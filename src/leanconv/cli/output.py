"""What the commands print."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from rich.console import Console, RenderableType
from rich.progress import Progress

PATIENCE = 2.0  # seconds that people wait without asking what goes on


def show(*what: RenderableType) -> None:
    """Prints, fitted to the width of the terminal if there is one."""
    console = Console(highlight=False, markup=False)
    for each in what:
        if console.is_terminal:
            console.print(each)
        else:
            print(each, flush=True)


def watched(names: Sequence[str], doing: str) -> Iterator[str]:
    """The same names, with a bar on stderr while they are gone through, once that takes a while.

    Args:
        names: one after the other.
        doing: a word before the bar.
    """
    console = Console(stderr=True)
    began = time.monotonic()
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task(doing, total=len(names))
    try:
        for name in names:
            yield name
            bar.advance(task)
            if time.monotonic() - began > PATIENCE:
                bar.start()
    finally:
        bar.stop()
