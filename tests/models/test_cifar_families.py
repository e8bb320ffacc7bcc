"""The plain CIFAR networks: their costs, what they compute, and what timm asks of them."""

import pytest
import timm
import torch
import torch.nn.functional as F
from models.small_resnet import randomised
from torch import nn

import leanconv as lc
from leanconv.measure import count
from leanconv.models.cifar import CifarDenseNet, CifarQuick, CifarResNet, CifarVgg, CifarWideResNet
from leanconv.models.cifar.densenet import DenseLayer, transition
from leanconv.models.cifar.wide_resnet import PreActivationBlock

SMALL = {  # a few layers of each family
    "quick": CifarQuick,
    "vgg": CifarVgg,
    "resnet": lambda **options: CifarResNet(8, **options),
    "wide": lambda **options: CifarWideResNet(10, 2, **options),
    "dense": lambda **options: CifarDenseNet(13, 4, **options),
}
LAST = {"quick": (64, 3, 2), "vgg": (512, 2, 1), "resnet": (64, 9, 8), "wide": (128, 9, 8), "dense": (52, 9, 8)}
NAMES = {"quick": "cifar_quick", "vgg": "cifar_vgg16", "resnet": "cifar_resnet20", "wide": "cifar_wrn16_8",
         "dense": "cifar_densenet40"}
TAPS = {  # of the registered networks: channels, pixels and reductions, of 32 × 32
    "quick": ([32, 32, 64], [32, 15, 7], [1, 2, 4]),
    "vgg": ([64, 128, 256, 512, 512], [32, 16, 8, 4, 2], [1, 2, 4, 8, 16]),
    "resnet": ([16, 32, 64], [32, 16, 8], [1, 2, 4]),
    "wide": ([128, 256, 512], [32, 16, 8], [1, 2, 4]),
    "dense": ([160, 304, 448], [32, 16, 8], [1, 2, 4]),
}


def convs_and_linears(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


@pytest.mark.parametrize(
    ("name", "options", "params", "macs", "layers"),
    [
        ("cifar_quick", {}, 117_034, 10_763_904, 5),
        ("cifar_vgg16", {}, 14_986_698, 313_463_808, 15),
        ("cifar_resnet56", {"shortcut": "B"}, 855_770, 125_747_840, 58),
        ("cifar_wrn16_8", {}, 10_962_170, 1_548_145_664, 17),
        ("cifar_densenet40", {}, 1_019_722, 264_812_928, 40),
    ],
)
def test_costs(name, options, params, macs, layers):
    with torch.device("meta"):
        model = timm.create_model(name, **options)
    cost = count(model, (1, 3, 32, 32), device="meta")
    assert (cost.params, cost.macs) == (params, macs)
    assert len(convs_and_linears(model)) == layers


def sequential_form(model: nn.Module, *layers: nn.Module | int) -> nn.Sequential:
    """A plain `nn.Sequential` in which numbers stand for kernels of a model's convolutions, with norm and ReLU."""
    weights, norms = convs_and_linears(model), [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    convs = iter(zip(weights, norms, strict=False))
    plain: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, int):
            conv, norm = next(convs)
            assert conv.kernel_size == (layer, layer)
            plain += [conv, norm, nn.ReLU()]
        else:
            plain.append(layer)
    *_, hidden, classifier = weights
    return nn.Sequential(*plain, nn.Flatten(), hidden, nn.ReLU(), classifier)


def test_cifar_quick_is_its_list_of_layers():
    model = randomised(CifarQuick()).eval()
    plain = sequential_form(model, 5, nn.MaxPool2d(3, 2), 5, nn.AvgPool2d(3, 2), 5, nn.AvgPool2d(3, 2))
    assert plain[-3].in_features == 576
    input = torch.randn(2, 3, 32, 32)
    assert torch.allclose(model(input), plain(input), atol=1e-6)


def test_vgg16_is_its_list_of_layers():
    model = randomised(CifarVgg()).eval()
    pool = nn.MaxPool2d(2)
    plain = sequential_form(model, 3, 3, pool, 3, 3, pool, 3, 3, 3, pool, 3, 3, 3, pool, 3, 3, 3, pool)
    input = torch.randn(2, 3, 32, 32)
    assert torch.allclose(model(input), plain(input), atol=1e-5)


@pytest.mark.parametrize(("out_channels", "stride"), [(4, 1), (6, 1), (4, 2)])
def test_a_wide_block_is_its_equation(out_channels, stride):
    block = randomised(PreActivationBlock(4, out_channels, stride)).eval()
    input = torch.randn(2, 4, 7, 6)
    residual = block.conv2(block.bn2(block.conv1(block.bn1(input).relu())).relu())
    shortcut = input
    if (out_channels, stride) != (4, 1):
        shortcut = block.shortcut.conv(block.shortcut.bn(input).relu())
    assert torch.allclose(block(input), shortcut + residual, atol=1e-6)


def test_a_dense_layer_keeps_what_it_reads_and_adds_its_equation():
    layer = randomised(DenseLayer(6, 4)).eval()
    input = torch.randn(2, 6, 5, 5)
    output = layer(input)
    assert torch.equal(output[:, :6], input)
    assert torch.allclose(output[:, 6:], layer.conv(layer.bn(input).relu()), atol=1e-6)


@pytest.mark.parametrize("family", ["wide", "dense"])
def test_a_network_of_blocks_that_begin_with_norms_ends_with_one(family):
    model = randomised(SMALL[family]()).eval()
    maps = model.conv1(input := torch.randn(1, 3, 9, 9))
    for layer in (model.layer1, model.layer2, model.layer3):
        maps = layer(maps)
    assert torch.allclose(model.forward_features(input), model.norm.bn(maps).relu(), atol=1e-6)


def test_a_transition_averages_the_pixels_that_there_are():
    layer = randomised(transition(4)).eval()
    maps = layer.conv(layer.bn(input := torch.randn(1, 4, 5, 4)).relu())
    output = layer(input)
    assert output.shape == (1, 4, 3, 2)
    assert torch.allclose(output[:, :, 0, 1], maps[:, :, :2, 2:].mean((2, 3)), atol=1e-6)
    assert torch.allclose(output[:, :, 2, 0], maps[:, :, 4:, :2].mean((2, 3)), atol=1e-6)


@pytest.mark.parametrize("family", SMALL)
def test_the_head_can_be_changed_as_in_timm(family):
    model = randomised(SMALL[family](num_classes=0, in_chans=2)).eval()
    input = torch.randn(2, 2, 33, 30)
    maps = model.forward_features(input)
    assert maps.shape == (2, *LAST[family])
    assert model.num_features == maps.shape[1]
    side = 3 if family == "quick" else 1
    features = model.hidden(F.adaptive_avg_pool2d(maps, side).flatten(1))
    assert features.shape == (2, model.head_hidden_size)
    assert torch.allclose(model(input), features, atol=1e-6)
    model.reset_classifier(5, "max")
    features = model.hidden(F.adaptive_max_pool2d(maps, side).flatten(1))
    assert torch.allclose(model.forward_head(maps, pre_logits=True), features, atol=1e-6)
    assert torch.allclose(model(input), model.get_classifier()(features), atol=1e-6)
    model.reset_classifier(0, "")
    assert torch.equal(model(input), maps)


def test_dropout_is_before_the_classifier_in_training():
    model = CifarResNet(8, drop_rate=1.0)
    bias = model.fc.bias.expand(2, 10)
    input = torch.randn(2, 3, 8, 8)
    assert torch.equal(model(input), bias)
    assert not torch.equal(model.eval()(input), bias)


@pytest.mark.parametrize("family", SMALL)
def test_features_only_gives_the_maps_of_each_size(family):
    channels, sizes, reductions = TAPS[family]
    backbone = timm.create_model(NAMES[family], features_only=True, in_chans=1).eval()
    assert backbone.feature_info.channels() == channels
    assert backbone.feature_info.reduction() == reductions
    maps = backbone(torch.randn(1, 1, 32, 32))
    assert [tuple(part.shape[1:3]) for part in maps] == list(zip(channels, sizes, strict=True))


@pytest.mark.parametrize("family", SMALL)
def test_checkpointing_changes_no_gradient(family):
    torch.manual_seed(0)
    model = SMALL[family](num_classes=4).double().train()
    input = torch.randn(4, 3, 17, 17, dtype=torch.float64)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(input).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.allclose(*pair) for pair in zip(*gradients, strict=True))
    assert any(gradient.any() for gradient in gradients[0])


