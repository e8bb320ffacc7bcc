import pytest
import torch
from models.small_resnet import costs, images, real, small
from torch import nn

import leanconv as lc
import leanconv.models.tied_attention
from leanconv.nn import TiedGlobalContext, TiedSE


@pytest.mark.parametrize(
    ("name", "options", "params", "macs"),
    [
        ("tied_senet50", {}, 23_229_934, 4_455_582_720),
        ("tied_senet50", {"blocks": 1}, 25_719_624, 4_457_783_296),
        ("tied_seresnet50", {"blocks": 1}, 28_088_024, 4_091_699_200),
        ("tied_seresnet50", {"blocks": 2}, 26_193_792, 4_090_441_728),
        ("tied_seresnet50", {"blocks": 4}, 25_718_228, 4_089_812_992),
        ("tied_seresnet50", {}, 25_598_334, 4_089_498_624),
        ("tied_seresnet50", {"blocks": 16}, 25_567_958, 4_089_342_976),
    ],
)
def test_costs_with_squeeze_and_excitation(name, options, params, macs):
    assert costs(real(name, **options)) == (params, macs)


@pytest.mark.parametrize(
    ("options", "params"),
    [
        ({"blocks": 1}, 10_000_909), ({}, 2_520_845), ({"blocks": 4}, 648_589),
        ({"blocks": 1, "ratio": 1 / 16}, 2_521_741), ({"ratio": 1 / 16}, 646_349),
        ({"blocks": 4, "ratio": 1 / 16}, 175_597),
    ],
)
def test_costs_of_global_context(options, params):
    model = real("tied_gcresnet50", **options)
    assert sum(parameter.numel() for parameter in model.parameters()) - 25_557_032 == params
    context = [module for module in model.modules() if isinstance(module, TiedGlobalContext)]
    assert sum(parameter.numel() for module in context for parameter in module.parameters()) == params


def test_costs_of_the_network_with_global_context():
    assert costs(real("tied_gcresnet50")) == (28_077_877, 4_100_386_816)


def test_global_context_begins_in_the_second_stage():
    model = real("tied_gcresnet50")
    kinds = [{type(block.se) for block in model.get_submodule(f"layer{stage}")} for stage in (1, 2, 3, 4)]
    assert kinds == [{type(None)}, {TiedGlobalContext}, {TiedGlobalContext}, {TiedGlobalContext}]
    assert {type(block.se) for block in real("tied_senet50").layer1} == {TiedSE}


@pytest.mark.parametrize("name", ["tied_senet50", "tied_seresnet50", "tied_gcresnet50"])
def test_attention_scales_or_shifts_and_fusing_keeps_it(name):
    model = small(name, channels=(16, 32, 32, 64))
    input = images(1, 3, 64, 65)
    expected = model(input)
    fused = lc.fuse(model, input, tied="untie")
    torch.testing.assert_close(fused(input), expected)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    nn.init.constant_(model.layer4[0].se.expand.linear.bias, 1.0)
    assert (model(input) - expected).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tied_seresnet50", {"blocks": 3}, "blocks must divide in_features, got blocks=3, in_features=256"),
        ("tied_senet50", {"reduction": 0}, "reduction must be a whole number of at least 1, got 0"),
        ("tied_gcresnet50", {"ratio": 0}, "ratio must leave at least one hidden channel, got ratio=0"),
    ],
)
def test_what_cannot_be_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        real(name, **options)
