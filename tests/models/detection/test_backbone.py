from __future__ import annotations

import copy
import pickle

import pytest
import timm
import torch
from models.detection.small import Body
from models.small_resnet import randomised
from timm.layers import BatchNormAct2d
from torch import nn

import leanconv as lc
from leanconv.models.detection import Backbone, feature_network
from leanconv.models.detection.features import find_levels


def body(seed: int = 0) -> Body:
    torch.manual_seed(seed)
    return randomised(Body())


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("tied_resnet50_s", [256, 512, 1024, 2048]),
        ("ddf_mul_resnet50", [256, 512, 1024, 2048]),
        ("ghostnet_x100", [24, 40, 112, 160]),
        ("split_resnet50_a2", [256, 512, 1024, 2048]),
        ("vgg16_bn", [256, 512, 512, 512]),  # it has maps of stride 1 and 2 too
        ("convnext_atto", [40, 80, 160, 320]),  # it has none of stride 2
    ],
)
def test_maps_are_found_by_their_strides(name, channels):
    with torch.device("meta"):
        network = Backbone(feature_network(name), channels=8)
        maps = network(torch.empty(2, 3, 64, 96))
    assert [block[0].in_channels for block in network.fpn.inner_blocks] == channels
    assert [tuple(map.shape) for map in maps.values()] == [
        (2, 8, 16, 24), (2, 8, 8, 12), (2, 8, 4, 6), (2, 8, 2, 3), (2, 8, 1, 2)]


def test_stages_share_no_weight_and_have_all():
    network = feature_network("resnet10t")
    weights = [level.weights for level in find_levels(network)]
    assert sorted(name for names in weights for name in names) == sorted(dict(network.named_parameters()))
    assert all(name.startswith("layer4") for name in weights[3])
    assert {name.partition(".")[0] for name in weights[0]} == {"conv1", "bn1", "layer1"}


def test_finding_maps_changes_nothing():
    network = body()
    before = copy.deepcopy(network.state_dict())
    state = torch.get_rng_state()
    find_levels(network)
    assert network.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_frozen_norms_keep_weights_and_statistics_and_compute_as_in_evaluation():
    network, reference = Backbone(body(), channels=8, norms="frozen"), body().eval()
    before = copy.deepcopy(network.body.state_dict())
    input = torch.randn(4, 3, 64, 64)
    for _ in range(2):
        maps = network.train().body(input)
        for map, expected in zip(maps, reference(input), strict=True):
            assert torch.equal(map, expected)
        torch.stack([map.square().mean() for map in network(input).values()]).sum().backward()
        with torch.no_grad():
            for weight in network.body.parameters():
                assert (weight.grad is None) == (not weight.requires_grad)
    trained = {name for name, weight in network.body.named_parameters() if weight.requires_grad}
    assert trained == {f"stages.{index}.0.weight" for index in range(4)}
    assert all(torch.equal(value, before[name]) for name, value in network.body.state_dict().items())


def test_frozen_norms_without_weights_keep_their_statistics():
    network = body()
    network.stages[0][1] = nn.BatchNorm2d(8, affine=False)
    wrapped = Backbone(network, channels=8, norms="frozen").train()
    wrapped(torch.randn(2, 3, 64, 64))
    assert wrapped.body.stages[0][1].running_mean.eq(0).all()


def test_norms_that_are_trained_follow_the_batches():
    network, reference = Backbone(body(), channels=8, norms="batch"), body().train()
    input = torch.randn(4, 3, 64, 64)
    network.train()(input)
    reference(input)
    for name, value in reference.state_dict().items():
        assert torch.equal(network.body.state_dict()[name], value), name
    assert all(weight.requires_grad for weight in network.parameters())


def test_norms_with_an_activation_in_them_stay_that():
    network = timm.create_model("efficientnet_lite0", features_only=True)
    image = torch.randn(2, 3, 64, 64)
    expected = copy.deepcopy(network).eval()(image)[-1]
    for norms in ("frozen", "sync"):
        wrapped = Backbone(copy.deepcopy(network), channels=8, norms=norms)
        if norms == "frozen":
            assert any(isinstance(module, BatchNormAct2d) for module in wrapped.modules())
        else:
            assert not any(isinstance(module, nn.BatchNorm2d) for module in wrapped.body.modules())
            wrapped.eval()
        assert torch.equal(wrapped.body(image)[-1], expected)