@pytest.mark.parametrize(("family", "left"), [("quick", 0), ("vgg", 0), ("resnet", 0), ("wide", 7), ("dense", 12)])
def test_fusing_gives_the_same(family, left):
    model = randomised(SMALL[family]()).eval()
    fused = lc.fuse(model, torch.randn(1, 3, 17, 17))
    assert sum(isinstance(module, nn.BatchNorm2d) for module in fused.modules()) == left
    input = torch.randn(2, 3, 17, 17)
    assert torch.allclose(fused(input), model(input), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", SMALL)
def test_what_timm_knows_and_groups(family):
    with torch.device("meta"):
        model = timm.create_model(NAMES[family], num_classes=7, in_chans=4, drop_rate=0.1)
    layers = dict(model.named_modules())
    assert layers[model.default_cfg["first_conv"]].in_channels == 4
    assert layers[model.default_cfg["classifier"]].out_features == 7
    assert timm.data.resolve_data_config({}, model=model)["input_size"] == (3, 32, 32)
    groups = timm.models.group_parameters(model, model.group_matcher())
    assert sum(len(names) for names in groups.values()) == len(list(model.parameters()))
    if family != "resnet":
        with pytest.raises(RuntimeError, match="No pretrained weights exist"):
            timm.create_model(NAMES[family], pretrained=True)


@pytest.mark.parametrize("family", SMALL)
def test_weights_go_round_by_file(family, tmp_path):
    model = randomised(SMALL[family]()).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other = SMALL[family]().eval()
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    input = torch.randn(1, 3, 15, 15)
    assert torch.equal(model(input), other(input))


@pytest.mark.parametrize(
    ("name", "options", "channels"),
    [
        ("cifar_resnet56", {"depth": 8}, [16, 32, 64]),
        ("cifar_wrn16_8", {"depth": 10, "widening": 2}, [32, 64, 128]),
        ("cifar_densenet40", {"depth": 10, "growth": 24}, [64, 112, 160]),
    ],
)
def test_depth_and_width_of_a_registered_name_can_be_chosen(name, options, channels):
    with torch.device("meta"):
        assert timm.create_model(name, features_only=True, **options).feature_info.channels() == channels


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CifarWideResNet(15, 8), "depth must be 6n \\+ 4 for a whole n of at least 1, got 15"),
        (lambda: CifarWideResNet(16, 0), "widening must be at least 1, got 0"),
        (lambda: CifarDenseNet(41, 12), "depth must be 3n \\+ 4 for a whole n of at least 1, got 41"),
        (lambda: CifarDenseNet(40, 0), "growth must be at least 1, got 0"),
        (lambda: CifarVgg(global_pool="catavgmax"), "global_pool must keep the number of channels, got 'catavgmax'"),
    ],
)
def test_networks_that_do_not_exist_are_refused(build, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        build()
