"""The Ghost module against its definition and timm's, its inference form, and its start from a trained convolution."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from contract.ghost_cases import ghost
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from leanconv.nn import GhostConv2d

ACTIVATIONS = [nn.ReLU, nn.ReLU, nn.ReLU, None, nn.SiLU, nn.PReLU]


def randomised(layer: nn.Module, seed: int = 0) -> nn.Module:
    """Norms with statistics of their own, as after training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm in layer.modules():
            if isinstance(norm, nn.BatchNorm2d):
                for tensor in (norm.running_mean, norm.bias):
                    tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
                for tensor in (norm.running_var, norm.weight):
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return layer


@st.composite
def problems(draw):
    groups, ratio = draw(st.sampled_from([1, 1, 1, 2, 3])), draw(st.sampled_from([1, 2, 2, 2, 3, 4]))
    intrinsic = groups * draw(st.integers(1, 3))
    outputs = intrinsic * ratio - draw(st.integers(0, ratio - 1))
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (3, 3), (1, 3), (2, 2), (5, 1)]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.float64, torch.bfloat16]))
    stride, dilation = ((draw(st.integers(1, 3)), draw(st.integers(1, 3))) for _ in range(2))
    mode = draw(st.sampled_from(["zeros", "zeros", "zeros", "reflect", "replicate", "circular"]))
    padding = (draw(st.integers(0, 2)), draw(st.integers(0, 2)))
    height, width = (
        max(draw(st.integers(1, 9)), p + 1, d * (k - 1) + 1 - 2 * p)
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    )
    arguments = (groups * draw(st.integers(1, 2)), outputs, kernel, stride, padding, dilation, groups, False, mode)
    options = dict(ratio=ratio, cheap_kernel_size=draw(st.sampled_from([1, 3, 3, 5])),
                   activation=draw(st.sampled_from(ACTIVATIONS)))
    layout = draw(st.sampled_from(["contiguous", "channels_last", "slice", "channels_last slice", "transposed"]))
    return (arguments, options, draw(st.integers(0, 3)), height, width, layout, dtype, draw(st.booleans()),
            draw(st.booleans()), draw(st.integers(0, 999)))


def laid_out(input, layout: str):
    if layout == "transposed":
        return input.transpose(2, 3).contiguous().transpose(2, 3)
    memory_format = torch.channels_last if "channels_last" in layout else torch.contiguous_format
    wide = torch.cat([input, input], 1) if "slice" in layout else input
    return wide.contiguous(memory_format=memory_format)[:, : input.shape[1]]


def close(actual, expected, dtype) -> None:
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 8e-2}[dtype]
    actual, expected = actual.detach(), expected.detach()
    assert actual.dtype == dtype
    scale = max(float(expected.abs().max()), 1.0) if expected.numel() else 1.0
    torch.testing.assert_close(actual.double() / scale, expected.double() / scale, rtol=0, atol=tolerance,
                               check_stride=False)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems())
