"""The tail of a Ghost module without norms: what follows its primary convolution at inference.

Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020, arXiv 1911.11907:

    Y = φ(X) ⊕ φ(Φ(φ(X)))        (⊕ concatenates channels; Φ is depthwise; φ is ReLU or nothing)
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from leanconv.ops import native
from leanconv.ops.transforms import transformed

KERNELS = Path(__file__).with_name("ghost.c")


def ghost_tail(input: Tensor, weight: Tensor, bias: Tensor, out_channels: int, *, relu: bool = True) -> Tensor:
    """Activates maps, adds their ghosts, activates those, and cuts what is above `out_channels`.

    On the CPU in single precision, and where no gradient is asked for, a native kernel reads the maps once and writes
    both halves where they belong: no concatenation, no pass for the activation.

    Args:
        input: (N, m, H, W), before the activation.
        weight: (m · ghosts a map, 1, d, d) with d odd; the ghosts of map 0 come first.
        bias: one number for each filter of `weight`.
        out_channels: m to m · (1 + ghosts a map).
        relu: whether φ is ReLU, or nothing.

    Returns:
        (N, out_channels, H, W).

    Raises:
        ValueError: where a shape doesn't fit.

    >>> input, weight, bias = torch.randn(1, 2, 4, 4), torch.randn(2, 1, 3, 3), torch.randn(2)
    >>> output = ghost_tail(input, weight, bias, 4)
    >>> torch.equal(output[:, :2], input.relu()), output.shape
    (True, torch.Size([1, 4, 4, 4]))
    """
    check(input, weight, bias, out_channels)
    if kernel_takes(input, weight, bias) and (library := native.load(KERNELS)) is not None:
        return by_kernel(library, input, weight, bias, out_channels, relu)
    return reference(input, weight, bias, out_channels, relu)


def reference(input: Tensor, weight: Tensor, bias: Tensor, out_channels: int, relu: bool) -> Tensor:
    """The definition. In float64 and the like, with gradients and in compiled graphs, it is what runs."""
    intrinsic = F.relu(input) if relu else input
    ghosts = F.conv2d(intrinsic, weight, bias, padding=weight.shape[2] // 2, groups=input.shape[1])
    ghosts = F.relu(ghosts) if relu else ghosts
    return torch.cat([intrinsic, ghosts[:, : out_channels - input.shape[1]]], 1)


def check(input: Tensor, weight: Tensor, bias: Tensor, out_channels: int) -> None:
    """Raises ValueError where the arguments of `ghost_tail` don't fit together."""
    filters, size, channels = weight.shape[0], weight.shape[-1], input.shape[1]
    if weight.shape[1:] != (1, size, size) or size % 2 == 0 or filters % channels:
        raise ValueError(f"weight must be (filters, 1, d, d) with d odd and {channels} · n filters, as the input has "
                         f"{channels} channels, got shape {tuple(weight.shape)}")
    if bias.shape != (filters,):
        raise ValueError(f"bias must have one number for each of {filters} filters, got shape {tuple(bias.shape)}")
    if not channels <= out_channels <= channels + filters:
        raise ValueError(f"out_channels must be {channels} to {channels + filters}, got {out_channels}")


def kernel_takes(*tensors: Tensor) -> bool:
    """Whether the tensors are nothing but memory of the CPU in single precision, with nobody watching what is done."""
    return (
        not torch.compiler.is_compiling()
        and not torch.is_grad_enabled()
        and all(type(each) in (Tensor, torch.nn.Parameter) and each.device.type == "cpu" and each.dtype == torch.float32
                for each in tensors)
        and torch._C._len_torch_dispatch_stack() == 0
        and not transformed()
        and not torch.jit.is_tracing()
        and not torch.is_autocast_enabled("cpu")
    )


def by_kernel(
    library: ctypes.CDLL, input: Tensor, weight: Tensor, bias: Tensor, out_channels: int, relu: bool
) -> Tensor:
    batch, channels, height, width = input.shape
    size, each = weight.shape[2], weight.shape[0] // channels
    channels_last = input.stride(1) == 1
    layout = torch.channels_last if channels_last else torch.contiguous_format
    input, weight, bias = input.contiguous(memory_format=layout), weight.contiguous(), bias.contiguous()
    output = torch.empty((batch, out_channels, height, width), memory_format=layout)
    shape = (ctypes.c_int64 * 8)(batch, channels, out_channels, height, width, size, each, relu)
    launch, threads = native.team()
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (input, weight, bias, output)]
    if library.ghost_tail(*pointers, shape, ctypes.c_int64(channels_last), ctypes.c_void_p(launch),
                          ctypes.c_int64(threads)):
        raise MemoryError("no memory for what ghost_tail writes down on its way")
    return output
