"""What timm asks of every network that it knows by name, asked of each of ours."""

from __future__ import annotations

import fnmatch
import math
from typing import Any

import pytest
import timm
import torch
from models.small_resnet import randomised
from torch import Tensor, nn

import leanconv
from leanconv.models import create, list_models, load_state

FAMILIES = {
    "asymmetric_resnet": ("ac_resnet18", "ac_resnet50"),
    "asymmetric_alexnet": ("ac_alexnet",),
    "asymmetric_densenet": ("ac_densenet121",),
    "cifar.densenet": ("cifar_densenet40",),
    "cifar.quick": ("cifar_quick",),
    "cifar.resnet": ("cifar_resnet20", "cifar_resnet32", "cifar_resnet44", "cifar_resnet56"),
    "cifar.vgg": ("cifar_vgg16",),
    "cifar.wide_resnet": ("cifar_wrn16_8",),
    "ddf_resnet": (
        "ddf_resnet18", "ddf_mul_resnet50", "ddf_mul_resnet101", "ddf_mul_resnet152", "ddf_add_resnet50",
        "ddf_add_resnet101", "ddf_add_resnet152", "ddf_mul_resnet50d_wide",
    ),
    "ghost_resnet": ("ghost_resnet50_s2", "ghost_resnet50_s4"),
    "ghostnet": ("ghostnet_x050", "ghostnet_x100", "ghostnet_x110", "ghostnet_x130"),
    "split_resnet": (
        "split_resnet50_a2", "split_resnet50_a4", "split_resnet50_a8", "split_resnet101_a2", "split_resnet101_a4",
        "split_resnet101_a8",
    ),
    "tied_attention": ("tied_gcresnet50", "tied_senet50", "tied_seresnet50"),
    "tied_efficientnet": ("tied_efficientnet_b0",),
    "tied_resnest": ("tied_resnest50_fast_1s2x40d",),
    "tied_resnet": (
        "tied_resnet50", "tied_resnet50_s", "tied_resnet101", "tied_resnet101_s", "tied_resnext50", "tied_resnext50_s",
    ),
}  # fmt: skip
NAMES = [name for names in FAMILIES.values() for name in names]
ONE_OF_EACH = [names[0] for names in FAMILIES.values()]
PUBLISHED = {"ac_resnet18", "ac_resnet50", "ghostnet_x100", *FAMILIES["cifar.resnet"]}

# Deeper ones are the same when they are made small.
DISTINCT = [name for name in NAMES if not name.endswith(("resnet32", "resnet44", "resnet56"))
            and "resnet101" not in name and "resnet152" not in name]

POOLED_SIZES = {  # of those whose pooling leaves the last row and column out
    "ac_alexnet": [(18, 24), (8, 11), (3, 5), (1, 2)],
    "ac_densenet121": [(38, 51), (19, 26), (9, 13), (4, 6), (2, 3)],
    "cifar_quick": [(33, 47), (16, 23), (7, 11)],
}

every_network = pytest.mark.parametrize("name", NAMES)
every_distinct_network = pytest.mark.parametrize("name", DISTINCT)
one_of_each_family = pytest.mark.parametrize("name", ONE_OF_EACH)


def small(name: str, **options: Any) -> Any:
    """The network with as few layers as its stages can have, where its options can say so."""
    if "_densenet121" in name:
        options = {"block_config": (1, 1, 1, 1)} | options
    elif not name.startswith(("ac_alexnet", "cifar", "ghostnet", "tied_efficientnet")):  # timm's ResNet
        options = {"layers": (1, 1, 1, 1), "channels": (64, 64, 64, 64)} | options
    return timm.create_model(name, **options)


def shaped(name: str, **options: Any) -> Any:
    """A small network that has shapes, and no numbers."""
    with torch.device("meta"):
        return small(name, **options).eval()


def trained(name: str, **options: Any) -> Any:
    """A small network with numbers, its norms with random statistics."""
    torch.manual_seed(0)
    return randomised(small(name, **options)).eval()


def image_size(name: str) -> tuple[int, int]:
    """Odd, and as small as the network allows with maps of several pixels everywhere."""
    return (33, 47) if "cifar" in name else (75, 101)


def images(name: str, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, *image_size(name), generator=torch.Generator().manual_seed(1))


def outlines(name: str, channels: int = 3) -> Tensor:
    return torch.empty(2, channels, *image_size(name), device="meta")


def test_the_names_are_those_of_the_papers():
    assert sorted(list_models(own=True)) == sorted(NAMES)
    for family, names in FAMILIES.items():
        assert {timm.model_entrypoint(name).__module__ for name in names} == {f"leanconv.models.{family}"}
    for pattern in ("tied_*", "ddf_*", "ac_*", "ghost*_x*", "ghost_*", "split_*", "cifar_*"):
        expected = set(fnmatch.filter(NAMES, pattern))
        assert expected
        assert expected <= set(timm.list_models(pattern))


@every_network
def test_a_whole_network_has_a_configuration_that_is_true(name):
    with torch.device("meta"):
        network = timm.create_model(name)
    known = network.pretrained_cfg
    assert known["architecture"] == name
    assert network.num_classes == known["num_classes"] == network.get_classifier().out_features
    assert network.get_classifier() is network.get_submodule(known["classifier"])
    first = network.get_submodule(known["first_conv"])
    assert first is next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    assert first.in_channels == known["input_size"][0]
    assert bool(known.get("url") or known.get("hf_hub_id")) == (name in PUBLISHED)
    assert (known["tag"] == "untrained") == (name not in PUBLISHED)


