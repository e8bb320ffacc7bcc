"""The CIFAR networks with operators in them: the costs that the papers and their code have."""

import pytest
import torch
from opcounter import legacy_operations
from torch import nn

import leanconv as lc
from leanconv.measure import count
from leanconv.models import create
from leanconv.nn import AsymmetricConv2d, GhostConv2d, SplitConv2d, TiedConv2d
from leanconv.surgery import plan, swap


def on_meta(name: str, **options) -> nn.Module:
    with torch.device("meta"):
        return create(name, **options)


def cost_of(model: nn.Module, training: bool = False) -> tuple[int, int]:
    """Parameters, and the multiply-accumulates of a forward pass."""
    cost = count(model, (1, 3, 32, 32), device="meta", training=training)
    return cost.params, cost.macs


def of_kind(model: nn.Module, kind: type[nn.Module]) -> list[str]:
    return [name for name, module in model.named_modules() if type(module) is kind]


@pytest.mark.parametrize(
    ("name", "options", "blocks", "trains", "deployed"),
    [
        ("cifar_quick", {}, 3, (149_226, 15_054_464), (116_906, 10_763_904)),
        ("cifar_vgg16", {}, 13, (24_810_570, 522_261_504), (14_982_474, 313_463_808)),
        ("cifar_resnet56", {"shortcut": "B"}, 55, (1_429_434, 209_404_544), (853_642, 125_747_840)),
        ("cifar_wrn16_8", {}, 6, (14_029_050, 1_963_381_760), (10_960_378, 1_548_145_664)),
    ],
)
def test_asymmetric_networks_cost_what_acnet_says(name, options, blocks, trains, deployed):
    model = on_meta(name, operator="asymmetric", **options)
    assert len(of_kind(model, AsymmetricConv2d)) == blocks
    assert cost_of(model, training=True) == trains
    fused = lc.fuse(create(name, operator="asymmetric", **options), torch.randn(1, 3, 15, 15))
    assert cost_of(fused.to("meta")) == deployed


def test_the_wide_network_of_acnets_code_has_norms_that_the_papers_construction_has_not():
    """A block for every 3x3, the one norm before it kept: 18.1725 M and 2567.7 M in training, 10.9658 M deployed."""
    model = on_meta("cifar_wrn16_8")
    for name, conv in list(model.named_modules()):
        if getattr(conv, "kernel_size", None) == (3, 3):
            layer = AsymmetricConv2d(conv.in_channels, conv.out_channels, 3, conv.stride, 1, device="meta")
            model.set_submodule(name, layer)
    assert cost_of(model, training=True) == (18_172_538, 2_567_656_448)
    for name in of_kind(model.eval(), AsymmetricConv2d):
        model.set_submodule(name, model.get_submodule(name).fused())
    assert cost_of(model) == (10_965_770, 1_548_145_664)


@pytest.mark.parametrize(
    ("settings", "params", "macs", "published"),
    [
        ("cheap_kernel_size=1", 7_633_578, 156_736_512, ("7.634", "156.74")),
        ("cheap_kernel_size=3", 7_650_474, 157_842_432, ("7.650", "157.84")),
        ("cheap_kernel_size=5", 7_684_266, 160_054_272, ("7.684", "160.05")),
        ("cheap_kernel_size=7", 7_734_954, 163_372_032, ("7.735", "163.37")),
        ("ratio=2", 7_650_474, 157_842_432, ("7.650", "157.84")),
        ("ratio=3", 5_218_476, 106_972_776, ("5.218", "106.97")),
        ("ratio=4", 3_982_362, 80_165_376, ("3.982", "80.17")),
        ("ratio=5", 3_269_697, 65_398_032, ("3.270", "65.40")),
    ],
)
def test_ghost_vgg16_costs_what_the_paper_says(settings, params, macs, published):
    """Its multiply-accumulates are those of the convolutions, the first among them."""
    model = on_meta("cifar_vgg16", operator=f"ghost:{settings}", where="*")
    assert len(of_kind(model, GhostConv2d)) == 13
    linear = 512 * 512 + 512 * 10
    found = cost_of(model)
    assert found == (params, macs + linear)
    assert (f"{found[0] / 1e6:.3f}", f"{(found[1] - linear) / 1e6:.2f}") == published


@pytest.mark.parametrize(("shortcut", "params", "macs"), [("A", 438_010, 65_139_328), ("B", 439_914, 65_325_696)])
def test_ghost_resnet56_costs_what_its_construction_does(shortcut, params, macs):
    assert cost_of(on_meta("cifar_resnet56", operator="ghost:ratio=2", shortcut=shortcut)) == (params, macs)


