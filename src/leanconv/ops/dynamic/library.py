"""The operators as PyTorch knows them: schemas, shapes, and which implementation runs on which device.

`leanconv::ddf` and `leanconv::ddf_backward` have no formula for gradients of their own: the autograd function that
calls them has. Where no kernel takes the arguments, the reference runs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from leanconv.ops.dynamic import cpu, gpu, slices
from leanconv.ops.dynamic.geometry import Geometry
from leanconv.ops.dynamic.norms import Norms
from leanconv.ops.dynamic.results import empty_gradients, empty_output

FILTERS = "Tensor input, Tensor? channel_filter, Tensor? spatial_filter"
GEOMETRY = "int[2] kernel_size, int[2] stride, int[2] dilation, bool add"
NORMS = (
    "Tensor? channel_scale=None, Tensor? channel_shift=None, Tensor? spatial_scale=None, Tensor? spatial_shift=None, "
    "float? eps=None"
)
torch.library.define("leanconv::ddf", f"({FILTERS}, {GEOMETRY}, int scale, {NORMS}) -> Tensor")
torch.library.define(
    "leanconv::ddf_backward",
    f"(Tensor gradient, {FILTERS}, {GEOMETRY}, bool[3] wanted) -> (Tensor, Tensor, Tensor)",
)


@torch.library.register_fake("leanconv::ddf")
def fake_forward(input: Tensor, channel_filter: Any, spatial_filter: Any, *arguments: Any) -> Tensor:
    return empty_output(input, Geometry(*arguments[:5]))


@torch.library.register_fake("leanconv::ddf_backward")
def fake_backward(
    gradient: Tensor, input: Tensor, channel_filter: Any, spatial_filter: Any, *arguments: Any
) -> tuple[Tensor, ...]:
    return empty_gradients(input, channel_filter, spatial_filter, arguments[-1])


def forward(kernels: Any, input: Tensor, channel_filter: Any, spatial_filter: Any, *arguments: Any) -> Tensor:
    run = kernels.forward if kernels.available(input.dtype) else slices.forward
    return run(input, channel_filter, spatial_filter, Geometry(*arguments[:5]), Norms(*arguments[5:]))


def backward(
    kernels: Any, gradient: Tensor, input: Tensor, channel_filter: Any, spatial_filter: Any, *arguments: Any
) -> tuple[Tensor, ...]:
    *geometry, wanted = arguments
    run = kernels.backward if kernels.available(input.dtype) else slices.backward
    return run(gradient, input, channel_filter, spatial_filter, Geometry(*geometry), wanted)


for dispatch_key, kernels in (("cpu", cpu), ("cuda", gpu), ("default", slices)):
    torch.library.impl("leanconv::ddf", dispatch_key)(functools.partial(forward, kernels))
    torch.library.impl("leanconv::ddf_backward", dispatch_key)(functools.partial(backward, kernels))


@functools.cache
def count_operations() -> None:
    """Tells PyTorch's FLOP counter what the operators cost. It loads triton where that is installed, so it waits.

    A tap costs a multiplication and an addition, and a third operation where two filters are combined: 3 n c k² as in
    the paper's Table 1.
    """
    from torch.utils.flop_counter import register_flop_formula

    def cost(output: Sequence[int], channel_filter: object, spatial_filter: object, kernel_size: Sequence[int]) -> int:
        each = 2 + (channel_filter is not None and spatial_filter is not None)
        return each * kernel_size[0] * kernel_size[1] * output[0] * output[1] * output[2] * output[3]

    @register_flop_formula(torch.ops.leanconv.ddf)
    def forward_cost(input: Any, channel: Any, spatial: Any, kernel_size: Any, *_: Any, out_shape: Any = None) -> int:
        return cost(out_shape, channel, spatial, kernel_size)

    @register_flop_formula(torch.ops.leanconv.ddf_backward)
    def backward_cost(gradient: Any, input: Any, channel: Any, spatial: Any, kernel_size: Any, *rest: Any,
                      out_shape: Any = None) -> int:
        return sum(rest[-1]) * cost(gradient, channel, spatial, kernel_size)