@every_distinct_network
def test_maps_come_as_the_feature_info_says(name):
    backbone = shaped(name, features_only=True)
    maps = backbone(outlines(name))
    assert [each.shape[1] for each in maps] == backbone.feature_info.channels()
    sizes = [tuple(each.shape[2:]) for each in maps]
    assert sizes == POOLED_SIZES.get(name) or sizes == [
        tuple(math.ceil(size / reduction) for size in image_size(name))
        for reduction in backbone.feature_info.reduction()
    ]


@every_distinct_network
def test_classifier_pooling_and_channels_are_as_asked_for(name):
    network = shaped(name, num_classes=7, in_chans=1, global_pool="max")
    assert network.num_classes == 7
    maps = network.forward_features(outlines(name, 1))
    assert maps.shape[:2] == (2, network.num_features)
    assert network.forward_head(maps).shape == (2, 7)
    network.reset_classifier(4)
    assert network.forward_head(maps).shape == (2, 4)
    assert network.get_classifier().out_features == network.num_classes == 4
    assert network.global_pool.pool_type == "max"
    network.reset_classifier(0, "avg")
    assert network.forward_head(maps).shape == (2, network.head_hidden_size)
    assert network.global_pool.pool_type == "avg"
    assert isinstance(network.get_classifier(), nn.Identity)
    network.reset_classifier(0, "")
    assert network.forward_head(maps).dim() == 4


@one_of_each_family
def test_only_some_of_the_maps_are_given_and_grey_images_taken(name):
    every, some = (shaped(name, features_only=True, **options)
                   for options in ({}, {"out_indices": (0, 2), "in_chans": 1}))
    first, _, third, *_ = every(outlines(name))
    assert [each.shape for each in some(outlines(name, 1))] == [first.shape, third.shape]


@one_of_each_family
def test_networks_without_a_classifier_or_with_other_pooling_are_built(name):
    pooled, whole = shaped(name, num_classes=0), shaped(name, num_classes=0, global_pool="")
    assert pooled(outlines(name)).shape == (2, pooled.head_hidden_size)
    assert whole(outlines(name)).dim() == 4


@one_of_each_family
def test_features_and_head_make_the_whole(name):
    network, input = trained(name), images(name)
    with torch.no_grad():
        maps = network.forward_features(input)
        torch.testing.assert_close(network.forward_head(maps), network(input))
        before = network.forward_head(maps, pre_logits=True)
        torch.testing.assert_close(network.get_classifier()(before), network(input))
        if hasattr(network, "forward_intermediates"):
            last, between = network.forward_intermediates(input)
            torch.testing.assert_close(last, maps)
            assert [each.shape[1] for each in between] == [info["num_chs"] for info in network.feature_info]
            _, [second] = network.forward_intermediates(input, indices=[1])
            torch.testing.assert_close(second, between[1])
        network.reset_classifier(0)
        torch.testing.assert_close(network(input), before)


@one_of_each_family
def test_checkpointing_gradients_changes_no_number(name):
    network, input = trained(name).train(), images(name)
    results, kept = [], []
    for enable in (False, True):
        network.set_grad_checkpointing(enable)
        network.zero_grad()
        torch.manual_seed(1)
        saved: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor, saved=saved: saved.append(tensor) or tensor, same):
            output = network(input)
        output.square().mean().backward()
        results.append([output, *(parameter.grad for parameter in network.parameters())])
        kept.append(len(saved))
    assert kept[1] < kept[0]
    torch.testing.assert_close(*results)


def same(tensor: Tensor) -> Tensor:
    return tensor


@one_of_each_family
def test_weights_come_back_from_a_file(name, tmp_path):
    network, input = trained(name), images(name)
    file = tmp_path / "weights.pth"
    torch.save(network.state_dict(), file)
    again = shaped(name).to_empty(device="cpu")
    load_state(again, file)
    timms = small(name, checkpoint_path=str(file)).eval()
    with torch.no_grad():
        assert torch.equal(again(input), network(input))
        assert torch.equal(timms(input), network(input))


@one_of_each_family
def test_a_fused_network_gives_the_same(name):
    network, input = trained(name), images(name)
    with torch.no_grad():
        torch.testing.assert_close(leanconv.fuse(network, input)(input), network(input), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in PUBLISHED])
def test_weights_that_do_not_exist_are_refused(name):
    with torch.device("meta"), pytest.raises(ValueError, match=f"model '{name}' can't be built: No pretrained weights"):
        create(name, pretrained=True)


@pytest.mark.parametrize(("name", "remedy"), [
    ("ghostnet_x050", "Of its family, these have some: ghostnet_x100"),
    ("cifar_vgg16", "None of its family has any"),  # though timm has VGGs that do
])
def test_the_next_of_kin_with_weights_is_named(name, remedy):
    with pytest.raises(ValueError, match=remedy):
        create(name, pretrained=True)


@one_of_each_family
def test_an_unknown_option_is_refused(name):
    with torch.device("meta"), pytest.raises((TypeError, ValueError), match="no_such_option"):
        create(name, no_such_option=1)
