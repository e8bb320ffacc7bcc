"""The sum over taps as ONNX files have it, against that by slices."""

from __future__ import annotations

import pytest
import torch

from leanconv.ops.dynamic.gathering import gathered_sum
from leanconv.ops.dynamic.geometry import Geometry
from leanconv.ops.dynamic.reference import weighted_sum


@pytest.mark.parametrize("given", ["both", "channel", "spatial"])
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize(("kernel_size", "stride", "dilation", "heads"), [
    ((3, 3), (1, 1), (1, 1), 1), ((3, 5), (2, 3), (2, 1), 2), ((1, 3), (1, 2), (3, 2), 3),
])  # fmt: skip
def test_it_equals_slices(given: str, add: bool, kernel_size, stride, dilation, heads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    geometry = Geometry(kernel_size, stride, dilation, add)
    x = torch.randn(2, 6, 7, 10, generator=generator, dtype=torch.float64)
    channel = torch.randn(2, 6, *kernel_size, generator=generator, dtype=torch.float64)
    shape = (2, heads * geometry.taps(), *geometry.output_size((7, 10)))
    spatial = torch.randn(shape, generator=generator, dtype=torch.float64)
    filters = (None if given == "spatial" else channel, None if given == "channel" else spatial)
    heads = heads if given != "channel" else 1
    torch.testing.assert_close(gathered_sum(x, *filters, heads, geometry), weighted_sum(x, *filters, heads, geometry))
