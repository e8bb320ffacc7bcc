import pytest
import timm
import torch
from models.small_resnet import randomised
from torch import Tensor, nn

import leanconv as lc
from leanconv.measure import count
from leanconv.models.ghostnet import GhostNet, checkpoint_filter_fn
from leanconv.nn import GhostConv2d


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


# The TensorFlow original has a norm after the head's convolution, and no bias there: 1280 parameters more.
@pytest.mark.parametrize(
    ("rounding", "width", "params", "macs", "published"),
    [
        ("pytorch", 0.5, 2_587_292, 42_328_152, ("2.5873", "42.33")),
        ("pytorch", 1.0, 5_182_508, 141_150_512, ("5.1825", "141.15")),
        ("pytorch", 1.1, 5_855_650, 166_986_864, ("5.8556", "166.99")),
        ("pytorch", 1.2, 6_593_744, 197_962_656, ("6.5937", "197.96")),
        ("pytorch", 1.3, 7_358_820, 227_003_256, ("7.3588", "227.00")),
        ("tensorflow", 0.5, 2_588_232 - 1280, 42_327_816, ("2.5882", "42.33")),
        ("tensorflow", 1.0, 5_183_016 - 1280, 141_149_744, ("5.1830", "141.15")),
        ("tensorflow", 1.1, 5_858_409 - 1280, 164_483_640, ("5.8584", "164.48")),
        ("tensorflow", 1.3, 7_352_622 - 1280, 226_995_784, ("7.3526", "227.00")),
    ],
)
def test_costs_are_the_published_ones(rounding, width, params, macs, published):
    with torch.device("meta"):
        model = GhostNet(width=width, rounding=rounding)
    cost = count(model, (1, 3, 224, 224), device="meta")
    assert (cost.params, cost.macs) == (params, macs)
    norm_of_the_head = 1280 if rounding == "tensorflow" else 0
    assert (f"{(cost.params + norm_of_the_head) / 1e6:.4f}", f"{cost.macs / 1e6:.2f}") == published


@pytest.mark.parametrize("width", ["050", "100", "130"])
def test_it_is_timms_ghostnet(width, tmp_path):
    torch.manual_seed(0)
    theirs = randomised(timm.create_model(f"ghostnet_{width}", num_classes=7)).eval()
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": theirs.state_dict()}, path)
    overlay = {"file": str(path), "num_classes": 7}
    ours = timm.create_model(f"ghostnet_x{width}", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=7)
    ours.eval()
    input = torch.randn(2, 3, 65, 47)
    with torch.no_grad():
        assert relative(ours(input), theirs(input)) <= 1e-5
        assert relative(ours.double()(input.double()), theirs.double()(input.double())) <= 1e-12


def test_weights_load_by_position_too():
    torch.manual_seed(0)
    theirs, ours = randomised(timm.create_model("ghostnet_050")).eval(), timm.create_model("ghostnet_x050").eval()
    names = ours.state_dict()
    by_position = dict(zip(names, theirs.state_dict().values(), strict=True))
    by_name = checkpoint_filter_fn(theirs.state_dict(), ours)
    assert by_position.keys() == by_name.keys()
    assert all(torch.equal(by_position[name], by_name[name]) for name in names)


def test_published_weights_are_timms():
    for name, weights in {"ghostnet_x100": "timm/ghostnet_100.in1k", "ghostnet_x050": None}.items():
        configuration = timm.get_pretrained_cfg(name)
        assert configuration.hf_hub_id == weights
        with torch.device("meta"):
            model = timm.create_model(name)
        layers = dict(model.named_modules())
        assert layers[configuration.first_conv].in_channels == 3
        assert layers[configuration.classifier].out_features == 1000
    with pytest.raises(RuntimeError, match="No pretrained weights exist for ghostnet_x130"):
        timm.create_model("ghostnet_x130", pretrained=True)


def test_all_dense_1x1s_of_bottlenecks_but_those_of_shortcuts_are_ghost_modules():
    with torch.device("meta"):
        model = timm.create_model("ghostnet_x100")
    assert sum(isinstance(module, GhostConv2d) for module in model.modules()) == 2 * 16
    plain = [name for name, module in model.named_modules()
             if type(module) is nn.Conv2d and module.groups == 1 and not name.endswith(".primary")]
    assert [name for name in plain if ".se." not in name and ".shortcut." not in name] == [
        "conv_stem", "blocks.9.0.conv", "conv_head"
    ]


