"""The gradients of the dynamic filter, joined to its operators."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from leanconv.ops.dynamic import reference
from leanconv.ops.dynamic.geometry import Geometry


class DynamicFilter(torch.autograd.Function):
    """Joins the forward and the backward operator.

    Without a `setup_context` of its own: with one, PyTorch reads the signature anew at each call, which takes longer
    than the filter of a small map.
    """

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, channel_filter: Tensor | None, spatial_filter: Tensor | None, *geometry: Any
    ) -> Tensor:
        ctx.save_for_backward(input, channel_filter, spatial_filter)
        ctx.geometry = geometry
        return torch.ops.leanconv.ddf(input, channel_filter, spatial_filter, *geometry)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        wanted = ctx.needs_input_grad[:3]
        of_tensors = differentiable_gradients if torch.is_grad_enabled() else gradients_by_branch
        found = of_tensors(gradient, ctx.saved_tensors, Geometry(*ctx.geometry), wanted)
        return *found, *(None for _ in ctx.geometry)


def gradients_by_branch(
    gradient: Tensor, tensors: Sequence[Any], geometry: Geometry, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients by the operator. The branches of an upsampling share the input, whose gradient is their sum."""
    input, *filters = tensors
    *sums, scale = geometry

    def of_branch(gradient: Tensor, channel: Tensor | None, spatial: Tensor | None) -> list[Tensor]:
        return torch.ops.leanconv.ddf_backward(gradient, input, channel, spatial, *sums, list(wanted))

    if scale == 1:
        found = of_branch(gradient, *filters)
    else:
        of_inputs, of_channels, of_spatials = zip(*(
            of_branch(gradient[:, :, index // scale :: scale, index % scale :: scale], *parts)
            for index, parts in enumerate(reference.branches(filters, scale))
        ), strict=True)
        found = [reduce(torch.add, of_inputs), torch.cat(of_channels, 1), torch.cat(of_spatials, 1)]
    return [each if want else None for each, want in zip(found, wanted, strict=True)]


def differentiable_gradients(
    gradient: Tensor, tensors: Sequence[Any], geometry: Geometry, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients as functions that have gradients themselves, by the reference."""
    with torch.enable_grad():
        output = reference.ddf(tensors[0], tensors[1], tensors[2], geometry)
        leaves = [tensor for tensor, want in zip(tensors, wanted, strict=True) if tensor is not None and want]
        found = iter(torch.autograd.grad(output, leaves, gradient, create_graph=True))
    return [next(found) if want else None for want in wanted]