def test_synchronised_norms_compute_as_before():
    network, reference = Backbone(body(), channels=8, norms="sync"), body()
    norms = [module for module in network.modules() if isinstance(module, nn.SyncBatchNorm)]
    assert len(norms) == 4
    input = torch.randn(4, 3, 64, 64)
    for mode in (True, False):
        for map, expected in zip(network.train(mode).body(input), reference.train(mode)(input), strict=True):
            torch.testing.assert_close(map, expected)


@pytest.mark.parametrize("stages", range(5))
def test_stages_are_trained_from_the_last(stages):
    network = Backbone(body(), channels=8, trainable_stages=stages).train()
    trained = [all(weight.requires_grad for weight in stage.parameters()) for stage in network.body.stages]
    assert trained == [index >= 4 - stages for index in range(4)]
    before = copy.deepcopy(network.body.state_dict())
    network(torch.randn(2, 3, 64, 64))["0"].sum().backward()
    for index, stage in enumerate(network.body.stages):
        moved = not torch.equal(stage[1].running_mean, before[f"stages.{index}.1.running_mean"])
        assert moved == (index >= 4 - stages)
        assert (stage[0].weight.grad is not None) == (index >= 4 - stages)
    assert all(weight.requires_grad for weight in network.fpn.parameters())


def test_weights_that_no_map_is_made_from_are_not_trained():
    network = body()
    network.head = nn.Linear(20, 10)
    wrapped = Backbone(network, channels=8)
    assert not any(weight.requires_grad for weight in wrapped.body.head.parameters())
    assert all(weight.requires_grad for weight in wrapped.body.stages.parameters())


def test_what_the_user_froze_stays_frozen():
    network = body()
    network.stages[3][0].weight.requires_grad_(False)
    assert not Backbone(network, channels=8).body.stages[3][0].weight.requires_grad


def test_a_swapped_network_is_a_backbone_and_fuses():
    network = randomised(Body((16, 16, 32, 32)).double().eval())
    swapped = lc.swap(network, lc.plan(network, "ghost", scope="all", where="stages.[123].0"))
    ghosts = [module for module in swapped.modules() if isinstance(module, lc.nn.GhostConv2d)]
    assert ghosts
    wrapped = Backbone(randomised(swapped), channels=8, norms="frozen").double().eval()
    image = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    expected = wrapped(image)
    fused = lc.fuse(wrapped, image)
    assert fused.fusion.folded > 3
    for name, map in fused(image).items():
        torch.testing.assert_close(map, expected[name])


def test_copies_and_pickles():
    network = Backbone(body(), channels=8, upsample="ddf-up", norms="frozen").train()
    image = torch.randn(1, 3, 64, 64)
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert not any(module.training for module in twin.body.modules() if isinstance(module, nn.BatchNorm2d))
        for name, map in twin(image).items():
            assert torch.equal(map, network(image)[name])


class Strange(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, image):
        return self.output(image)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: feature_network("cifar_resnet20"), ValueError, r"at strides 4, 8, 16, 32, but .* maps of shapes"),
        (lambda: timm.create_model("vit_tiny_patch16_224", features_only=True), ValueError,
         "must take images of any size, but FeatureGetterNet doesn't run on 128 x 128"),
        (lambda: timm.create_model("resnet10t"), TypeError, "list of feature maps, got torch.Tensor"),
        (lambda: Strange(lambda image: [image.mean((2, 3))]), ValueError, "at strides"),
        (lambda: Strange(lambda image: {"a": "b"}), TypeError, "must return a list of feature maps, got builtins.dict"),
    ],
)
def test_networks_without_the_maps_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        Backbone(make())


def test_a_function_of_the_users_own_returns_the_maps(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from models.detection.small import Body\ndef make(): return Body((4, 5, 6, 7))\n")
    network = Backbone(feature_network(f"{file}:make"), channels=8)
    assert [block[0].in_channels for block in network.fpn.inner_blocks] == [4, 5, 6, 7]


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="unknown model 'resnet5': did you mean"):
        feature_network("resnet5")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norms": "froze"}, "unknown norms 'froze': did you mean 'frozen'"),
        ({"trainable_stages": 5}, "trainable_stages must be a whole number from 0 to 4, got 5"),
        ({"channels": 0}, "channels must be a whole number of at least 1, got 0"),
        ({"upsample": "nearst"}, "unknown upsampling 'nearst': did you mean 'nearest'"),
        ({"extra": "pol"}, "unknown extra 'pol'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Backbone(body(), **options)