@pytest.mark.parametrize(
    ("name", "alpha", "params", "operations", "published"),
    [
        ("cifar_vgg16", None, 14_986_698, 314_910_208, ("14.987", "314.91")),
        ("cifar_vgg16", 1 / 2, 5_610_250, 118_271_616, ("5.610", "118.27")),
        ("cifar_vgg16", 1 / 4, 3_771_658, 79_343_232, ("3.772", "79.34")),
        ("cifar_vgg16", 1 / 8, 2_852_362, 59_879_040, ("2.852", "59.88")),
        ("cifar_resnet20", None, 272_474, 41_620_160, ("0.272", "41.62")),
        ("cifar_resnet20", 1 / 2, 105_082, 17_907_712, ("0.105", "17.91")),
        ("cifar_resnet20", 1 / 4, 71_674, 12_894_208, ("0.072", "12.89")),
    ],
)
def test_split_networks_cost_what_spconv_says(name, alpha, params, operations, published):
    """VGG-16 has ReLUs of its own, the residual network calls functions."""
    options = {} if alpha is None else {"operator": f"split:alpha={alpha}"}
    if name == "cifar_resnet20":
        options["shortcut"] = "B"
    model = on_meta(name, **options)
    assert len(of_kind(model, SplitConv2d)) == (0 if alpha is None else 12 if name == "cifar_vgg16" else 18)
    counted = legacy_operations(model, (1, 3, 32, 32), rectifiers=name == "cifar_vgg16")
    assert (sum(parameter.numel() for parameter in model.parameters()), counted) == (params, operations)
    assert (f"{params / 1e6:.3f}", f"{operations / 1e6:.2f}") == published


def test_the_operator_is_the_planned_one():
    torch.manual_seed(0)
    network = create("cifar_resnet20", num_classes=7, in_chans=1)
    wanted = swap(network, plan(network, "tied:blocks=4", where="layer2.*"), trained=False)
    torch.manual_seed(0)
    model = create("cifar_resnet20", num_classes=7, in_chans=1, operator="tied:blocks=4", where="layer2.*")
    assert of_kind(model, TiedConv2d) == of_kind(wanted, TiedConv2d) == [
        f"layer2.{block}.conv{index}" for block in range(3) for index in (1, 2)
    ]
    input = torch.randn(2, 1, 9, 9)
    assert torch.equal(model(input), wanted(input))


def test_the_scope_can_be_all_and_where_can_be_conditions():
    options = {"operator": "split:alpha=0.5,group_count=1", "in_chans": 4}
    assert "conv1" not in of_kind(on_meta("cifar_resnet20", **options), SplitConv2d)
    assert "conv1" in of_kind(on_meta("cifar_resnet20", scope="all", **options), SplitConv2d)
    third = on_meta("cifar_resnet20", where={"stage": 3, "min_channels": 64}, **options)
    assert of_kind(third, SplitConv2d)[0] == "layer3.0.conv2"


@pytest.mark.parametrize("operator", ["tied:blocks=4", "tied-se", "asymmetric", "ghost", "split", "ddf"])
def test_networks_with_operators_are_networks(operator):
    model = create("cifar_resnet20", num_classes=4, operator=operator).eval()
    input = torch.randn(2, 3, 15, 17)
    maps = model.forward_features(input)
    assert torch.allclose(model(input), model.forward_head(maps), atol=1e-6)
    other = create("cifar_resnet20", num_classes=4, operator=operator).eval()
    assert not torch.allclose(other(input), model(input))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(input), model(input))
    model.train().set_grad_checkpointing()
    model(input).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    backbone = create("cifar_resnet20", features_only=True, operator=operator).eval()
    assert [part.shape[1] for part in backbone(input)] == [16, 32, 64]
    meta = on_meta("cifar_resnet20", num_classes=4, operator=operator)
    assert {name: value.shape for name, value in meta.state_dict().items()} == {
        name: value.shape for name, value in model.state_dict().items()
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"operator": "tide"}, "unknown operator 'tide': did you mean 'tied'"),
        ({"operator": "tied:block=2"}, "unknown setting of operator 'tied' 'block': did you mean 'blocks'"),
        ({"operator": "tied", "scope": "al"}, "unknown scope 'al': did you mean 'all'"),
        ({"operator": "tied", "where": "nowhere"}, "takes none of the model's 19 layers"),
        ({"where": "layer1.*"}, "where='layer1.\\*' and scope='published' say where .* operator is None"),
        ({"scope": "all"}, "where=None and scope='all' say where"),
    ],
)
def test_operators_that_can_not_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        on_meta("cifar_resnet20", **options)


def test_networks_without_a_norm_after_their_convolutions_refuse_what_needs_one():
    with pytest.raises(ValueError, match="takes none of the model's 39 layers: no norm alone takes its output"):
        on_meta("cifar_densenet40", operator="ghost")
