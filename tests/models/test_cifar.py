from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from leanconv.measure import count
from leanconv.models import CifarResNet, create

DATA = Path(__file__).parents[2] / "../shared/data"
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@pytest.mark.parametrize(
    ("depth", "params", "macs"),
    [(20, 269_722, 40_551_040), (32, 464_154, 68_862_592), (44, 658_586, 97_174_144), (56, 853_018, 125_485_696)],
)
def test_costs_are_the_papers(depth, params, macs):
    cost = count(create(f"cifar_resnet{depth}", num_classes=10), (1, 3, 32, 32))
    assert (cost.params, cost.macs) == (params, macs)
    assert sum(layer.kind in ("Conv2d", "Linear") for layer in cost.layers) == depth


def test_a_projection_costs_its_parameters_and_replaces_the_zeros():
    model = create("cifar_resnet20", num_classes=10, shortcut="B")
    assert count(model, (1, 3, 32, 32)).params == 272_474
    assert model.layer3[0].shortcut[0].weight.shape == (64, 32, 1, 1)


def test_option_a_takes_every_second_pixel_and_zeros_on_both_sides():
    shortcut = CifarResNet(20).layer2[0].shortcut
    input = torch.randn(2, 16, 7, 6)
    output = shortcut(input)
    assert torch.equal(output[:, 8:24], input[:, :, ::2, ::2])
    assert not output[:, :8].any()
    assert not output[:, 24:].any()


def test_a_block_adds_its_input():
    block = CifarResNet(20).layer1[0].eval()
    nn.init.zeros_(block.bn2.weight)
    input = torch.randn(2, 16, 5, 5)
    assert torch.equal(block(input), input.relu())


@pytest.mark.parametrize(("in_chans", "size"), [(1, (8, 8)), (3, (33, 31)), (3, (1, 1)), (4, (32, 64))])
@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_any_size_runs_and_keeps_its_memory_format(in_chans, size, shortcut, channels_last):
    model = create("cifar_resnet20", num_classes=7, in_chans=in_chans, shortcut=shortcut).eval()
    input = torch.randn(2, in_chans, *size)
    expected = model(input)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    model, input = model.to(memory_format=memory_format), input.contiguous(memory_format=memory_format)
    maps = model.forward_features(input)
    assert maps.shape == (2, 64, -(-size[0] // 4), -(-size[1] // 4))
    assert maps.is_contiguous(memory_format=memory_format)
    assert torch.allclose(model(input), expected, atol=1e-5)
    assert torch.allclose(model.forward_head(maps), expected, atol=1e-5)


def test_the_head_can_be_changed_as_in_timm():
    model = timm.create_model("cifar_resnet20", num_classes=0).eval()
    input = torch.randn(2, 3, 16, 16)
    maps = model.forward_features(input)
    assert torch.allclose(model(input), maps.mean((2, 3)), atol=1e-6)
    model.reset_classifier(5, "max")
    assert model.get_classifier().out_features == 5
    assert torch.allclose(model(input), model.fc(maps.amax((2, 3))), atol=1e-6)
    assert torch.allclose(model.forward_head(maps, pre_logits=True), maps.amax((2, 3)), atol=1e-6)
    unpooled = timm.create_model("cifar_resnet20", num_classes=0, global_pool="").eval()
    unpooled.load_state_dict(model.state_dict(), strict=False)
    assert torch.equal(unpooled(input), maps)


def test_features_only_returns_the_three_stages():
    backbone = timm.create_model("cifar_resnet20", features_only=True, in_chans=1).eval()
    assert backbone.feature_info.channels() == [16, 32, 64]
    assert backbone.feature_info.reduction() == [1, 2, 4]
    features = backbone(torch.randn(1, 1, 32, 32))
    assert [tuple(feature.shape) for feature in features] == [(1, 16, 32, 32), (1, 32, 16, 16), (1, 64, 8, 8)]
    one = timm.create_model("cifar_resnet20", features_only=True, out_indices=(2,))
    assert one.feature_info.channels() == [64]


def test_checkpointing_changes_no_gradient():
    model = create("cifar_resnet20", num_classes=10).train()
    input = torch.randn(4, 3, 8, 8)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(input).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(*gradients, strict=True))


def test_what_timm_asks_of_a_network():
    model = timm.create_model("cifar_resnet20", num_classes=10)
    assert model.default_cfg["input_size"] == (3, 32, 32)
    assert model.default_cfg["classifier"] == "fc"
    groups = timm.models.group_parameters(model, model.group_matcher())
    assert len(groups) == 1 + 9 + 1  # stem, blocks, classifier
    assert timm.data.resolve_data_config({}, model=model)["input_size"] == (3, 32, 32)


def test_published_weights_load_under_their_own_names(tmp_path):
    source = create("cifar_resnet20", num_classes=10)
    for module in source.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
    published = {f"module.{name.replace('fc.', 'linear.')}": value for name, value in source.state_dict().items()}
    torch.save({"state_dict": published, "best_prec1": 91.7}, tmp_path / "published.th")
    overlay = {"file": str(tmp_path / "published.th")}
    model = timm.create_model("cifar_resnet20", pretrained=True, pretrained_cfg_overlay=overlay)
    for name, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    options = {"pretrained_cfg_overlay": overlay, "in_chans": 1, "num_classes": 3}
    grey = timm.create_model("cifar_resnet20", pretrained=True, **options)
    assert torch.allclose(grey.conv1.weight, source.conv1.weight.sum(1, keepdim=True), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 21}, "depth must be 6n \\+ 2 for a whole n of at least 1, got 21"),
        ({"depth": 2}, "got 2"),
        ({"depth": 20, "shortcut": "C"}, "unknown shortcut 'C': valid are 'A', 'B'"),
    ],
)
def test_networks_that_do_not_exist_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CifarResNet(**arguments)


@pytest.mark.skipif(not (DATA / "cifar10_resnets").exists(), reason="needs the folder shared/data beside the checkout")
def test_published_weights_reach_their_accuracy():
    from PIL import Image

    weights = DATA / "cifar10_resnets" / "resnet20-12fca82f.pth"
    model = timm.create_model("cifar_resnet20", pretrained=True, pretrained_cfg_overlay={"file": str(weights)}).eval()
    mosaic = np.asarray(Image.open(DATA / "cifar10" / "test_00.webp").convert("RGB"))
    images = mosaic.reshape(50, 32, 50, 32, 3).transpose(0, 2, 1, 3, 4).reshape(2500, 32, 32, 3)[:2000]
    with np.load(DATA / "cifar10" / "labels.npz") as labels:
        labels = torch.from_numpy(labels["y_test"][:2000].astype(np.int64))
    input = ((torch.from_numpy(images) / 255 - MEAN) / STD).permute(0, 3, 1, 2)
    with torch.no_grad():
        predictions = torch.cat([model(batch).argmax(1) for batch in input.split(250)])
    assert abs(100 * (predictions == labels).float().mean() - 91.73) <= 1.5