def test_taps_are_the_last_maps_of_each_size():
    model = timm.create_model("ghostnet_x100", features_only=True, in_chans=1).eval()
    assert model.feature_info.channels() == [16, 24, 40, 112, 160]
    assert model.feature_info.reduction() == [2, 4, 8, 16, 32]
    shapes = [tuple(maps.shape) for maps in model(torch.randn(1, 1, 65, 63))]
    assert shapes == [(1, 16, 33, 32), (1, 24, 17, 16), (1, 40, 9, 8), (1, 112, 5, 4), (1, 160, 3, 2)]


def test_intermediates_are_the_features():
    model = randomised(timm.create_model("ghostnet_x050", num_classes=3)).eval()
    backbone = timm.create_model("ghostnet_x050", features_only=True).eval()
    backbone.load_state_dict({name.replace("blocks.", "blocks_"): value for name, value in model.state_dict().items()},
                             strict=False)
    input = torch.randn(1, 3, 64, 64)
    last, maps = model.forward_intermediates(input)
    assert torch.equal(last, model.forward_features(input))
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(maps, backbone(input), strict=True))
    few = model.forward_intermediates(input, indices=[2], intermediates_only=True)
    assert torch.equal(few[0], maps[2])
    model.prune_intermediate_layers([2])
    assert torch.equal(model(input), maps[2])


def test_the_head_can_be_changed_as_in_timm():
    model = randomised(timm.create_model("ghostnet_x050", num_classes=0, drop_rate=0.5, in_chans=4)).eval()
    input = torch.randn(2, 4, 40, 33)
    maps = model.forward_features(input)
    assert maps.shape == (2, model.num_features, 2, 2)
    hidden = model.conv_head(maps.mean((2, 3), keepdim=True)).relu().flatten(1)
    assert torch.allclose(model(input), hidden, atol=1e-5)
    model.reset_classifier(5, "max")
    hidden = model.conv_head(maps.amax((2, 3), keepdim=True)).relu().flatten(1)
    assert torch.allclose(model.forward_head(maps, pre_logits=True), hidden, atol=1e-5)
    assert torch.allclose(model(input), model.get_classifier()(hidden), atol=1e-5)
    model.reset_classifier(0, "")
    assert model(input).shape == (2, 1280, 2, 2)


def test_checkpointing_changes_no_gradient():
    torch.manual_seed(0)
    model = timm.create_model("ghostnet_x050", num_classes=4, drop_rate=0.0).double().train()
    input = torch.randn(4, 3, 33, 33, dtype=torch.float64)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(input).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.allclose(*pair) for pair in zip(*gradients, strict=True))


def test_fusing_leaves_no_norm():
    model = randomised(timm.create_model("ghostnet_x050", num_classes=4)).eval()
    input = torch.randn(1, 3, 33, 35)
    fused = lc.fuse(model, input)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert fused.fusion.error < 1e-12
    with torch.no_grad():
        assert relative(fused(input), model(input)) < 1e-4


def test_the_width_and_the_rounding_of_a_registered_name_can_be_chosen():
    with torch.device("meta"):
        model = timm.create_model("ghostnet_x100", width=1.1, rounding="tensorflow")
        stem = GhostNet(width=0.25, rounding="tensorflow").conv_stem, GhostNet(width=0.25).conv_stem
    assert sum(parameter.numel() for parameter in model.parameters()) == 5_857_129
    assert [conv.out_channels for conv in stem] == [8, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounding": "tensorflw"}, "unknown rounding 'tensorflw': did you mean 'tensorflow'"),
        ({"width": 0}, "width must be above 0 and finite, got 0"),
        ({"width": float("inf")}, "width must be above 0 and finite, got inf"),
        ({"output_stride": 16}, "output_stride must be 32, got 16"),
        ({"global_pool": "catavgmax"}, "global_pool must keep the number of channels, got 'catavgmax'"),
    ],
)
def test_networks_that_do_not_exist_are_refused(options, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        timm.create_model("ghostnet_x100", **options)
