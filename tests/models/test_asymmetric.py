from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from models.small_resnet import block_inputs, costs, images, randomised, real, shortcut, small
from torch import Tensor, nn

import leanconv as lc
import leanconv.models.asymmetric_densenet
from leanconv.models import create
from leanconv.models.asymmetric_alexnet import AsymmetricAlexNet
from leanconv.models.asymmetric_resnet import AsymmetricBasicBlock, AsymmetricBottleneck, checkpoint_filter_fn
from leanconv.nn import AsymmetricConv2d

RESNETS = ["ac_resnet18", "ac_resnet50"]
# Asymmetric blocks; parameters and multiply-accumulates as trained; with the blocks fused.
COSTS = {
    "ac_resnet18": (16, (19_028_520, 2_931_593_216), (11_685_672, 1_814_073_344)),
    "ac_resnet50": (16, (33_116_968, 5_322_309_632), (25_553_256, 4_089_184_256)),
    "ac_densenet121": (58, (9_415_400, 3_662_667_776), (7_980_712, 2_834_161_664)),
    "ac_alexnet": (3, (63_760_552, 1_162_749_632), (61_838_504, 838_788_800)),
}


def layers_of(model: nn.Module) -> dict[str, AsymmetricConv2d]:
    return {name: module for name, module in model.named_modules() if isinstance(module, AsymmetricConv2d)}


@pytest.mark.parametrize("name", COSTS)
def test_costs_are_the_papers(name):
    number, trained, deployed = COSTS[name]
    model = real(name)
    assert len(layers_of(model)) == number
    assert costs(model, training=True) == trained
    for path, layer in layers_of(model.eval()).items():
        model.set_submodule(path, layer.fused())
    assert costs(model) == deployed


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "densenet121"])
def test_fused_it_costs_the_multiply_accumulates_of_the_plain_network(name):
    assert costs(real(name))[1] == COSTS[f"ac_{name}"][2][1]


@pytest.mark.parametrize("name", COSTS)
def test_every_3x3_of_the_blocks_is_asymmetric(name):
    model = real(name)
    layers = layers_of(model)
    assert {layer.kernel_size for layer in layers.values()} == {(3, 3)}
    plain = {module.kernel_size for path, module in model.named_modules()
             if isinstance(module, nn.Conv2d) and not any(path.startswith(f"{layer}.") for layer in layers)}
    assert plain == {(11, 11), (5, 5), (6, 6), (1, 1)} if name == "ac_alexnet" else plain == {(7, 7), (1, 1)}


def asymmetric(layer: AsymmetricConv2d, input: Tensor) -> Tensor:
    """The paper's equation before fusing: three convolutions with norms, added up."""
    paddings = {"square": (1, 1), "horizontal": (0, 1), "vertical": (1, 0)}
    return sum(  # type: ignore[return-value]
        branch.norm(F.conv2d(input, branch.conv.weight, None, layer.stride, paddings[name]))
        for name, branch in layer.branches.items()
    )


def test_a_basic_block_is_two_asymmetric_blocks():
    seen = block_inputs(small("ac_resnet18"), images(2, 3, 65, 61))
    assert [block.conv1.stride for block, _, _ in seen.values()] == [(1, 1), (2, 2), (2, 2), (2, 2)]
    for block, input, output in seen.values():
        residual = asymmetric(block.conv2, asymmetric(block.conv1, input).relu())
        torch.testing.assert_close(output, (residual + shortcut(block, input)).relu(), rtol=1e-9, atol=1e-9)


