"""One forward pass before a training, to see that there can be one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from leanconv.modes import evaluating
from leanconv.tasks.seeding import seeded

if TYPE_CHECKING:
    from leanconv.tasks.data import ImageInfo


def check_runs(network: nn.Module, model: str, info: ImageInfo) -> None:
    """Runs a network on one black image in evaluation mode; modes and random numbers are left as they were.

    Args:
        network: on the CPU.
        model: its name, for the message.
        info: the images; an opened data set will do.

    Raises:
        ValueError: it can't take images of this size; the message gives its reason.

    >>> from leanconv.tasks import Recipe, open_data
    >>> check_runs(nn.Conv2d(1, 4, 3), "narrow", open_data(Recipe(limit=20)))
    >>> check_runs(nn.Conv2d(1, 4, 20), "wide", open_data(Recipe(limit=20)))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: model 'wide' can't run on images of 1×16×16: Calculated padded input size per channel: (16 x 16)...
    """
    shape = (info.in_chans, info.image_size, info.image_size)
    try:
        with seeded(0), torch.no_grad(), evaluating(network):
            network(torch.zeros(1, *shape))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"model {model!r} can't run on images of {'×'.join(map(str, shape))}: {reason}") from error
