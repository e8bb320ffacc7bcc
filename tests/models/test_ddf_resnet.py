from __future__ import annotations

from collections.abc import Iterator

import pytest
import timm
import torch
import torch.nn.functional as F
from models.small_resnet import block_inputs, costs, images, real, shortcut, small
from timm.layers import BlurPool2d
from torch import Tensor, nn

import leanconv as lc
from leanconv.models import create, load_state
from leanconv.models.ddf_resnet import DDFBottleneck
from leanconv.nn import DDF

# Parameters; multiply-accumulates of convolutions and classifier; of applying the filters.
COSTS = {
    "ddf_resnet18": (7_691_032, 342_477_056, 12_757_248),
    "ddf_mul_resnet50": (16_843_748, 2_254_415_872, 12_418_560),
    "ddf_mul_resnet101": (28_146_912, 4_011_239_936, 20_095_488),
    "ddf_mul_resnet152": (37_462_900, 5_769_476_096, 29_578_752),
    "ddf_add_resnet50": (16_843_748, 2_254_415_872, 12_418_560),
    "ddf_mul_resnet50d_wide": (33_857_591, 4_273_765_120, 24_837_120),
}


@pytest.mark.parametrize("name", COSTS)
def test_costs_are_the_papers(name):
    params, convolutions, applied = COSTS[name]
    # Combining takes one multiplication a tap, half a multiply-accumulate.
    assert costs(real(name)) == (params, convolutions + applied + applied // 2)


@pytest.mark.parametrize(
    ("options", "params", "macs"),
    [
        ({"squeeze_ratio": 0.3}, 18_091_484, 2_255_663_232),
        ({"squeeze_ratio": 0.4}, 19_352_663, 2_256_924_032),
        ({"cardinality": 32, "base_width": 4}, 33_838_359, 4_034_124_544),
    ],
)
def test_costs_of_variants(options, params, macs):
    model = real("ddf_mul_resnet50", **options)
    applied = 2 * 12_418_560 if "cardinality" in options else 12_418_560
    assert costs(model) == (params, macs + applied + applied // 2)


def published(blocks: tuple[int, ...], widths: tuple[int, ...], classes: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a published checkpoint's tensors."""

    def norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        for entry in ("weight", "bias", "running_mean", "running_var"):
            yield f"{name}.{entry}", (channels,)
        yield f"{name}.num_batches_tracked", ()

    yield "conv1.weight", (64, 3, 7, 7)
    yield from norm("bn1", 64)
    entering = 64
    for stage, (number, width) in enumerate(zip(blocks, widths, strict=True), 1):
        for index in range(number):
            block, hidden = f"layer{stage}.{index}", int(0.2 * width)
            yield f"{block}.conv1.weight", (width, entering, 1, 1)
            yield from norm(f"{block}.bn1", width)
            yield f"{block}.conv2.spatial_branch.0.weight", (9, width, 1, 1)
            yield f"{block}.conv2.spatial_branch.0.bias", (9,)
            yield f"{block}.conv2.channel_branch.1.weight", (hidden, width, 1, 1)
            yield f"{block}.conv2.channel_branch.1.bias", (hidden,)
            yield f"{block}.conv2.channel_branch.3.weight", (9 * width, hidden, 1, 1)
            yield f"{block}.conv2.channel_branch.3.bias", (9 * width,)
            yield f"{block}.conv2.channel_branch.4.std", (9 * width,)
            yield from norm(f"{block}.bn2", width)
            yield f"{block}.conv3.weight", (4 * width, width, 1, 1)
            yield from norm(f"{block}.bn3", 4 * width)
            if index == 0:
                yield f"{block}.downsample.0.weight", (4 * width, entering, 1, 1)
                yield from norm(f"{block}.downsample.1", 4 * width)
            entering = 4 * width
    yield "fc.weight", (classes, entering)
    yield "fc.bias", (classes,)


@pytest.mark.parametrize(("depth", "blocks"), [(50, (3, 4, 6, 3)), (101, (3, 4, 23, 3)), (152, (3, 8, 36, 3))])
@pytest.mark.parametrize("combine", ["mul", "add"])
def test_weights_have_the_published_names_and_shapes(depth, blocks, combine):
    model = real(f"ddf_{combine}_resnet{depth}")
    assert {layer.combine for layer in model.modules() if isinstance(layer, DDF)} == {combine}
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes == dict(published(blocks, (64, 128, 256, 512), 1000))


@pytest.mark.parametrize("wrapped", [
    lambda state: state,
    lambda state: {f"module.{name}": value for name, value in state.items()},
    lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 119},
    lambda state: {"model": state},
])
def test_published_checkpoints_load(wrapped, tmp_path):
    torch.manual_seed(0)
    widths = (8, 8, 16, 16)
    state = {name: torch.rand(shape) for name, shape in published((1, 1, 1, 1), widths, 1000)}
    state |= {name: value.long() for name, value in state.items() if name.endswith("tracked")}
    torch.save(wrapped(state), tmp_path / "published.pth")
    model = timm.create_model("ddf_mul_resnet50", layers=(1, 1, 1, 1), channels=widths)
    load_state(model, tmp_path / "published.pth")
    loaded = model.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def filtered(layer: DDF, input: Tensor) -> Tensor:
    """The paper's equations 2 and 3, as they stand, for one head and a 3x3 kernel."""

    def normed(filters: Tensor, scale: Tensor | float) -> Tensor:
        return scale * (filters - filters.mean(2, keepdim=True)) / (filters.std(2, keepdim=True) + 1e-10)

    convs = [layer.channel_branch[1], layer.channel_branch[3], layer.spatial_branch[0]]
    squeeze, expand, spatial = (lambda input, conv=conv: F.conv2d(input, conv.weight, conv.bias) for conv in convs)
    channel = normed(expand(squeeze(input.mean((2, 3), keepdim=True)).relu()).unflatten(1, (-1, 9)).flatten(2),
                     layer.channel_branch[4].std.unflatten(0, (-1, 9)))  # (N, C, 9)
    pixel = normed(spatial(input[:, :, :: layer.stride[0], :: layer.stride[1]])[:, None], 2**0.5 / 3)  # (N, 1, 9, H, W)
    taps = F.unfold(input, 3, padding=1, stride=layer.stride).unflatten(1, (-1, 9)).unflatten(3, pixel.shape[3:])
    channel = channel[:, :, :, None, None]
    return (taps * (pixel * channel if layer.combine == "mul" else pixel + channel)).sum(2)


@pytest.mark.parametrize("name", ["ddf_mul_resnet50", "ddf_add_resnet50"])
def test_a_bottleneck_is_the_papers(name):
    seen = block_inputs(small(name), images(2, 3, 65, 61))
    assert [block.conv2.stride for block, _, _ in seen.values()] == [(1, 1), (2, 2), (2, 2), (2, 2)]
    for block, input, output in seen.values():
        inner = block.bn2(filtered(block.conv2, block.bn1(block.conv1(input)).relu())).relu()
        expected = (block.bn3(block.conv3(inner)) + shortcut(block, input)).relu()
        torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)


def test_a_basic_block_filters_and_mixes_twice():
    seen = block_inputs(small("ddf_resnet18"), images(2, 3, 65, 61))
    assert [block.conv1[0].stride for block, _, _ in seen.values()] == [(1, 1), (2, 2), (2, 2), (2, 2)]
    for block, input, output in seen.values():
        inner = block.bn1(block.conv1[1](filtered(block.conv1[0], input))).relu()
        residual = block.bn2(block.conv2[1](filtered(block.conv2[0], inner)))
        expected = (residual + shortcut(block, input)).relu()
        torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)


