"""Dividing labelled images, always in the same way: no seed of a recipe changes what is tested."""

from __future__ import annotations

import torch
from torch import Tensor


def stratified_split(labels: Tensor, test_share: float = 0.2) -> tuple[Tensor, Tensor]:
    """Positions to train on and positions to test on, with the same share of each class.

    Args:
        labels: int64 [N].
        test_share: of each class that is tested on, rounded; a class with one image has it to train on.

    Raises:
        ValueError: no class has enough images to test on one.

    >>> train, test = stratified_split(torch.tensor([0] * 5 + [1] * 10))
    >>> len(train), len(test)
    (12, 3)
    """
    generator = torch.Generator().manual_seed(0)
    train, test = [], []
    for label in labels.unique():
        positions = (labels == label).nonzero()[:, 0]
        positions = positions[torch.randperm(len(positions), generator=generator)]
        tested = min(max(round(test_share * len(positions)), 1), len(positions) - 1)
        test.append(positions[:tested])
        train.append(positions[tested:])
    if not any(map(len, test)):
        raise ValueError(f"a class must have at least 2 images to split off a test set, got {len(labels)} in all")
    return torch.cat(train).sort().values, torch.cat(test).sort().values


def limited(count: int, limit: int) -> Tensor:
    """At most `limit` of `count` positions, chosen once and for all; all of them for 0."""
    if limit == 0 or limit >= count:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:limit].sort().values
