"""The gradients of the dynamic filter, joined to its operators."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from leanconv.ops.dynamic import reference


class DynamicFilter(torch.autograd.Function):
    """Joins the forward and the backward operator.

    Without a `setup_context` of its own: with one, PyTorch reads the signature anew at each call, which takes longer
    than the filter of a small map.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        channel_filter: Tensor | None,
        spatial_filter: Tensor | None,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        add: bool,
        scale: int,
    ) -> Tensor:
        ctx.save_for_backward(input, channel_filter, spatial_filter)
        ctx.arguments = (kernel_size, stride, dilation, add, scale)
        return torch.ops.leanconv.ddf(
            input, channel_filter, spatial_filter, kernel_size, stride, dilation, add, scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        tensors = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():
            gradients = differentiable_gradients(tensors, gradient, wanted, ctx.arguments)
        else:
            found = backward_by_branch(gradient, tensors, wanted, *ctx.arguments)
            gradients = [grad if want else None for grad, want in zip(found, wanted, strict=True)]
        return *gradients, None, None, None, None, None


def backward_by_branch(
    gradient: Tensor,
    tensors: Sequence[Any],
    wanted: Sequence[bool],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    add: bool,
    scale: int,
) -> list[Tensor]:
    """The three gradients. The branches of an upsampling share the input, whose gradient is the sum of theirs."""
    input, *filters = tensors

    def of_branch(gradient: Tensor, channel: Tensor | None, spatial: Tensor | None) -> list[Tensor]:
        return torch.ops.leanconv.ddf_backward(
            gradient, input, channel, spatial, kernel_size, stride, dilation, add, list(wanted))

    if scale == 1:
        return of_branch(gradient, *filters)
    branches = scale * scale
    parts = [[None] * branches if filter is None else filter.chunk(branches, 1) for filter in filters]
    found = [
        of_branch(gradient[:, :, index // scale :: scale, index % scale :: scale], parts[0][index], parts[1][index])
        for index in range(branches)
    ]
    of_input, of_channel, of_spatial = zip(*found, strict=True)
    return [reduce(torch.add, of_input) if wanted[0] else of_input[0],
            *(torch.cat(parts, 1) if want else parts[0]
              for parts, want in zip((of_channel, of_spatial), wanted[1:], strict=True))]


def differentiable_gradients(
    tensors: Sequence[Tensor | None], gradient: Tensor, wanted: Sequence[bool], arguments: Any
) -> list[Tensor | None]:
    """The gradients as functions that have gradients themselves, by the reference."""
    with torch.enable_grad():
        output = reference.ddf(*tensors, *arguments)  # type: ignore[arg-type]
        leaves = [tensor for tensor, want in zip(tensors, wanted, strict=True) if tensor is not None and want]
        found = iter(torch.autograd.grad(output, leaves, gradient, create_graph=True))
    return [next(found) if want else None for want in wanted]
