"""Which files the tests leave out on this machine, and that hypothesis repeats PyTorch's random numbers too."""

from importlib.util import find_spec

import torch
from hypothesis import register_random


class TorchRandom:
    """PyTorch's generator as hypothesis sees Python's: seeded for each example, so that a failing one fails again."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


TORCH_RANDOM = TorchRandom()
register_random(TORCH_RANDOM)

collect_ignore_glob = [] if find_spec("triton") else ["src/leanconv/ops/dynamic/triton_*.py"]
