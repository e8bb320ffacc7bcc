"""What a compiler has to know at the time of tracing. Importing this loads the compiler, so only it does."""

from __future__ import annotations

import torch

from leanconv.ops.dynamic import cpu, gpu


@torch.compiler.assume_constant_result
def has_kernel(device_type: str, dtype: torch.dtype) -> bool:
    """Whether kernels of our own run on a device."""
    kernels = {"cpu": cpu, "cuda": gpu}.get(device_type)
    return kernels is not None and kernels.available(dtype)