def test_is_its_definition(problem) -> None:
    """With gradients, without, with norms and folded: against float64, in memory that is filled with NaN."""
    arguments, options, batch, height, width, layout, dtype, weights_last, folded, seed = problem
    torch.manual_seed(seed)
    exact = randomised(GhostConv2d(*arguments, dtype=torch.float64, **options), seed).eval()
    if folded:
        exact = exact.fused()
    layer = copy.deepcopy(exact).to(dtype)
    exact.load_state_dict(layer.state_dict())  # as rounded
    if weights_last:  # which alone don't decide about the output's format
        layer = layer.to(memory_format=torch.channels_last)
    input = laid_out(torch.randn(batch, arguments[0], height, width).to(dtype), layout)
    expected = ghost(exact, input.double())
    torch.use_deterministic_algorithms(True)
    try:
        torch.backends.mkldnn.set_flags(dtype != torch.bfloat16)  # in which its convolutions of tiny maps give garbage
        with torch.no_grad():
            output = layer(input)
            close(output, expected, dtype)
            assert output.is_contiguous(memory_format=torch.channels_last if input.stride(1) == 1 else
                                        torch.contiguous_format)
        leaf, exact_leaf = input.clone().requires_grad_(), input.double().requires_grad_()
        output, expected = layer(leaf), ghost(exact, exact_leaf)
        close(output, expected, dtype)
        if batch and dtype != torch.bfloat16:
            sensitivity = torch.randn(expected.shape, dtype=torch.float64)
            ours = torch.autograd.grad(output, [leaf, *layer.parameters()], sensitivity.to(dtype))
            theirs = torch.autograd.grad(expected, [exact_leaf, *exact.parameters()], sensitivity)
            for actual, gradient in zip(ours, theirs, strict=True):
                close(actual, gradient, dtype)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.mkldnn.set_flags(True)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("outputs", "ratio"), [(8, 2), (9, 2), (10, 4), (5, 3)])
