"""Parallel tied splits: their form of one plain convolution. What they compute is in the contract test."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import leanconv as lc
from leanconv.nn import TiedSplitConv2d


@pytest.mark.parametrize("arguments", [
    {"blocks": (1, 2, 4, 2), "padding": 1},
    {"blocks": (4,), "stride": 2, "padding": 2, "dilation": 2},
    {"blocks": (2, 1), "groups": 2, "bias": False, "padding": "same", "padding_mode": "reflect"},
])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_fused_is_the_same_map(arguments, memory_format) -> None:
    torch.manual_seed(0)
    layer = TiedSplitConv2d(16, 32, 3, **arguments).double().to(memory_format=memory_format)
    input = torch.randn(2, 16, 7, 6, dtype=torch.float64).to(memory_format=memory_format)
    plain = layer.fused()
    assert type(plain) is nn.Conv2d
    assert plain.groups == len(arguments["blocks"]) * arguments.get("groups", 1)
    torch.testing.assert_close(plain(input), layer(input), rtol=1e-12, atol=1e-12)


def test_fuse_makes_one_convolution_and_folds_the_norm_or_keeps_both() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(TiedSplitConv2d(8, 8, 3, padding=1, bias=False, blocks=(1, 2)), nn.BatchNorm2d(8), nn.ReLU())
    nn.init.uniform_(model[1].running_mean)
    model.eval()
    input = torch.randn(1, 8, 5, 5)
    fused = lc.fuse(model, input)
    assert [type(module) for module in fused] == [nn.Conv2d, nn.Identity, nn.ReLU]
    torch.testing.assert_close(fused(input), model(input), rtol=1e-4, atol=1e-5)
    kept = lc.fuse(model, input, tied="keep")
    assert (type(kept[0]), kept.fusion.kept) == (TiedSplitConv2d, ("0",))
    assert torch.equal(kept(input), model(input))