def test_a_bottleneck_has_an_asymmetric_block_in_the_middle():
    seen = block_inputs(small("ac_resnet50"), images(2, 3, 65, 61))
    for block, input, output in seen.values():
        residual = block.bn3(block.conv3(asymmetric(block.conv2, block.bn1(block.conv1(input)).relu()).relu()))
        torch.testing.assert_close(output, (residual + shortcut(block, input)).relu(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", RESNETS)
def test_fused_is_equal_and_plain(name):
    model, input = small(name), images(2, 3, 33, 35)
    fused = lc.fuse(model, input[:1])
    assert fused.fusion.error < 1e-10
    assert not any(isinstance(module, nn.BatchNorm2d | AsymmetricConv2d) for module in fused.modules())
    torch.testing.assert_close(fused(input), model(input), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("block", [AsymmetricBasicBlock(16, 16), AsymmetricBottleneck(64, 16)])
def test_a_block_starts_as_its_shortcut(block):
    block.zero_init_last()
    input = torch.randn(2, 64 if isinstance(block, AsymmetricBottleneck) else 16, 5, 5)
    assert torch.equal(block(input), input.relu())


@pytest.mark.parametrize("name", COSTS)
def test_options_reach_every_block(name):
    model = real(name, branches=("square", "vertical"))
    assert {tuple(layer.branches) for layer in layers_of(model).values()} == {("square", "vertical")}


def test_norms_start_at_gamma_init_but_for_the_last_of_a_basic_block():
    model = timm.create_model("ac_resnet18", layers=(1, 1, 1, 1), channels=(8, 8, 8, 8), gamma_init=1 / 3)
    for path, layer in layers_of(model).items():
        for branch in layer.branches.values():
            assert torch.equal(branch.norm.weight, torch.full((8,), 0 if path.endswith("conv2") else 1 / 3))


def plain_weights(name: str, **options: Any) -> tuple[nn.Module, dict[str, Tensor]]:
    plain = small(name.removeprefix("ac_"), **options)
    return plain, plain.state_dict()


@pytest.mark.parametrize("name", RESNETS)
@pytest.mark.parametrize("training", [False, True])
def test_it_starts_as_the_plain_network_whose_weights_it_loads(name, training):
    plain, state = plain_weights(name)
    model = small(name)
    untouched = {key: value.clone() for key, value in state.items()}
    model.load_state_dict(checkpoint_filter_fn(state, model))
    input = images(3, 3, 65, 61)
    torch.testing.assert_close(model.train(training)(input), plain.train(training)(input), rtol=1e-12, atol=1e-12)
    assert untouched.keys() == state.keys()
    for layer in layers_of(model).values():
        assert all(branch.conv.weight.any() for branch in layer.branches.values())
        assert not layer.branches["horizontal"].norm.weight.any()


@pytest.mark.parametrize("source", ["state_dict", "file"])
def test_create_model_loads_plain_weights(source, tmp_path):
    options = {"layers": (1, 1, 1, 1), "channels": (16, 16, 32, 32)}
    plain, state = plain_weights("ac_resnet50", num_classes=1000)
    state = {name: value for name, value in state.items() if not name.endswith("tracked")}  # torchvision's first ones
    published: Any = state
    if source == "file":
        torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "plain.pth")
        published = str(tmp_path / "plain.pth")
    load = {"pretrained": True, "pretrained_cfg_overlay": {source: published}}
    model = timm.create_model("ac_resnet50", **load, **options).double().eval()
    input = images(2, 3, 64, 64)
    # float32 weights, as create_model has them, but float64 arithmetic
    torch.testing.assert_close(model(input), plain.float().double()(input), rtol=1e-12, atol=1e-12)
    features = timm.create_model("ac_resnet50", features_only=True, **load, **options).double().eval()(input)
    torch.testing.assert_close(features[-1], model.forward_features(input), rtol=1e-12, atol=1e-12)
    grey = timm.create_model("ac_resnet50", num_classes=3, in_chans=1, **load, **options)
    torch.testing.assert_close(grey.conv1.weight, plain.float().conv1.weight.sum(1, keepdim=True))


@pytest.mark.parametrize("name", RESNETS)
def test_its_own_weights_load_as_they_are(name):
    model = small(name)
    state = copy.deepcopy(model.state_dict())
    filtered = checkpoint_filter_fn(state, model)
    assert filtered.keys() == state.keys()
    assert all(filtered[key] is value for key, value in state.items())


def test_plain_weights_need_the_square_branch():
    _, state = plain_weights("ac_resnet18")
    model = small("ac_resnet18", branches=("horizontal", "vertical"))
    with pytest.raises(ValueError, match=r"branches must have 'square', .* got \('horizontal', 'vertical'\)"):
        checkpoint_filter_fn(state, model)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_timms_weights_are_known_by_their_tags(name):
    tags = timm.list_pretrained(f"{name}.*")
    assert sorted(timm.list_pretrained(f"ac_{name}.*")) == sorted(f"ac_{tag}" for tag in tags)
    assert f"{name}.a1_in1k" in tags
    for tag in tags:
        ours, theirs = timm.get_pretrained_cfg(f"ac_{tag}"), timm.get_pretrained_cfg(tag)
        assert ours.architecture == f"ac_{name}"
        assert ours.hf_hub_id == theirs.hf_hub_id == f"timm/{tag}"
        for field in ("url", "input_size", "crop_pct", "interpolation", "mean", "std", "num_classes", "license"):
            assert getattr(ours, field) == getattr(theirs, field)
    assert timm.get_pretrained_cfg(f"ac_{name}").tag == timm.get_pretrained_cfg(name).tag


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"branches": ("square", "vertcal")}, "unknown branch 'vertcal': did you mean 'vertical'"),
        ({"branches": ()}, r"branches must be some of .* got \(\)"),
        ({"norm_layer": "groupnorm"}, "norm_layer must be nn.BatchNorm2d, which AsymmetricConv2d brings along"),
    ],
)
@pytest.mark.parametrize("name", RESNETS)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        real(name, **options)


