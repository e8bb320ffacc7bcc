"""Random numbers as a function of what they are for."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derived_seed(*key: int) -> int:
    """A seed of 32 bits that depends on every number of the key, as (seed, epoch, step).

    >>> derived_seed(0, 1) == derived_seed(0, 1), derived_seed(0, 1) == derived_seed(1, 0)
    (True, False)
    """
    return int(np.random.SeedSequence(key).generate_state(1)[0])


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seeds Python's, NumPy's and PyTorch's CPU generators inside a `with`, and puts them back as they were after it.

    >>> with seeded(7):
    ...     first = torch.rand(3)
    >>> with seeded(7):
    ...     second = torch.rand(3)
    >>> torch.equal(first, second)
    True
    """
    seed = derived_seed(*key)
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.random.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
