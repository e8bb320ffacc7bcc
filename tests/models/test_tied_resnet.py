from functools import partial

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from models.small_resnet import costs, images, randomised, real, small
from timm.layers import BlurPool2d
from torch import nn

import leanconv as lc
from leanconv.models.tied_resnet import TiedBottleneck, fitting
from leanconv.nn import TiedConv2d, TiedSE, TiedSplitConv2d


@pytest.mark.parametrize(
    ("name", "options", "params", "macs"),
    [
        ("tied_resnet50", {}, 23_188_632, 4_455_268_352),
        ("tied_resnet50", {"tie_first": True}, 22_150_296, 4_134_141_952),
        ("tied_resnet50", {"mixer": "none"}, 21_916_056, 4_249_747_456),
        ("tied_resnet50", {"mixer": "none", "tie_first": True}, 20_877_720, 3_928_621_056),
        ("tied_resnet50", {"mixer": "concat"}, 26_961_048, 5_071_831_040),
        ("tied_resnet50_s", {}, 13_943_863, 2_473_735_008),
        ("tied_resnet50_s", {"tie_first": True}, 13_359_799, 2_293_101_408),
        ("tied_resnet50_s", {"mixer": "none"}, 13_537_495, 2_408_706_912),
        ("tied_resnet50_s", {"mixer": "none", "tie_first": True}, 12_953_431, 2_228_073_312),
        ("tied_resnet50_s", {"mixer": "concat"}, 15_137_479, 2_668_819_296),
        ("tied_resnet50_s", {"blocks_per_split": (2, 2, 2, 2)}, 13_644_244, 2_470_305_792),
        ("tied_resnet50_s", {"blocks_per_split": [1, 2, 3, 6]}, 13_992_382, 2_470_305_792),
        ("tied_resnet50_s", {"blocks_per_split": (1, 2, 2, 2), "tie_first": True}, 13_731_589, 2_362_828_800),
        ("tied_resnet101", {}, 38_860_184, 8_215_257_088),
        ("tied_resnet101", {"tie_first": True}, 37_821_848, 7_894_130_688),
        ("tied_resnet101_s", {}, 21_680_852, 4_308_280_896),
        ("tied_resnet101_s", {"tie_first": True}, 21_096_788, 4_127_647_296),
        ("tied_resnext50", {}, 38_390_368, 7_541_293_056),
        ("tied_resnext50", {"mixer": "none"}, 33_330_272, 6_719_209_472),
        ("tied_resnext50_s", {}, 22_673_620, 4_368_045_216),
        ("tied_resnext50_s", {"mixer": "none"}, 21_065_140, 4_107_932_832),
    ],
)
def test_costs(name, options, params, macs):
    assert costs(real(name, **options)) == (params, macs)


def test_each_split_has_as_many_blocks_as_its_width_allows():
    blocks = [[conv.blocks for conv in real("tied_resnet50_s").get_submodule(f"layer{stage}.0.conv2").splits]
              for stage in (1, 2, 3, 4)]
    assert blocks == [[1, 2, 2, 2], [1, 2, 4, 4], [1, 2, 4, 8], [1, 2, 4, 8]]
    wide = [conv.blocks for conv in real("tied_resnet50").layer1[2].conv2.splits]
    assert wide == [1, 2, 4, 8]


@given(st.integers(1, 64), st.integers(1, 256))
def test_fitting_blocks_divide_the_channels(blocks, channels):
    smaller = [power for power in (1, 2, 4, 8, 16, 32, 64) if power <= blocks and channels % power == 0]
    assert fitting(blocks, channels) == (blocks if channels % blocks == 0 else max(smaller))