@pytest.mark.parametrize("name", ["ac_densenet121", "ac_alexnet"])
def test_bad_branches_are_refused_and_there_are_no_weights(name):
    with pytest.raises(ValueError, match="unknown branch 'vertcal': did you mean 'vertical'"):
        real(name, branches=("vertcal",))
    with pytest.raises(ValueError, match=f"No pretrained weights exist for {name}"), torch.device("meta"):
        create(name, pretrained=True)


def small_densenet(name: str) -> nn.Module:
    torch.manual_seed(0)
    return randomised(timm.create_model(name, block_config=(2, 1), growth_rate=8, num_classes=5).double().eval())


def test_densenet_norms_what_a_dense_layer_adds():
    model, plain = small_densenet("ac_densenet121"), small_densenet("densenet121")
    state = model.state_dict()
    assert plain.load_state_dict({key: value for key, value in state.items() if ".branches." not in key},
                                 strict=False).unexpected_keys == []
    for path, layer in layers_of(model).items():
        plain.set_submodule(path, layer.fused())
        taken: dict[str, Tensor] = {}
        layer.register_forward_hook(lambda _, args, output, taken=taken: taken.update(input=args[0], output=output))
        model(images(2, 3, 33, 35))
        torch.testing.assert_close(taken["output"], asymmetric(layer, taken["input"]), rtol=1e-9, atol=1e-9)
    input = images(2, 3, 33, 35)
    torch.testing.assert_close(model(input), plain(input), rtol=1e-9, atol=1e-9)


def test_densenets_own_norms_have_the_settings_of_the_others():
    model = real("ac_densenet121", norm_layer=partial(nn.BatchNorm2d, eps=1e-3))
    assert {norm.eps for norm in model.modules() if isinstance(norm, nn.BatchNorm2d)} == {1e-3}
    with pytest.raises(ValueError, match=r"which AsymmetricConv2d brings along, got timm.*GroupNorm"):
        real("ac_densenet121", norm_layer="groupnorm")


def test_densenet_fused_is_equal():
    model, input = small_densenet("ac_densenet121"), images(2, 3, 33, 35)
    fused = lc.fuse(model, input[:1])
    assert fused.fusion.error < 1e-10
    assert not layers_of(fused)
    torch.testing.assert_close(fused(input), model(input), rtol=1e-8, atol=1e-9)


