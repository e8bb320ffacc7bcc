"""The definition with the interface of the kernels: it runs where there are none, or none that takes the arguments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from leanconv.ops.dynamic import reference
from leanconv.ops.dynamic.geometry import Geometry
from leanconv.ops.dynamic.norms import Norms
from leanconv.ops.dynamic.results import format_of


def available(dtype: torch.dtype) -> bool:
    """Whether it takes a dtype: it takes all."""
    return True


def forward(
    input: Tensor, channel_filter: Tensor | None, spatial_filter: Tensor | None, geometry: Geometry, norms: Norms
) -> Tensor:
    """The output in the input's memory format."""
    filters = norms.apply(channel_filter, spatial_filter, geometry.taps())
    return reference.ddf(input, *filters, geometry).contiguous(memory_format=format_of(input))


def backward(
    gradient: Tensor,
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    geometry: Geometry,
    wanted: Sequence[bool],
) -> tuple[Tensor, ...]:
    """Each gradient in the dtype and the memory format of its tensor."""
    tensors = (input, channel_filter, spatial_filter)
    found = reference.gradients(gradient, *tensors, geometry, wanted)
    return tuple(
        input.new_empty(0) if each is None or tensor is None
        else each.to(tensor.dtype).contiguous(memory_format=format_of(tensor))
        for each, tensor in zip(found, tensors, strict=True)
    )
