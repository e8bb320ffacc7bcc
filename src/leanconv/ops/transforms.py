"""Whether PyTorch transforms what is computed: then only its own functions may be called."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad


def transformed() -> bool:
    """Whether `torch.func` or forward-mode differentiation is at work, which know no kernels of ours."""
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0