@pytest.fixture(scope="module")
def alexnet() -> nn.Module:
    torch.manual_seed(0)
    return randomised(timm.create_model("ac_alexnet", num_classes=5).eval())


@pytest.mark.parametrize("size", [(63, 70), (224, 224)])
def test_alexnet_is_five_convolutions_and_three_linear_layers(alexnet, size):
    input = images(2, 3, *size).float()
    maps = input
    for index, (conv, norm) in enumerate((stage[0], stage[1]) for stage in (alexnet.layer1, alexnet.layer2)):
        maps = norm(F.conv2d(maps, conv.weight, None, (4, 1)[index], 2)).relu()
        maps = F.max_pool2d(maps, 3, 2)
    for layer in layers_of(alexnet).values():
        maps = asymmetric(layer, maps).relu()
    maps = F.max_pool2d(maps, 3, 2)
    torch.testing.assert_close(alexnet.forward_features(input), maps, rtol=1e-3, atol=1e-4)
    assert maps.shape == (2, 256, *((6, 6) if size == (224, 224) else (1, 1)))
    features = F.adaptive_avg_pool2d(maps, 6).flatten(1)
    for layer in (alexnet.pre_logits.fc1, alexnet.pre_logits.fc2):
        features = F.linear(features, layer.weight.flatten(1), layer.bias).relu()
    torch.testing.assert_close(alexnet(input), alexnet.fc(features), rtol=1e-3, atol=1e-3)


def test_alexnet_fused_is_equal(alexnet):
    fused = lc.fuse(alexnet, images(1, 3, 65, 63).float())
    assert fused.fusion.error < 1e-10
    assert not any(isinstance(module, nn.BatchNorm2d | AsymmetricConv2d) for module in fused.modules())


def test_alexnets_head_can_be_changed_as_in_timm(alexnet):
    model = copy.deepcopy(alexnet)
    input = images(1, 3, 224, 320).float()
    maps = model.forward_features(input)
    hidden = model.pre_logits(maps)
    assert hidden.shape == (1, 4096, 1, 4)
    model.reset_classifier(7, "max")
    assert model.get_classifier().out_features == 7
    torch.testing.assert_close(model(input), model.fc(hidden.amax((2, 3))))
    model.reset_classifier(0)
    assert torch.equal(model(input), model.forward_head(maps, pre_logits=True))
    assert model(input).shape == (1, model.head_hidden_size)


def test_alexnets_linear_layers_start_small_for_no_norm_follows_them(alexnet):
    for layer in (alexnet.pre_logits.fc1, alexnet.pre_logits.fc2):
        assert abs(layer.weight.std() - 0.005) < 1e-4


def test_alexnets_features():
    with torch.device("meta"):
        backbone = timm.create_model("ac_alexnet", features_only=True, in_chans=1)
    assert backbone.feature_info.channels() == [64, 192, 256, 256]
    assert backbone.feature_info.reduction() == [4, 8, 16, 32]
    shapes = [tuple(maps.shape) for maps in backbone(torch.empty(1, 1, 224, 224, device="meta"))]
    assert shapes == [(1, 64, 55, 55), (1, 192, 27, 27), (1, 256, 13, 13), (1, 256, 6, 6)]


def test_alexnets_checkpointing_changes_no_gradient():
    torch.manual_seed(0)
    model = AsymmetricAlexNet(num_classes=2, drop_rate=0).train()
    model.pre_logits = nn.Identity()
    model.fc = nn.Linear(256, 2)
    input, gradients = images(4, 3, 64, 64).float(), []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(input).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.allclose(*pair, rtol=1e-3, atol=1e-5) for pair in zip(*gradients, strict=True))


def test_alexnets_groups_and_configuration():
    model = real("ac_alexnet")
    assert model.default_cfg["first_conv"] == "layer1.0"
    assert model.default_cfg["pool_size"] == (6, 6)
    assert len(timm.models.group_parameters(model, model.group_matcher())) == 4  # layer1 to layer3, the rest
