import pytest
import timm
import torch
from models.small_resnet import images, randomised, real

import leanconv as lc
import leanconv.models.tied_efficientnet
from leanconv.measure import count
from leanconv.nn import TiedSE


@pytest.mark.parametrize(
    ("blocks", "params"), [(1, 5_288_548), (2, 4_813_478), (4, 4_693_544), (8, 4_662_771)]
)
def test_parameters(blocks, params):
    model = real("tied_efficientnet_b0", blocks=blocks)
    assert sum(parameter.numel() for parameter in model.parameters()) == params
    se = [module for module in model.modules() if isinstance(module, TiedSE)]
    assert {module.reduce.blocks for module in se} == {blocks}
    total = {1: 636_540, 2: 161_470, 4: 41_536, 8: 10_763}
    assert sum(parameter.numel() for module in se for parameter in module.parameters()) == total[blocks]


def test_one_block_costs_what_timms_network_does():
    ours = count(real("tied_efficientnet_b0", blocks=1), (1, 3, 224, 224), device="meta")
    timms = count(real("efficientnet_b0"), (1, 3, 224, 224), device="meta")
    assert (ours.params, ours.macs) == (timms.params, timms.macs)


def test_the_default_has_eight_blocks():
    assert count(real("tied_efficientnet_b0"), (1, 3, 224, 224), device="meta").macs == 385_264_288


def test_fusing_gives_the_same():
    torch.manual_seed(0)
    model = randomised(timm.create_model("tied_efficientnet_b0", num_classes=5).double().eval())
    input = images(1, 3, 32, 33)
    torch.testing.assert_close(lc.fuse(model, input)(input), model(input))


@pytest.mark.parametrize("blocks", [0, 3, 16, 2.5])
def test_blocks_that_do_not_divide_the_widths_are_refused(blocks):
    with pytest.raises(ValueError, match=f"blocks must be 1, 2, 4 or 8.*got {blocks}"):
        real("tied_efficientnet_b0", blocks=blocks)