def test_first_channels_are_the_primary_output(outputs, ratio, memory_format) -> None:
    layer = randomised(GhostConv2d(6, outputs, 3, 2, 1, ratio=ratio)).eval().to(memory_format=memory_format)
    input = torch.randn(2, 6, 7, 9).to(memory_format=memory_format)
    for module in (layer, layer.fused()):
        intrinsic = module.activation(module.primary_norm(module.primary(input)))
        assert intrinsic.shape[1] == -(-outputs // ratio)
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                output = module(input)
            assert output.shape == (2, outputs, 4, 5)
            assert output.is_contiguous(memory_format=memory_format)
            assert torch.equal(output[:, : intrinsic.shape[1]], intrinsic)


@pytest.mark.parametrize(("outputs", "ratio"), [(9, 2), (10, 4), (1, 2)])
def test_truncation_keeps_the_first_ghosts(outputs, ratio) -> None:
    """The narrower layer with the same weights is the wider one, cut."""
    wide = -(-outputs // ratio) * ratio
    layer = randomised(GhostConv2d(4, outputs, 1, ratio=ratio)).eval()
    whole = GhostConv2d(4, wide, 1, ratio=ratio).eval()
    whole.load_state_dict(layer.state_dict())
    input = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(layer(input), whole(input)[:, :outputs])


@pytest.mark.parametrize("activation", [nn.ReLU, None])
def test_ratio_of_one_is_a_plain_convolution(activation) -> None:
    layer = randomised(GhostConv2d(4, 6, 3, padding=1, ratio=1, activation=activation)).eval()
    assert layer.cheap is None
    input = torch.randn(2, 4, 5, 5)
    plain = layer.primary_norm(layer.primary(input))
    expected = plain if activation is None else plain.relu()
    torch.testing.assert_close(layer(input), expected)
    torch.testing.assert_close(layer.fused()(input), expected, rtol=1e-5, atol=1e-5)
    again = GhostConv2d.from_conv(layer.primary, layer.primary_norm, ratio=1, activation=activation)
    assert torch.equal(again(input), layer(input))


@pytest.mark.parametrize(("outputs", "kernel", "stride", "cheap"), [(8, 1, 1, 3), (9, 3, 2, 3), (12, 3, 1, 5)])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("ratio", [2, 3])
def test_timms_state_dict_loads_by_position(outputs, kernel, stride, cheap, training, ratio) -> None:
    """timm's module applies both activations in place, and cuts as the published code does."""
    ghostnet = pytest.importorskip("timm.models.ghostnet")
    theirs = randomised(ghostnet.GhostModule(5, outputs, kernel, ratio, cheap, stride)).train(training)
    ours = GhostConv2d(5, outputs, kernel, stride, kernel // 2, ratio=ratio, cheap_kernel_size=cheap).train(training)
    state = theirs.state_dict()
    assert [tensor.shape for tensor in state.values()] == [tensor.shape for tensor in ours.state_dict().values()]
    ours.load_state_dict(dict(zip(ours.state_dict(), state.values(), strict=True)))
    input = torch.randn(2, 5, 7, 9)
    torch.testing.assert_close(ours(input), theirs(input))
    for mine, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, other)  # running statistics of a training step, too


@pytest.mark.parametrize(("outputs", "ratio"), [(8, 2), (9, 2), (10, 4)])
@pytest.mark.parametrize("activation", [nn.ReLU, None, nn.SiLU])
def test_fused_is_equal_in_float64(outputs, ratio, activation) -> None:
    layer = randomised(GhostConv2d(4, outputs, 3, 2, 1, dtype=torch.float64, ratio=ratio, activation=activation)).eval()
    layer.primary_norm.eps = 0.1
    before = copy.deepcopy(layer.state_dict())
    fused, input = layer.fused(), torch.randn(2, 4, 9, 8).double()
    torch.testing.assert_close(fused(input), layer(input), rtol=1e-12, atol=1e-12)
    assert type(fused) is GhostConv2d
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    torch.testing.assert_close(fused.fused()(input), fused(input), rtol=0, atol=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


def test_fused_is_folded_in_float64_and_keeps_the_format() -> None:
    layer = randomised(GhostConv2d(16, 32, 3)).eval().to(memory_format=torch.channels_last)
    single, double = layer.fused(), copy.deepcopy(layer).double().fused()
    assert single.primary.weight.is_contiguous(memory_format=torch.channels_last)
    for mine, exact in zip(single.parameters(), double.parameters(), strict=True):
        assert torch.equal(mine, exact.float())


def test_fused_refuses_norms_that_go_by_the_batch() -> None:
    layer = GhostConv2d(4, 8, 3)
    with pytest.raises(ValueError, match=r"call eval\(\) first"):
        layer.fused()
    layer.eval().cheap_norm.train()
    with pytest.raises(ValueError, match=r"call eval\(\) first"):
        layer.fused()
    layer.cheap_norm = nn.BatchNorm2d(4, track_running_stats=False).eval()
    with pytest.raises(ValueError, match=r"cheap_norm keeps none"):
        layer.fused()


def trained(outputs: int, *arguments, bias: bool = True, **options) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution and a norm as after training on independent pixels: the norm's statistics are the filters'."""
    conv = nn.Conv2d(5, outputs, *arguments, bias=bias, dtype=torch.float64, **options)
    norm = randomised(nn.BatchNorm2d(outputs, dtype=torch.float64))
    return conv.eval(), norm.eval()


@pytest.mark.parametrize(("outputs", "ratio"), [(8, 2), (9, 2), (11, 3), (1, 2)])
@pytest.mark.parametrize("activation", [nn.ReLU, None])
@pytest.mark.parametrize("bias", [True, False])
def test_from_conv_keeps_the_first_channels(outputs, ratio, activation, bias) -> None:
    conv, norm = trained(outputs, 3, 2, 1, bias=bias, padding_mode="reflect")
    layer = GhostConv2d.from_conv(conv, norm, ratio=ratio, activation=activation)
    assert not any(module.training for module in layer.modules())
    input = torch.randn(2, 5, 9, 8).double()
    expected = norm(conv(input)) if activation is None else norm(conv(input)).relu()
    intrinsic = -(-outputs // ratio)
    torch.testing.assert_close(layer(input)[:, :intrinsic], expected[:, :intrinsic], rtol=1e-12, atol=1e-12)
    batch = norm.train()(conv(input))
    batch = batch if activation is None else batch.relu()
    torch.testing.assert_close(layer.train()(input)[:, :intrinsic], batch[:, :intrinsic], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("geometry", [dict(padding=1), dict(stride=2), dict(stride=(1, 2), dilation=(2, 1))])
def test_from_conv_finds_ghosts_that_are_there(geometry) -> None:
    """Filters that are cheap kernels of their sources, with the statistics of independent pixels, are kept whole."""
    stride, dilation = (nn.Conv2d(1, 1, 1, **geometry).stride, nn.Conv2d(1, 1, 1, **geometry).dilation)
    sources = torch.randn(3, 5, 3, 3).double()
    dense = torch.zeros(3, 5, 2 * dilation[0] + 1, 2 * dilation[1] + 1).double()
    dense[..., :: dilation[0], :: dilation[1]] = sources
    cheap = torch.randn(3, 1, 3, 3).double()
    reach = [extent + 2 * step for extent, step in zip(dense.shape[2:], stride, strict=True)]
    composed = torch.zeros(3, 5, *reach).double()
    for row in range(3):
        for column in range(3):
            top, left = row * stride[0], column * stride[1]
            composed[..., top : top + dense.shape[2], left : left + dense.shape[3]] += (
                cheap[:, :, row, column, None, None] * dense)
    # one convolution that holds both: the sources in the middle of the ghosts' support
    conv = nn.Conv2d(5, 6, tuple(reach), stride, bias=False).double().eval()
    norm = randomised(nn.BatchNorm2d(6)).double().eval()
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[:3, :, stride[0] : -stride[0], stride[1] : -stride[1]] = dense
        conv.weight[3:] = composed
        norm.eps = 0.0
        norm.running_var.copy_(conv.weight.flatten(1).square().sum(1))
        norm.running_mean[3:] = norm.running_mean[:3] * cheap.sum((1, 2, 3))
    layer = GhostConv2d.from_conv(conv, norm, activation=None)
    input = torch.randn(2, 5, 17, 18).double()
    ours, theirs = layer(input)[..., 1:-1, 1:-1], norm(conv(input))[..., 1:-1, 1:-1]  # ghosts of the border see zeros
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("activation", [nn.ReLU, None, nn.SiLU])
@pytest.mark.parametrize("ratio", [2, 3])
def test_from_conv_gives_ghosts_the_statistics_of_what_they_replace(activation, ratio) -> None:
    """On independent pixels, for which the norm's statistics are the filters' own."""
    torch.manual_seed(0)
    conv, norm = trained(12, 3, bias=False)
    with torch.no_grad():
        conv.weight.add_(0.1)  # filters alike enough that sources tell something
        norm.running_mean.zero_()
        norm.running_var.copy_(conv.weight.flatten(1).square().sum(1))
    layer = GhostConv2d.from_conv(conv, norm, ratio=ratio, activation=activation)
    input = torch.randn(16, 5, 40, 40).double()
    expected = norm(conv(input))
    before = layer.activation(layer.primary_norm(layer.primary(input)))
    ghosts = layer.cheap_norm(layer.cheap(before))[..., 1:-1, 1:-1]
    replaced = expected[:, layer.primary.out_channels :]
    mean, variance = (ghosts.mean((0, 2, 3)), ghosts.var((0, 2, 3)))
    torch.testing.assert_close(mean, replaced.mean((0, 2, 3)), rtol=0, atol=0.05)
    torch.testing.assert_close(variance, replaced.var((0, 2, 3)), rtol=0.12, atol=0)


def test_from_conv_carries_arguments_dtype_and_frozen_weights() -> None:
    conv = nn.Conv2d(4, 8, (3, 1), (2, 1), "valid", (1, 2), dtype=torch.float64).requires_grad_(False)
    conv = conv.to(memory_format=torch.channels_last)
    norm = nn.BatchNorm2d(8, eps=0.01, momentum=0.3).eval()
    norm.weight.requires_grad_(False)
    layer = GhostConv2d.from_conv(conv, norm, activation=nn.SiLU)
    assert layer.training
    assert not layer.cheap_norm.training
    assert (layer.primary.stride, layer.primary.padding, layer.primary.dilation) == ((2, 1), "valid", (1, 2))
    assert (layer.cheap_norm.eps, layer.cheap_norm.momentum, layer.cheap_norm.num_features) == (0.01, 0.3, 4)
    assert layer.primary.weight.is_contiguous(memory_format=torch.channels_last)
    assert {name: (parameter.dtype, parameter.requires_grad) for name, parameter in layer.named_parameters()} == {
        "primary.weight": (torch.float64, False), "cheap.weight": (torch.float64, False),
        "primary_norm.weight": (torch.float32, False), "cheap_norm.weight": (torch.float32, False),
        "primary_norm.bias": (torch.float32, True), "cheap_norm.bias": (torch.float32, True)}
    plain = GhostConv2d.from_conv(conv, nn.BatchNorm2d(8, affine=False))
    assert plain.cheap_norm.weight is None


def test_from_conv_survives_dead_filters() -> None:
    """A source that is zero, or never active, tells nothing: its ghosts stay at their mean."""
    conv, norm = trained(6, 3)
    with torch.no_grad():
        conv.weight[0] = 0
        norm.bias[1] = -50
    layer = GhostConv2d.from_conv(conv, norm)
    ghosts = layer(torch.randn(2, 5, 6, 6).double())[:, 3:]
    assert ghosts.isfinite().all()
    assert not layer.cheap.weight[:2].any()
    torch.testing.assert_close(ghosts[:, :2], norm.bias[3:5].relu()[:, None, None].expand(2, 2, 4, 4))
    assert layer.cheap.weight[2].any()


def test_refusals() -> None:
    conv, norm = nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)
    with pytest.raises(TypeError, match=r"activation must be .* got ReLU\(\)"):
        GhostConv2d(4, 8, 3, activation=nn.ReLU())
    with pytest.raises(TypeError, match=r"ConvTranspose2d"):
        GhostConv2d.from_conv(nn.ConvTranspose2d(4, 8, 1), norm)
    with pytest.raises(TypeError, match=r"norm must be exactly .* got .*GroupNorm"):
        GhostConv2d.from_conv(conv, nn.GroupNorm(2, 8))
    with pytest.raises(ValueError, match=r"8 channels, got BatchNorm2d\(4"):
        GhostConv2d.from_conv(conv, nn.BatchNorm2d(4))
    with pytest.raises(ValueError, match=r"8 channels, got .*track_running_stats=False"):
        GhostConv2d.from_conv(conv, nn.BatchNorm2d(8, track_running_stats=False))
    with pytest.raises(ValueError, match=r"groups must be 1.* got 2"):
        GhostConv2d.from_conv(nn.Conv2d(4, 8, 3, groups=2), norm)


def test_parameters_are_about_a_ratio_th() -> None:
    dense = nn.Conv2d(256, 256, 3, bias=False).weight.numel()
    for ratio in (2, 4):
        layer = GhostConv2d(256, 256, 3, ratio=ratio)
        intrinsic = 256 // ratio
        weights = layer.primary.weight.numel() + layer.cheap.weight.numel()
        assert weights == dense // ratio + (256 - intrinsic) * 9


def test_training_reaches_every_parameter() -> None:
    """The cut ghosts' too, whose gradients are zero: parallel training waits for a gradient of each."""
    layer = GhostConv2d(4, 7, 3, ratio=3)
    layer(torch.randn(2, 4, 6, 6)).sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
    assert not layer.cheap.weight.grad[4:].any()


def test_unfused_statistics_move_in_training_only() -> None:
    layer = GhostConv2d(4, 8, 3)
    before = layer.cheap_norm.running_mean.clone()
    layer.eval()(torch.randn(2, 4, 6, 6))
    assert torch.equal(layer.cheap_norm.running_mean, before)
    with torch.no_grad():
        layer.train()(torch.randn(2, 4, 6, 6))
    assert not torch.equal(layer.cheap_norm.running_mean, before)
    assert F.relu(layer(torch.randn(4, 6, 6))).shape == (8, 4, 4)