def test_an_anti_aliasing_layer_takes_the_stride():
    model = small("ddf_mul_resnet50", aa_layer=BlurPool2d)
    filters = [module for module in model.modules() if isinstance(module, DDF)]
    assert [layer.stride for layer in filters] == [(1, 1)] * 4
    assert model.forward_features(images(1, 3, 64, 64)).shape == (1, 128, 2, 2)


def test_stages_may_be_dilated_instead_of_strided():
    model = small("ddf_mul_resnet50", output_stride=8, layers=(1, 1, 2, 2))
    assert [(layer.stride[0], layer.dilation[0]) for layer in model.modules() if isinstance(layer, DDF)] == [
        (1, 1), (2, 1), (1, 1), (1, 2), (1, 2), (1, 4)]
    assert model.forward_features(images(1, 3, 64, 64)).shape == (1, 128, 8, 8)


@pytest.mark.parametrize("name", ["ddf_mul_resnet50", "ddf_add_resnet50", "ddf_resnet18", "ddf_mul_resnet50d_wide"])
def test_fused_is_equal(name):
    options = {"cardinality": 4, "base_width": 32} if name.endswith("wide") else {}
    model = small(name, **options)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    fused = lc.fuse(model, images(1, 3, 33, 35))
    assert fused.fusion.error < 1e-10
    assert fused.fusion.folded == (norms if name == "ddf_resnet18" else norms - 4)
    torch.testing.assert_close(fused(images(2, 3, 33, 35)), model(images(2, 3, 33, 35)), rtol=1e-7, atol=1e-9)


def test_a_network_starts_as_its_shortcuts():
    block = DDFBottleneck(32, 8)
    block.zero_init_last()
    input = torch.randn(1, 32, 5, 5)
    assert torch.equal(block.eval()(input), input.relu())


def test_options_reach_every_filter():
    model = real("ddf_mul_resnet50", heads=4, squeeze_ratio=0.5, eps=1e-5)
    for layer in model.modules():
        if isinstance(layer, DDF):
            assert (layer.heads, layer.combine, layer.spatial_branch[1].eps) == (4, "mul", 1e-5)
            assert layer.channel_branch[1].out_channels == layer.channels // 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "heads must divide channels, got heads=3, channels=64"),
        ({"heads": 0}, "heads must be a whole number of at least 1, got 0"),
        ({"squeeze_ratio": 0}, "squeeze_ratio must be above 0, got 0"),
        ({"eps": -1.0}, "eps must be None or above 0, got -1.0"),
        ({"combine": "mull"}, "unknown combine 'mull': did you mean 'mul'"),
        ({"block_reduce_first": 2}, "reduce_first must be 1, .* got 2"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        real("ddf_mul_resnet50", **options)


def test_there_are_no_weights_to_download():
    with pytest.raises(ValueError, match="No pretrained weights exist for ddf_mul_resnet50"):
        create("ddf_mul_resnet50", pretrained=True)
