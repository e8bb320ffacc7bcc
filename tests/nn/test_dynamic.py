"""What is the dynamic layers' own: published checkpoints and counts, how filters start, guidance, the fused way."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from contract.dynamic_cases import ddf, ddf_up
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from leanconv import ops
from leanconv.nn import DDF, DDFUp, FilterNorm
from leanconv.nn.dynamic import pointwise


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance, check_stride=False)


def gradients(layer: nn.Module, output: Tensor, *inputs: Tensor) -> list[Tensor]:
    sensitivity = torch.randn(output.shape, generator=torch.Generator().manual_seed(5)).to(output)
    return list(torch.autograd.grad(output, [*inputs, *layer.parameters()], sensitivity))


@st.composite
def layers(draw, kernels):
    heads = draw(st.sampled_from([1, 1, 2, 3]))
    options = {
        "channels": heads * draw(st.integers(1, 4)), "kernel_size": draw(st.sampled_from(kernels)), "heads": heads,
        "squeeze_ratio": draw(st.sampled_from([0.1, 0.2, 1.0])), "combine": draw(st.sampled_from(["mul", "add"])),
        "eps": draw(st.sampled_from([None, 1e-5])),
    }
    batch = draw(st.integers(1, 2))
    size = (draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    memory_format = draw(st.sampled_from([torch.contiguous_format, torch.channels_last]))
    return options, batch, size, memory_format


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(layers([3, 3, 5, (1, 3), (5, 1)]), st.sampled_from([1, 1, 2, 3, (2, 1)]), st.sampled_from([1, 1, 2, (1, 3), 8]),
       st.sampled_from(["relu", "linear"]))
def test_ddf_is_the_definition(problem, stride, dilation, nonlinearity) -> None:
    options, batch, size, memory_format = problem
    layer = DDF(**options, stride=stride, dilation=dilation, nonlinearity=nonlinearity, dtype=torch.float64)
    input = torch.randn(batch, options["channels"], *size, dtype=torch.float64).contiguous(memory_format=memory_format)
    input.requires_grad_()
    ours, theirs = layer(input), ddf(layer, input)
    for actual, expected in zip([ours, *gradients(layer, ours, input)], [theirs, *gradients(layer, theirs, input)],
                                strict=True):
        close(actual, expected, 1e-9)
    with torch.no_grad():
        close(layer(input), theirs, 1e-9)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(layers([3, 3, 5, (1, 3)]), st.sampled_from([2, 2, 3]), st.sampled_from([None, 1, 9, 36]), st.booleans(),
       st.sampled_from([1, 3, (3, 5)]))
def test_ddf_up_is_the_definition(problem, scale, guide_channels, large, depthwise_kernel_size) -> None:
    options, batch, size, memory_format = problem
    layer = DDFUp(**options, scale=scale, guide_channels=guide_channels, depthwise_kernel_size=depthwise_kernel_size,
                  dtype=torch.float64)
    inputs = [torch.randn(batch, options["channels"], *size, dtype=torch.float64)]
    folded = guidance = None
    if guide_channels is not None:
        guidance = folded = torch.randn(batch, guide_channels, *size, dtype=torch.float64, requires_grad=True)
        if large and guide_channels % scale**2 == 0:
            guidance = F.pixel_shuffle(folded, scale)
    input = inputs[0].contiguous(memory_format=memory_format).requires_grad_()
    leaves = [input] if folded is None else [input, folded]
    ours, theirs = layer(input, guidance), ddf_up(layer, input, folded)
    assert ours.shape == (batch, options["channels"], *(scale * extent for extent in size))
    for actual, expected in zip([ours, *gradients(layer, ours, *leaves)], [theirs, *gradients(layer, theirs, *leaves)],
                                strict=True):
        close(actual, expected, 1e-9)
    with torch.no_grad():
        close(layer(input, guidance), theirs, 1e-9)


@pytest.mark.parametrize("size", [7, 13, 14, 15])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("dilation", [1, 8, 11])
def test_size_is_conv2ds(size, stride, kernel_size, dilation) -> None:
    """Odd sizes with stride, and dilations from 8 on, end the published layer."""
    layer = DDF(4, kernel_size, stride, dilation).double()
    input = torch.randn(2, 4, size, size + 1).double()
    conv = F.conv2d(input, torch.randn(4, 4, kernel_size, kernel_size).double(), None, stride,
                    dilation * (kernel_size - 1) // 2, dilation)
    output = layer(input)
    assert output.shape == conv.shape
    close(output, ddf(layer, input), 1e-10)


@pytest.mark.parametrize(("channels", "expected"), [(64, 9_429), (128, 35_490), (256, 137_532), (512, 536_175)])
def test_parameters(channels, expected) -> None:
    assert parameters(DDF(channels)) == expected


def test_parameters_of_ddf_up() -> None:
    """With a depthwise convolution for each branch, as the paper's Table 6 counts them; and PAC-Net's guidance."""
    assert parameters(DDFUp(256)) == 560_368
    target = 25 * 32 + 32 + 2 * (25 * 32 * 32 + 32)
    guide = 25 * 3 * 32 + 32 + 2 * (25 * 32 * 32 + 32)
    last = 25 * 32 * 32 + 32 + 25 * 32 + 1
    assert target + guide + last + 2 * parameters(DDFUp(32, guide_channels=4 * 16)) == 156_921


@pytest.mark.parametrize(
    ("channels", "ratio", "hidden"), [(1, 0.2, 1), (4, 0.2, 1), (5, 0.2, 1), (64, 0.2, 12), (8, 1, 8)]
)
def test_hidden_channels(channels, ratio, hidden) -> None:
    layer = DDF(channels, squeeze_ratio=ratio).double()
    assert layer.channel_branch[1].weight.shape[0] == hidden
    input = torch.randn(2, channels, 5, 5).double()
    close(layer(input), ddf(layer, input), 1e-10)


def test_published_checkpoints_load() -> None:
    channels, hidden, taps = 16, 3, 9
    checkpoint = {
        "spatial_branch.0.weight": torch.randn(taps, channels, 1, 1),
        "spatial_branch.0.bias": torch.randn(taps),
        "channel_branch.1.weight": torch.randn(hidden, channels, 1, 1),
        "channel_branch.1.bias": torch.randn(hidden),
        "channel_branch.3.weight": torch.randn(channels * taps, hidden, 1, 1),
        "channel_branch.3.bias": torch.randn(channels * taps),
        "channel_branch.4.std": torch.randn(channels * taps),
    }
    layer = DDF(channels)
    assert list(layer.state_dict()) == list(checkpoint)
    layer.load_state_dict(checkpoint, strict=True)
    assert torch.equal(layer.channel_branch[4].std, checkpoint["channel_branch.4.std"])


@pytest.mark.parametrize(("nonlinearity", "alpha"), [("relu", math.sqrt(2) / 3), ("linear", 1 / 3)])
def test_filters_at_the_start(nonlinearity, alpha) -> None:
    """mean z² = 8 / 9 as the deviation is the unbiased one; half of a learned α is negative."""
    torch.manual_seed(0)
    filters = torch.randn(400, 100 * 9)
    fixed = FilterNorm(100, 3, nonlinearity=nonlinearity)
    assert not fixed.state_dict()
    assert fixed(filters).square().mean().item() == pytest.approx(alpha**2 * 8 / 9, rel=1e-4)
    learned = FilterNorm(1000, 3, nonlinearity=nonlinearity, learn_scale=True, learn_shift=True)
    assert learned.std.shape == learned.mean.shape == (9000,)
    assert learned.std.std().item() == pytest.approx(alpha, rel=0.03)
    assert (learned.std < 0).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert learned.mean.std().item() == pytest.approx(1, rel=0.03)
    assert FilterNorm(1, (3, 5)).scale == pytest.approx(math.sqrt(2 / 15))


def test_output_at_the_start() -> None:
    """E[y²] / E[x²] = 9 · (16 / 81)² = 0.35 by the filters' second moments; a little less at the borders."""
    torch.manual_seed(0)
    input = torch.randn(4, 256, 28, 28)
    with torch.no_grad():
        ratio = DDF(256)(input).square().mean() / input.square().mean()
    assert ratio.item() == pytest.approx(0.33, rel=0.15)


