"""Joint upsampling networks: their parameters, the steps against loops over pixels, what they refuse, export."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from leanconv.models.ddf_up_net import DDFUpNet
from leanconv.models.pac_net import PACNet, PACUp
from leanconv.nn import DDFUp

NETWORKS = (DDFUpNet, PACNet)


def pair(factor: int, height: int = 3, width: int = 4, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(batch, 1, height, width), torch.rand(batch, 3, height * factor, width * factor)


@pytest.mark.parametrize(("factor", "parameters"), [(4, 156_921), (8, 182_085), (16, 207_249)])
def test_parameters(factor, parameters) -> None:
    with torch.device("meta"):
        network = DDFUpNet(factor)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_three_modules_of_a_feature_pyramid_take_0_582_g_macs() -> None:
    """At 800 x 1280: the convolutions, and a multiply-accumulate for each tap of each output value."""
    total = 0.0
    with torch.device("meta"):
        layer = DDFUp(256)
        for height, width in ((25, 40), (50, 80), (100, 160)):
            with FlopCounterMode(display=False) as counter:
                layer.channel_branch(torch.empty(1, 256, height, width))
                layer.spatial_branch(layer.depthwise(torch.empty(1, 1024, height, width)))
            total += counter.get_total_flops() / 2 + 4 * 256 * 9 * height * width
    assert round(total / 1e9, 3) == 0.582


@pytest.mark.parametrize("factor", [2, 8])
def test_the_network_is_its_parts(factor) -> None:
    """Each step gets its 16 channels of the image's features, at the size that the step comes to."""
    network = DDFUpNet(factor).eval()
    depth, image = pair(factor)
    features, guidance = depth, image
    for layer in (network.depth_features[0], F.relu, network.depth_features[2], F.relu, network.depth_features[4]):
        features = layer(features)
    for layer in (network.image_features[0], F.relu, network.image_features[2], F.relu, network.image_features[4]):
        guidance = layer(guidance)
    for number, step in enumerate(network.steps):
        size = (6 * 2**number, 8 * 2**number)
        own = F.interpolate(guidance[:, 16 * number : 16 * number + 16], size, mode="bilinear", align_corners=False)
        features = F.relu(step(features, own))
    expected = network.head[2](F.relu(network.head[0](features)))
    assert guidance.shape[1] == 16 * len(network.steps)
    torch.testing.assert_close(network(depth, image), expected)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 3)])
def test_any_low_size_and_channels_last(network, height, width) -> None:
    torch.manual_seed(0)
    network = network(4).eval()
    depth, image = pair(4, height, width)
    output = network(depth, image)
    assert output.shape == (2, 1, 4 * height, 4 * width)
    turned = network.to(memory_format=torch.channels_last)(depth, image.to(memory_format=torch.channels_last))
    torch.testing.assert_close(turned, output, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("network", NETWORKS)
def test_everything_learns(network) -> None:
    network = network(4)
    network(*pair(4)).square().sum().backward()
    assert [name for name, tensor in network.named_parameters() if tensor.grad is None or not tensor.grad.any()] == []


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("factor", [0, 1, 3, 12])
def test_refused_factors(network, factor) -> None:
    with pytest.raises(ValueError, match=rf"factor must be a power of two, 2 or more, got {factor}"):
        network(factor)


@pytest.mark.parametrize(
    ("depth", "image", "message"),
    [
        ((2, 1, 3, 4), (2, 3, 12, 15), r"image must be \(2, 3, 12, 16\), 4 times .* got \(2, 3, 12, 15\)"),
        ((2, 1, 3, 4), (1, 3, 12, 16), r"image must be \(2, 3, 12, 16\)"),
        ((2, 3, 3, 4), (2, 3, 12, 16), r"depth must be \(N, 1, h, w\), got \(2, 3, 3, 4\)"),
        ((3, 4), (2, 3, 12, 16), r"depth must be"),
    ],
)
def test_refused_maps(depth, image, message) -> None:
    with pytest.raises(ValueError, match=message):
        DDFUpNet(4)(torch.rand(depth), torch.rand(image))


def test_options_reach_the_steps() -> None:
    network = DDFUpNet(2, kernel_size=5, combine="add", eps=1e-5, depth_channels=2, image_channels=1)
    assert network.steps[0].kernel_size == (5, 5)
    assert network.steps[0].combine == "add"
    assert network(torch.rand(1, 2, 3, 3), torch.rand(1, 1, 6, 6)).shape == (1, 2, 6, 6)


@pytest.mark.parametrize("network", NETWORKS)
def test_export_with_free_sizes(network) -> None:
    network = network(2).eval()
    height, width = torch.export.Dim("height", min=2, max=64), torch.export.Dim("width", min=2, max=64)
    shapes = ({2: height, 3: width}, {2: 2 * height, 3: 2 * width})
    program = torch.export.export(network, pair(2, 5, 6), dynamic_shapes=shapes)
    inputs = pair(2, 7, 9)
    torch.testing.assert_close(program.module()(*inputs), network(*inputs), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_pac_is_its_equation() -> None:
    """Loops over output and input pixels: a tap counts where the guidance at both is alike."""
    layer = PACUp(3).double()
    input, guidance = torch.randn(2, 3, 3, 4).double(), torch.randn(2, 5, 6, 8).double()
    weight = layer.conv.weight
    expected = layer.conv.bias[:, None, None].repeat(2, 1, 6, 8)
    for row in range(6):
        for column in range(8):
            for i in range(3):
                for j in range(4):
                    down, right = row - 2 * i, column - 2 * j
                    if abs(down) <= 2 and abs(right) <= 2:
                        unlike = (guidance[:, :, row, column] - guidance[:, :, 2 * i, 2 * j]).square().sum(1)
                        values = input[:, :, i, j] @ weight[:, :, down + 2, right + 2]
                        expected[:, :, row, column] += (-unlike / 2).exp()[:, None] * values
    torch.testing.assert_close(layer(input, guidance), expected)


def test_pac_with_a_constant_guidance_is_a_transposed_convolution() -> None:
    layer = PACUp(4)
    input = torch.randn(2, 4, 5, 3)
    assert isinstance(layer.conv, nn.ConvTranspose2d)
    torch.testing.assert_close(layer(input, torch.ones(2, 3, 10, 6)), layer.conv(input), atol=1e-5, rtol=1e-4)
