import pytest
import torch
from models.small_resnet import costs, images, randomised, real, small
from timm.models.resnest import ResNestBottleneck
from torch import nn

import leanconv as lc
from leanconv.models.tied_resnest import TiedResNestBottleneck


@pytest.mark.parametrize(
    ("options", "params", "macs"),
    [
        ({}, 15_256_600, 3_056_000_000),
        ({"radix": 2}, 16_253_712, 0.700 * 4_366_000_000),
        ({"cardinality": 1, "base_width": 64}, 14_482_856, 0.678 * 4_329_000_000),
        ({"cardinality": 1, "base_width": 64, "radix": 2}, 15_748_200, 0.678 * 4_331_000_000),
        ({"cardinality": 4, "base_width": 24}, 16_031_880, 0.722 * 4_400_000_000),
        ({"blocks": 1}, 25_950_000, 4_365_000_000),
    ],
)
def test_costs(options, params, macs):
    counted = costs(real("tied_resnest50_fast_1s2x40d", **options))
    assert counted[0] == params or (options == {"blocks": 1} and counted[0] == pytest.approx(params, rel=5e-4))
    assert counted[1] == pytest.approx(macs, rel=2e-3)
    assert options or counted[1] == 3_056_052_736


@pytest.mark.parametrize("radix", [0, 1, 2])
@pytest.mark.parametrize("options", [{}, {"stride": 2, "avd": True, "avd_first": True}])
def test_a_block_is_timms_with_repeated_filters(radix, options):
    shape = {"cardinality": 2, "base_width": 32, "radix": radix, **options}
    if "stride" in options:
        shape["downsample"] = nn.Conv2d(64, 64, 1, 2)
    tied = randomised(TiedResNestBottleneck(64, 16, blocks=4, **shape).double().eval())
    plain = ResNestBottleneck(64, 16, **shape).double().eval()
    names = {"conv1.weight": tied.conv1, "conv2.conv.weight" if radix else "conv2.weight":
             tied.conv2.conv if radix else tied.conv2}
    state = {name: value for name, value in tied.state_dict().items() if name in plain.state_dict()}
    for name, layer in names.items():  # block-diagonal within each group: zero outside
        groups = layer.conv.groups
        banks = layer.weight.unflatten(0, (groups, -1))
        full = [torch.block_diag(*[bank[:, :, row, column]] * 4)
                for bank in banks for row in range(bank.shape[2]) for column in range(bank.shape[3])]
        size = layer.conv.kernel_size
        state[name] = torch.stack(full).unflatten(0, (groups, *size)).permute(0, 3, 4, 1, 2).flatten(0, 1)
    plain.load_state_dict(state)
    input = images(2, 64, 7, 6)
    torch.testing.assert_close(tied(input), plain(input))


def test_fusing_gives_the_same():
    model = small("tied_resnest50_fast_1s2x40d", channels=(16, 16, 32, 32), base_width=64)
    input = images(1, 3, 64, 65)
    fused = lc.fuse(model, input, tied="untie")
    torch.testing.assert_close(fused(input), model(input))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aa_layer": nn.AvgPool2d}, "aa_layer must be None in a ResNeSt"),
        ({"block_args": {"attn_layer": "se"}}, "attn_layer must be None in a ResNeSt, got se"),
        ({"block_reduce_first": 2}, "reduce_first must be 1 in a ResNeSt, got 2"),
        ({"blocks": 3}, "must divide in_channels, got blocks=3"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        real("tied_resnest50_fast_1s2x40d", **options)
