"""Lightning, kept quiet and made to behave as a function should."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch.utilities import rank_zero_only

CHATTER = ("lightning.pytorch", "lightning.fabric")
NOISE = (
    "The '.*_dataloader' does not have many workers",  # how many is the recipe's choice
    "GPU available but not used",  # so is the device
    r"Found \d+ module\(s\) in eval mode",  # norms that a detector keeps frozen
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # lightning 2.6 with torch 2.14
)


@contextmanager
def quiet() -> Iterator[None]:
    """Silences lightning's tips and the warnings that a user can do nothing about, and no others."""
    loggers = [logging.getLogger(name) for name in CHATTER]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in NOISE:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def wait_for_the_first() -> None:
    """Lets the processes that lightning started to train together go on when all are here."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


@contextmanager
def ctrl_c_raises() -> Iterator[None]:
    """Raises `KeyboardInterrupt` where lightning ends the process; it ignores Ctrl-C from then on, which is undone."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as exit:
        if not isinstance(exit.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None


def is_first_process() -> bool:
    """Whether this process is the first of those that train together, and speaks for all of them."""
    return rank_zero_only.rank == 0  # type: ignore[attr-defined]
