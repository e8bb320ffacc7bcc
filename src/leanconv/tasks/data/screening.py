"""Finding the image files that can't be read, before a training does."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from leanconv.tasks.data.images import UnreadableImage
from leanconv.tasks.data.pictures import open_picture

PATIENCE_SECONDS = 2.0
BLOCK = 256  # files handed to the threads at once


def screen(paths: Sequence[Path], *, refuse: bool, progress: bool = True) -> dict[Path, str]:
    """Decodes every file, in threads, with a progress bar when it takes more than two seconds.

    Args:
        paths: of the files.
        refuse: whether to raise when there are bad ones.
        progress: whether a bar may be shown.

    Returns:
        The files that can't be read, each with the reason.

    Raises:
        ValueError: `refuse` is set and there are bad files; the message counts them and names the first five.
    """
    bad = dict(pair for pair in zip(paths, reasons(paths, progress), strict=True) if pair[1])
    if bad and refuse:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        named = "; ".join(f"{path} ({reason})" for path, reason in list(bad.items())[:5])
        raise ValueError(f"all images must be readable, got {len(bad)} of {len(paths)} that aren't: {named}{more}")
    return bad


def reasons(paths: Sequence[Path], progress: bool) -> list[str]:
    """Why each file can't be read; empty for those that can."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    bar = Progress(console=console, disable=not (progress and console.is_terminal), transient=True)
    task = bar.add_task("checking images", total=len(paths))
    begin = time.monotonic()
    found: list[str] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1))) as threads:
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata; only whether pixels come out matters
        try:
            for start in range(0, len(paths), BLOCK):
                found += threads.map(reason_against, paths[start : start + BLOCK])
                if time.monotonic() - begin > PATIENCE_SECONDS:
                    bar.start()
                bar.update(task, completed=len(found))
        finally:
            bar.stop()
            threads.shutdown(cancel_futures=True)
    return found


def reason_against(path: Path) -> str:
    """Why a file can't be read; empty if it can."""
    try:
        open_picture(path)
    except UnreadableImage as error:
        return str(error).removeprefix(f"cannot read the image {path}: ")
    return ""