def equation(block: TiedBottleneck, input: torch.Tensor) -> torch.Tensor:
    """The block with plain convolutions of repeated filters."""

    def norm(values, layer):
        return F.batch_norm(values, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=layer.eps)

    def tied(values, layer):
        if type(layer) is nn.Conv2d:
            return F.conv2d(values, layer.weight)
        groups, blocks = layer.conv.groups, layer.blocks
        banks = [bank for bank in layer.weight.chunk(groups) for _ in range(blocks)]
        return F.conv2d(values, torch.cat(banks), stride=layer.conv.stride, padding=layer.conv.padding,
                        dilation=layer.conv.dilation, groups=groups * blocks)

    entered = norm(tied(input, block.conv1), block.bn1).relu()
    splits = block.conv2.splits
    width = entered.shape[1] // len(splits)
    parts = [tied(entered[:, index * width : (index + 1) * width], conv) for index, conv in enumerate(splits)]
    middle = norm(torch.cat(parts, 1), block.bn2).relu()
    parts = middle.chunk(len(parts), 1)
    if block.mixer != "none":
        read = torch.stack(parts).sum(0) if block.mixer == "sum" else middle
        middle = middle + norm(F.conv2d(read, block.mix.conv.weight), block.mix.bn).relu()
    if isinstance(block.aa, BlurPool2d):
        middle = block.aa(middle)
    output = norm(F.conv2d(middle, block.conv3.weight), block.bn3)
    if block.se is not None:
        output = block.se(output)
    return (output + (input if block.downsample is None else block.downsample(input))).relu()


def projection(stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(32, 64, 1, stride, bias=False), nn.BatchNorm2d(64))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mixer": "concat", "splits": 3, "blocks_per_split": (1, 4, 2)},
        {"mixer": "none", "entrance_blocks": 4},
        {"downsample": projection(2), "stride": 2},
        {"downsample": projection(2), "stride": 2, "tie_first": True, "aa_layer": BlurPool2d},
        {"cardinality": 2, "dilation": 2, "attn_layer": partial(TiedSE, blocks=4)},
        {"splits": 1, "blocks_per_split": (8,), "first_dilation": 2},
        {"reduce_first": 2, "base_width": 64},
    ],
    ids=lambda options: ",".join(options) or "default",
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_block_is_the_equation(options, memory_format):
    torch.manual_seed(0)
    inplanes = 32 if "downsample" in options else 64
    block = randomised(TiedBottleneck(inplanes, 16, **{"base_width": 32, **options}).double().eval())
    block = block.to(memory_format=memory_format)
    input = images(2, inplanes, 7, 6).contiguous(memory_format=memory_format)
    output = block(input)
    torch.testing.assert_close(output, equation(block, input))
    assert output.is_contiguous(memory_format=memory_format)


def test_the_options_change_what_they_name():
    block = TiedBottleneck(64, 16, splits=3, blocks_per_split=(1, 4, 2), entrance_blocks=4, cardinality=2)
    assert [conv.blocks for conv in block.conv2.splits] == [1, 4, 2]
    assert [conv.conv.groups for conv in block.conv2.splits] == [2, 2, 2]
    assert block.conv1.blocks == 4
    assert type(TiedBottleneck(32, 16, downsample=projection(1)).conv1) is nn.Conv2d
    assert type(TiedBottleneck(32, 16, downsample=projection(1), tie_first=True).conv1) is TiedConv2d
    assert not hasattr(TiedBottleneck(64, 16, mixer="none"), "mix")


@pytest.mark.parametrize("mixer", ["sum", "concat", "none"])
def test_gradients_reach_all_weights(mixer):
    block = randomised(TiedBottleneck(16, 4, mixer=mixer, base_width=64, blocks_per_split=(1, 2, 2, 4)).double())
    input = images(2, 16, 5, 5).requires_grad_()
    block(input).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in (input, *block.parameters()))


class Nothing(nn.Module):
    def forward(self, input):
        return input * 0


def test_drop_path_drop_block_and_attention_see_their_tensors():
    input = images(2, 64, 5, 5)
    for options in ({"drop_path": Nothing()}, {"attn_layer": lambda channels, **like: Nothing()}):
        block = randomised(TiedBottleneck(64, 16, **options).double().eval())
        assert torch.equal(block(input), input.relu())
    block = randomised(TiedBottleneck(64, 16, mixer="none", drop_block=Nothing).double().eval())
    constant = block.bn3(torch.zeros_like(input))
    torch.testing.assert_close(block(input), (input + constant).relu())


