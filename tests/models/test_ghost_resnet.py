from __future__ import annotations

from functools import partial

import pytest
import torch
from models.small_resnet import block_inputs, costs, images, real, small
from torch import Tensor, nn

import leanconv as lc
from leanconv.models import create
from leanconv.models.ghost_resnet import GhostBottleneck
from leanconv.nn import GhostConv2d

NAMES = ["ghost_resnet50_s2", "ghost_resnet50_s4"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ghost_resnet50_s2", (13_953_512, 2_151_023_360)), ("ghost_resnet50_s4", (8_151_752, 1_181_942_912))],
)
def test_costs_are_those_counted_for_the_authors_description(name, expected):
    assert costs(real(name)) == expected


def test_without_ghosts_it_costs_what_the_plain_network_does():
    assert costs(real("ghost_resnet50_s2", ratio=1)) == (25_557_032, 4_089_184_256)


def test_every_convolution_but_the_stem_is_a_ghost_module():
    model = real("ghost_resnet50_s4", cheap_kernel_size=5)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, GhostConv2d)}
    assert len(layers) == 52
    assert {layer.ratio for layer in layers.values()} == {4}
    assert {layer.cheap.kernel_size for layer in layers.values()} == {(5, 5)}
    rest = [name for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d) and not any(name.startswith(path) for path in layers)]
    assert rest == ["conv1", "bn1"]
    rectified = [name for name, layer in layers.items() if type(layer.activation) is nn.ReLU]
    assert rectified == [name for name in layers if name.endswith(("conv1", "conv2"))]


def ghost(layer: GhostConv2d, input: Tensor, rectify: bool) -> Tensor:
    """The paper's equations 2 and 3, with norms."""
    rest = torch.relu if rectify else torch.nn.Identity()
    intrinsic = rest(layer.primary_norm(layer.primary(input)))
    ghosts = rest(layer.cheap_norm(layer.cheap(intrinsic)))
    return torch.cat([intrinsic, ghosts], 1)[:, : layer.out_channels]


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_a_block_is_three_ghost_modules_and_a_shortcut_with_another(ratio):
    seen = block_inputs(small("ghost_resnet50_s2", ratio=ratio, channels=(8, 16, 32, 32)), images(2, 3, 65, 61))
    for block, input, output in seen.values():
        inner = ghost(block.conv2, ghost(block.conv1, input, True), True)
        expected = ghost(block.conv3, inner, False) + ghost(block.downsample[0], input, False)
        torch.testing.assert_close(output, expected.relu(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("avg_down", [False, True])
def test_fused_is_equal_and_has_no_norm(name, avg_down):
    model, input = small(name, avg_down=avg_down), images(2, 3, 33, 35)
    fused = lc.fuse(model, input[:1])
    assert fused.fusion.error < 1e-10
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert sum(isinstance(module, GhostConv2d) for module in fused.modules()) == 12 + 3
    assert all(layer.tail_is_plain for layer in fused.modules() if isinstance(layer, GhostConv2d))
    torch.testing.assert_close(fused(input), model(input), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("ratio", [1, 2])
def test_a_block_starts_as_its_shortcut(ratio):
    block = GhostBottleneck(32, 8, ratio=ratio)
    block.zero_init_last()
    input = torch.randn(2, 32, 5, 5)
    assert torch.equal(block(input), input.relu())
    assert ratio == 1 or not block.conv3.cheap_norm.weight.any(), "or the first gradients are huge"


def test_norms_keep_the_settings_that_they_were_asked_for():
    model = real("ghost_resnet50_s2", norm_layer=lambda *args, **options: nn.BatchNorm2d(*args, eps=1e-3, **options))
    assert {norm.eps for norm in model.modules() if isinstance(norm, nn.BatchNorm2d)} == {1e-3}


def test_activations_are_the_networks():
    model = real("ghost_resnet50_s2", act_layer="silu")
    layers = [layer for layer in model.modules() if isinstance(layer, GhostConv2d)]
    assert {type(layer.activation) for layer in layers} == {nn.SiLU, nn.Identity}
    leaky = real("ghost_resnet50_s2", act_layer=partial(nn.LeakyReLU, negative_slope=0.3))
    slopes = {layer.activation.negative_slope for layer in leaky.modules()
              if isinstance(layer, GhostConv2d) and not isinstance(layer.activation, nn.Identity)}
    assert slopes == {0.3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0}, "ratio must be a whole number of at least 1, got 0"),
        ({"cheap_kernel_size": 4}, "cheap_kernel_size must be odd, got 4"),
        ({"norm_layer": "groupnorm"}, "norm_layer must be nn.BatchNorm2d, which GhostConv2d brings along, got timm"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        real("ghost_resnet50_s2", **options)


def test_there_are_no_weights_to_download():
    with pytest.raises(ValueError, match="No pretrained weights exist for ghost_resnet50_s2"):
        create("ghost_resnet50_s2", pretrained=True, layers=(1, 1, 1, 1))