def test_filter_norm_of_maps_and_vectors() -> None:
    norm = FilterNorm(2, 3, learn_scale=True, learn_shift=True).double()
    filters = torch.randn(3, 18, 4, 5).double()
    expected = torch.stack([norm(filters[:, :, row, column]) for row in range(4) for column in range(5)], -1)
    close(norm(filters).flatten(2), expected, 1e-12)
    one = filters[1, 9:, 2, 3]
    by_hand = (one - one.mean()) / one.std() * norm.std[9:] + norm.mean[9:]
    close(norm(filters)[1, 9:, 2, 3], by_hand, 1e-9)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: FilterNorm(4, 1), r"at least two taps.*\(1, 1\)"),
    (lambda: FilterNorm(4, 0), r"at least two taps.*\(0, 0\)"),
    (lambda: FilterNorm(0, 3), r"filters .* got 0"),
    (lambda: FilterNorm(4, 3, nonlinearity="gelu"), r"nonlinearity 'gelu'"),
    (lambda: FilterNorm(4, 3, eps=-1), r"eps .* got -1"),
    (lambda: FilterNorm(4, 3)(torch.randn(2, 27)), r"\(N, 36, ...\), got shape \(2, 27\)"),
])
def test_filter_norm_refuses(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("combine", ["mul", "add"])
def test_ddf_up_is_a_ddf_for_each_sub_pixel(scale, combine) -> None:
    """With the input as guidance: `pixel_shuffle` of DDFs that have one branch's weights each."""
    up = DDFUp(6, scale, heads=2, combine=combine, guide_channels=6).double()
    branches = scale**2
    input = torch.randn(2, 6, 5, 4).double()
    outputs = []
    for branch in range(branches):
        one = DDF(6, heads=2, combine=combine, nonlinearity="linear").double()
        one.load_state_dict({name: tensor.chunk(branches)[branch] for name, tensor in up.state_dict().items()})
        outputs.append(one(input))
    close(up(input, input), F.pixel_shuffle(torch.stack(outputs, 2).flatten(1, 2), scale), 1e-10)


def test_sub_pixels_are_row_major() -> None:
    """With filters that pick the pixel itself, times the branch's number, each sub-pixel shows that number."""
    layer = DDFUp(1, 2, guide_channels=1, combine="mul")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        peak = torch.tensor([0.0] * 4 + [1.0] + [0.0] * 4)
        layer.spatial_branch[0].bias.copy_(peak.repeat(4))
        layer.channel_branch[3].bias.copy_(peak.repeat(4))
        layer.channel_branch[4].std.copy_(torch.cat([peak * number for number in (1, 2, 3, 4)]))
        output = layer(torch.ones(1, 1, 2, 3), torch.zeros(1, 1, 2, 3))[0, 0]
    close(output / output[0, 0], torch.tensor([[1.0, 2], [3, 4]]).repeat(2, 3))


def test_guidance_of_the_outputs_size_is_folded() -> None:
    layer = DDFUp(4, 2, guide_channels=12)
    input, guidance = torch.randn(2, 4, 5, 6), torch.randn(2, 3, 10, 12)
    close(layer(input, guidance), layer(input, F.pixel_unshuffle(guidance, 2)))
    close(layer(input[0], guidance[0]), layer(input, guidance)[0])
    moved = guidance.clone()
    moved[:, :, 4, 7] += 1  # the guidance of input pixel (2, 3) reaches the output there, and nowhere else
    changed = (layer(input, moved) != layer(input, guidance)).any(1).any(0).nonzero()
    assert changed.amin(0).tolist() == [4, 6]
    assert changed.amax(0).tolist() == [5, 7]
    empty = layer(input[:0], guidance[:0])
    assert empty.shape == (0, 4, 10, 12)


@pytest.mark.parametrize(("guide_channels", "shape", "message"), [
    (None, (2, 8, 5, 6), r"without guide_channels"),
    (8, None, r"guidance must have shape \(2, 8, 5, 6\) or \(2, 2, 10, 12\), got None"),
    (8, (2, 8, 10, 12), r"or \(2, 2, 10, 12\), got \(2, 8, 10, 12\)"),
    (8, (2, 8, 6, 5), r"\(2, 8, 5, 6\) or .*, got \(2, 8, 6, 5\)"),
    (8, (1, 8, 5, 6), r"got \(1, 8, 5, 6\)"),
    (3, (2, 3, 10, 12), r"shape \(2, 3, 5, 6\), got \(2, 3, 10, 12\)"),
])
def test_ddf_up_refuses_guidance(guide_channels, shape, message) -> None:
    layer = DDFUp(4, guide_channels=guide_channels)
    with pytest.raises(ValueError, match=message):
        layer(torch.randn(2, 4, 5, 6), None if shape is None else torch.randn(shape))


def test_no_gradient_is_asked_for_in_inference() -> None:
    """Normalised on the way or before: the same numbers, with gradients off and on."""
    for layer, channels in ((DDF(12, 5, heads=3, eps=1e-5), 12), (DDFUp(10, 3, combine="add"), 10)):
        input = torch.randn(2, channels, 9, 8)
        recorded = layer(input)
        assert recorded.requires_grad
        with torch.no_grad():
            close(layer(input), recorded)
        frozen = layer.requires_grad_(False)(input)
        assert not frozen.requires_grad
        close(frozen, recorded)
        assert torch.autograd.grad(layer(input.requires_grad_()).sum(), input)[0].any()


def test_flat_filters_are_safe_with_eps() -> None:
    """Generating convolutions that start at zero: the safe form gives finite gradients, also in half precision."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        layer = DDF(8, eps=1e-5, dtype=dtype)
        for conv in (layer.spatial_branch[0], layer.channel_branch[3]):
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(conv.bias)
        output = layer(torch.randn(2, 8, 5, 5, dtype=dtype))
        output.square().sum().backward()
        assert torch.isfinite(output).all()
        assert all(torch.isfinite(parameter.grad).all() for parameter in layer.parameters())


@pytest.mark.parametrize("padding", [(2, 6), "same"])
def test_from_conv_takes_what_a_convolution_is(padding) -> None:
    conv = nn.Conv2d(6, 6, (3, 5), 1, padding, (2, 3), groups=2, dtype=torch.float64).eval()
    layer = DDF.from_conv(conv, heads=2, combine="add", eps=1e-5)
    assert (layer.kernel_size, layer.stride, layer.dilation) == ((3, 5), (1, 1), (2, 3))
    assert (layer.heads, layer.combine, layer.spatial_branch[1].eps) == (2, "add", 1e-5)
    assert not layer.training
    input = torch.randn(2, 6, 7, 9, dtype=torch.float64)
    assert layer(input).shape == conv(input).shape


def test_from_conv_refuses_other_layers() -> None:
    with pytest.raises(TypeError, match=r"ConvTranspose2d"):
        DDF.from_conv(nn.ConvTranspose2d(4, 4, 3))


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 1)])
@pytest.mark.parametrize("channels", [1, 6])
def test_pointwise_is_a_convolution(stride, channels) -> None:
    weight, bias = torch.randn(9, channels, 1, 1), torch.randn(9)
    wide = torch.randn(2, channels + 2, 7, 6)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        for input in (wide[:, 1:-1].contiguous(memory_format=memory_format),
                      wide.contiguous(memory_format=memory_format)[:, 1:-1]):
            close(pointwise(input, weight, bias, stride), F.conv2d(input, weight, bias, stride))


def test_layers_are_their_function() -> None:
    """What a layer generates, given to `ops.ddf`, gives what the layer gives."""
    layer = DDF(8, stride=2)
    input = torch.randn(2, 8, 9, 9)
    channel, spatial = layer.channel_branch(input), layer.spatial_branch(input)
    close(layer(input), ops.ddf(input, channel.view(2, 8, 3, 3), spatial, stride=2))