def test_dropout_of_the_network_reaches_the_blocks():
    model = real("tied_resnet50", drop_path_rate=0.1, drop_block_rate=0.1)
    assert model.layer4[2].drop_path.drop_prob == pytest.approx(0.1)
    assert type(model.layer4[2].drop_block).__name__ == "DropBlock2d"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixer": "sums"}, "unknown mixer 'sums': did you mean 'sum'"),
        ({"splits": 0}, "splits must be a whole number of at least 1, got 0"),
        ({"splits": 2, "blocks_per_split": (1, 2, 4)}, r"blocks_per_split must be 2 numbers of at least 1, got \(1, 2"),
        ({"blocks_per_split": (1, 2, 4, 0)}, "blocks_per_split must be 4 numbers of at least 1"),
        ({"entrance_blocks": 0}, "entrance_blocks must be a whole number of at least 1, got 0"),
        ({"entrance_blocks": 3}, "must divide in_channels, got blocks=3, groups=1, in_channels=64"),
        ({"cardinality": 3}, "cardinality must divide the channels of a split, got 3 of 8 channels"),
        ({"cardinality": 0}, "cardinality must be a whole number of at least 1, got 0"),
        ({"base_width": 3}, "base_width must be at least 64 / planes = 64 / 16, got 3"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TiedBottleneck(64, 16, **options)


def test_options_of_the_block_are_options_of_the_network():
    with pytest.raises(ValueError, match="unknown mixer 'conct': did you mean 'concat'"):
        real("tied_resnet50", mixer="conct")
    model = real("tied_resnet50_s", layers=(1, 1, 1, 1), splits=2, base_width=36, entrance_blocks=1, attn_layer="se")
    assert [conv.blocks for conv in model.layer1[0].conv2.splits] == [1, 2]
    assert model.layer1[0].conv2.splits[0].in_channels == 36
    assert type(model.layer4[0].se).__name__ == "SEModule"


def test_a_fresh_block_passes_its_input_through():
    model = timm.create_model("tied_resnet50", layers=(2, 1, 1, 1), channels=(16, 16, 16, 16))
    assert not model.layer1[1].bn3.weight.any()
    input = torch.randn(1, 64, 5, 5)
    assert torch.equal(model.layer1[1].eval()(input), input.relu())
    kept = timm.create_model("tied_resnet50", layers=(1, 1, 1, 1), channels=(16, 16, 16, 16), zero_init_last=False)
    assert kept.layer1[0].bn3.weight.all()


def test_output_stride_dilates_the_splits():
    model = small("tied_resnet50", output_stride=8, layers=(1, 1, 2, 1))
    assert model.forward_features(images(1, 3, 64, 64)).shape == (1, 128, 8, 8)
    splits = model.layer3[1].conv2.splits[3], model.layer4[0].conv2.splits[0]
    assert [split.conv.dilation for split in splits] == [(2, 2), (2, 2)]


@pytest.mark.parametrize("name", ["tied_resnet50", "tied_resnext50_s"])
@pytest.mark.parametrize("tied", ["untie", "keep"])
def test_fusing_folds_every_norm_that_it_can(name, tied):
    model = small(name, channels=(16, 32, 32, 64), base_width=64)
    input = images(1, 3, 64, 65)
    fused = lc.fuse(model, input, tied=tied)
    torch.testing.assert_close(fused(input), model(input))
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    layers = [layer for block in model.modules() if isinstance(block, TiedBottleneck)
              for layer in (block.conv1, block.conv2)]
    tied_layers = sum(isinstance(layer, TiedConv2d | TiedSplitConv2d) for layer in layers)
    assert (norms, len(fused.fusion.kept)) == ((0, 0) if tied == "untie" else (tied_layers, tied_layers))


def test_a_network_is_one_graph():
    model = small("tied_resnet50_s")
    input = images(2, 3, 33, 65)
    expected = model(input)
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="eager")(input), expected)
    sizes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    exported = torch.export.export(model, (images(2, 3, 64, 64),), dynamic_shapes=(sizes,)).module()
    torch.testing.assert_close(exported(input), expected)
