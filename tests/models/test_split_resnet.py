from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from models.small_resnet import block_inputs, costs, images, real, shortcut, small
from torch import Tensor, nn

import leanconv as lc
from leanconv.models import create
from leanconv.models.split_resnet import SplitBottleneck
from leanconv.nn import SplitConv2d


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("split_resnet50_a2", (18_345_448, 2_907_439_104)),
        ("split_resnet50_a4", (16_930_792, 2_676_228_096)),
        ("split_resnet50_a8", (16_223_464, 2_560_622_592)),
        ("split_resnet101_a2", (30_953_192, 5_364_056_064)),
        ("split_resnet101_a4", (28_285_160, 4_887_183_360)),
        ("split_resnet101_a8", (26_951_144, 4_648_747_008)),
    ],
)
def test_costs_are_the_papers(name, expected):
    assert costs(real(name)) == expected


@pytest.mark.parametrize(("name", "number"), [("split_resnet50_a8", 16), ("split_resnet101_a8", 33)])
def test_every_3x3_is_split(name, number):
    model = real(name)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, SplitConv2d)}
    assert len(layers) == number
    assert {layer.representative_channels / layer.in_channels for layer in layers.values()} == {1 / 8}
    assert all(layer.redundant.bias is not None and layer.group_count == 2 for layer in layers.values())
    plain = {module.kernel_size for name, module in model.named_modules()
             if isinstance(module, nn.Conv2d) and not any(name.startswith(path) for path in layers)}
    assert plain == {(7, 7), (1, 1)}


def split(layer: SplitConv2d, input: Tensor) -> Tensor:
    """The block as it is published: two paths, averaged with a softmax of their means."""
    rich, rest = input[:, : layer.representative_channels], input[:, layer.representative_channels :]
    if layer.grouped.stride == (2, 2):
        pooled, rest = (F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) for x in (rich, rest))
    else:
        pooled = rich
    paths = [layer.representative_norm(layer.grouped(rich) + layer.pointwise(pooled)),
             layer.redundant_norm(layer.redundant(rest))]
    shares = torch.stack([path.mean((2, 3), keepdim=True) for path in paths]).softmax(0)
    return (shares * torch.stack(paths)).sum(0)


@pytest.mark.parametrize("name", ["split_resnet50_a2", "split_resnet101_a8"])
def test_a_bottleneck_is_the_papers(name):
    seen = block_inputs(small(name), images(2, 3, 65, 61))
    assert [block.conv2.grouped.stride for block, _, _ in seen.values()] == [(1, 1), (2, 2), (2, 2), (2, 2)]
    for block, input, output in seen.values():
        inner = block.bn2(split(block.conv2, block.bn1(block.conv1(input)).relu())).relu()
        expected = (block.bn3(block.conv3(inner)) + shortcut(block, input)).relu()
        torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("alpha", [1 / 2, 1 / 4, 1 / 8, 1])
def test_fused_is_equal_and_keeps_only_the_norm_after_each_split(alpha):
    model, input = small("split_resnet50_a2", alpha=alpha), images(2, 3, 33, 35)
    fused = lc.fuse(model, input[:1])
    assert fused.fusion.error < 1e-10
    layers = {name: module for name, module in fused.named_modules() if isinstance(module, SplitConv2d)}
    assert list(layers) == [f"layer{stage}.0.conv2" for stage in (1, 2, 3, 4)]
    assert all(layer.folded for layer in layers.values())
    norms = [name for name, module in fused.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms == [f"layer{stage}.0.bn2" for stage in (1, 2, 3, 4)]
    torch.testing.assert_close(fused(input), model(input), rtol=1e-8, atol=1e-9)


def test_a_block_starts_as_its_shortcut():
    block = SplitBottleneck(32, 8)
    block.zero_init_last()
    input = torch.randn(2, 32, 5, 5)
    assert torch.equal(block(input), input.relu())


def test_norms_keep_the_settings_that_they_were_asked_for():
    model = real("split_resnet50_a2", norm_layer=partial(nn.BatchNorm2d, eps=1e-3, momentum=0.2))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.2)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0}, "alpha must be a number above 0 and at most 1, got 0"),
        ({"alpha": 1.5}, "alpha must be a number above 0 and at most 1, got 1.5"),
        ({"alpha": 0.01}, "got group_count=2, 0 channels by alpha=0.01"),
        ({"group_count": 3}, "group_count must divide the .* got group_count=3, 32 channels by alpha=0.5"),
        ({"cardinality": 2}, "groups must be 1, .* got 2"),
        ({"norm_layer": "groupnorm"}, "norm_layer must be nn.BatchNorm2d, which SplitConv2d brings along, got timm"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        real("split_resnet50_a2", **options)


def test_there_are_no_weights_to_download():
    with pytest.raises(ValueError, match="No pretrained weights exist for split_resnet50_a2"):
        create("split_resnet50_a2", pretrained=True, layers=(1, 1, 1, 1))
