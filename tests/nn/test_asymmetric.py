"""What is the asymmetric convolution's own: norms in train mode, the one kernel, and starting from trained layers."""

from __future__ import annotations

import copy
from itertools import product

import pytest
import torch
from contract.asymmetric_cases import asymmetric_conv
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune

from leanconv.nn import AsymmetricConv2d
from leanconv.nn.asymmetric import BRANCHES


def randomised(module: nn.Module) -> nn.Module:
    """Norms as after a training: no statistic and no parameter of them is 0 or 1, and scales have both signs."""
    with torch.no_grad():
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                if norm.running_mean is not None:
                    norm.running_mean.normal_()
                    norm.running_var.uniform_(0.1, 2)
                if norm.weight is not None:
                    norm.weight.normal_()
                    norm.bias.normal_()
    return module


def relative(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    actual, expected = actual.detach(), expected.detach()
    return float((actual - expected).abs().max() / expected.abs().max())


def double(*arguments, **options) -> AsymmetricConv2d:
    return randomised(AsymmetricConv2d(*arguments, dtype=torch.float64, **options))


def span(layer: AsymmetricConv2d) -> list[int]:
    return [step * (size - 1) + 1 for step, size in zip(layer.dilation, layer.kernel_size, strict=True)]


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7, (3, 5)], ids=str)
def test_training_form_and_fused_are_the_equation(kernel, groups) -> None:
    for padding, stride, dilation in product(range(5), (1, 2, 3), (1, 2, 3)):
        layer = double(4, 8, kernel, stride, padding, dilation, groups)
        for branch in layer.branches.values():
            branch.norm.eps = 1e-3 if stride == 2 else 1e-5
        height, width = span(layer)
        input = torch.randn(2, 4, height + 3, width + 2, dtype=torch.float64)
        assert relative(layer(input), asymmetric_conv(layer, input)) < 1e-12
        expected = asymmetric_conv(layer.eval(), input)
        assert relative(layer(input), expected) < 1e-12
        assert relative(layer.fused()(input), expected) < 1e-12


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("kernel", [3, 5, (3, 7)], ids=str)
def test_padding_modes(kernel, mode) -> None:
    for padding, stride, dilation in product((0, 1, (3, 2), 4, "same", "valid"), (1, 2), (1, (2, 1))):
        if padding != "same" or stride == 1:
            layer = double(4, 6, kernel, stride, padding, dilation, 2, padding_mode=mode)
            layer.padding = (0, 0) if padding == "valid" else layer.padding  # for the definition
            height, width = span(layer)
            input = torch.randn(2, 4, height + 4, width + 5, dtype=torch.float64)
            assert relative(layer(input), asymmetric_conv(layer, input)) < 1e-12
            expected = asymmetric_conv(layer.eval(), input)
            assert relative(layer(input), expected) < 1e-12
            assert relative(layer.fused()(input), expected) < 1e-12


@st.composite
def problems(draw):
    odd, small = st.sampled_from([1, 3, 3, 5]), st.integers(1, 3)
    kernel, dilation = (draw(odd), draw(odd)), (draw(small), draw(small))
    mode = draw(st.sampled_from(["zeros", "zeros", "zeros", "reflect", "replicate", "circular"]))
    padding = (draw(st.integers(0, 4)), draw(st.integers(0, 4)))
    height, width = (
        max(draw(st.integers(1, 9)), d * (k - 1) + 1 - 2 * p if mode == "zeros" else max(d * (k - 1), p) + 1)
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    )
    groups = draw(st.sampled_from([1, 2, 3]))
    inputs = groups * draw(st.integers(1, 2))
    outputs = inputs if groups == inputs else groups * draw(small)
    cross = draw(st.none() | st.tuples(st.integers(0, kernel[0] - 1), st.integers(0, kernel[1] - 1)))
    arguments = (inputs, outputs, kernel, (draw(small), draw(small)), padding, dilation, groups, False, mode)
    branches = draw(st.lists(st.sampled_from(BRANCHES), min_size=1, max_size=3, unique=True))
    layout = draw(st.sampled_from(["contiguous", "channels_last", "slice", "transposed"]))
    frozen = draw(st.sampled_from([(), (), BRANCHES, BRANCHES, ("horizontal",)]))
    shape = (draw(st.integers(2, 3)), inputs, height, width)
    return arguments, branches, cross, shape, layout, frozen, draw(st.sampled_from([torch.float32, torch.float64]))


def laid_out(input: Tensor, layout: str) -> Tensor:
    if layout == "transposed":
        return input.transpose(2, 3).contiguous().transpose(2, 3)
    if layout == "channels_last":
        return input.contiguous(memory_format=torch.channels_last)
    return torch.cat([input, input], 1)[:, : input.shape[1]] if layout == "slice" else input


@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(problems())
def test_forward_and_gradients_are_the_equation(problem) -> None:
    """In float32 too, against the definition in float64."""
    arguments, branches, cross, shape, layout, frozen, dtype = problem
    torch.manual_seed(0)
    exact = double(*arguments, branches=branches, cross=cross)
    for name, branch in exact.branches.items():
        branch.norm.train(name not in frozen)
        branch.norm.eps = 0.1  # a map of few pixels may vary little
    layer = copy.deepcopy(exact).to(dtype)
    input = torch.randn(shape, dtype=torch.float64)
    ours, theirs = (laid_out(input.to(kind), layout).requires_grad_() for kind in (dtype, torch.float64))
    actual, expected = layer(ours), asymmetric_conv(exact, theirs, cross)
    tolerance = 1e-10 if dtype == torch.float64 else 2e-4
    assert actual.dtype == dtype
    close = {"rtol": tolerance, "atol": tolerance, "check_stride": False}
    torch.testing.assert_close(actual.double(), expected, **close)
    sensitivity = torch.randn_like(expected)
    ours = torch.autograd.grad(actual, [ours, *layer.parameters()], sensitivity.to(dtype))
    theirs = torch.autograd.grad(expected, [theirs, *exact.parameters()], sensitivity)
    for one, other in zip(ours, theirs, strict=True):
        scale = other.abs().max().clamp(min=1)
        torch.testing.assert_close(one.double() / scale, other / scale, **close)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_training_keeps_the_memory_format(memory_format) -> None:
    formats = (torch.contiguous_format, torch.channels_last)
    for mode, padding, weights in product(("zeros", "circular"), (0, 1), formats):
        layer = AsymmetricConv2d(4, 6, 3, padding=padding, padding_mode=mode).to(memory_format=weights)
        input = torch.randn(2, 4, 6, 5).contiguous(memory_format=memory_format)
        assert layer(input).is_contiguous(memory_format=memory_format)
    assert torch.allclose(layer(input[0]), layer(input[:1])[0])


def test_each_norm_learns_its_own_branch() -> None:
    layer = AsymmetricConv2d(4, 6, 3, padding=1)
    input = torch.randn(8, 4, 5, 5) + 1
    layer(input)
    means = [branch.norm.running_mean for branch in layer.branches.values()]
    for (name, branch), padding in zip(layer.branches.items(), (1, (0, 1), (1, 0)), strict=True):
        output = nn.functional.conv2d(input, branch.conv.weight, padding=padding)
        torch.testing.assert_close(branch.norm.running_mean, 0.1 * output.mean((0, 2, 3)), msg=name)
    assert not torch.allclose(means[0], means[1])
    assert not torch.allclose(means[1], means[2])


@pytest.mark.parametrize(("cross", "row", "column"), [(None, 1, 2), ((2, 4), 2, 4), ((0, 3), 0, 3)])
def test_the_fused_kernel_differs_from_the_square_on_the_cross_alone(cross, row, column) -> None:
    layer = double(4, 6, (3, 5), padding=1, cross=cross).eval()
    square, horizontal, vertical = layer.branches.values()
    scaled = {
        branch: branch.conv.weight * (branch.norm.weight / (branch.norm.running_var + branch.norm.eps).sqrt())[
            :, None, None, None]
        for branch in (square, horizontal, vertical)
    }
    added = layer.fused().weight - scaled[square]
    off = torch.ones(3, 5, dtype=torch.bool)
    off[row], off[:, column] = False, False
    assert added[:, :, off].abs().max() < 1e-15
    expected = torch.zeros_like(added)
    expected[:, :, row] += scaled[horizontal][:, :, 0]
    expected[:, :, :, column] += scaled[vertical][:, :, :, 0]
    torch.testing.assert_close(added, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("branches", [("square",), ("vertical",), ("horizontal", "square"), ("vertical", "horizontal")])
def test_subsets_of_branches(branches) -> None:
    layer = double(4, 6, 3, 2, 1, branches=branches).eval()
    assert set(layer.branches) == set(branches)
    input = torch.randn(2, 4, 7, 6, dtype=torch.float64)
    assert relative(layer.fused()(input), asymmetric_conv(layer, input)) < 1e-12
    assert bool(layer.fused().weight[:, :, 0, 0].any()) == ("square" in branches)


@pytest.mark.parametrize(("kernel", "kept"), [
    (1, ["square"]), ((1, 3), ["square", "vertical"]), ((5, 1), ["square", "horizontal"]), (3, list(BRANCHES)),
])
def test_no_two_branches_of_a_size(kernel, kept) -> None:
    assert list(AsymmetricConv2d(4, 6, kernel).branches) == kept


def test_one_kernel_row_without_the_square() -> None:
    assert list(AsymmetricConv2d(4, 6, (1, 3), branches=("vertical", "horizontal")).branches) == list(BRANCHES[1:])
    assert list(AsymmetricConv2d(4, 6, 1, branches=("vertical", "horizontal")).branches) == ["horizontal"]


def test_gamma_init_and_parameters() -> None:
    layer = AsymmetricConv2d(4, 6, 3, gamma_init=1 / 3, groups=2)
    for branch in layer.branches.values():
        assert torch.equal(branch.norm.weight, torch.full((6,), 1 / 3))
    assert torch.equal(AsymmetricConv2d(4, 6, 3).branches["vertical"].norm.weight, torch.ones(6))
    parameters = {name: tuple(parameter.shape) for name, parameter in layer.named_parameters()}
    kernels = {"square": (3, 3), "horizontal": (1, 3), "vertical": (3, 1)}
    assert parameters == {
        f"branches.{name}.{key}": shape
        for name, kernel in kernels.items()
        for key, shape in (("conv.weight", (6, 2, *kernel)), ("norm.weight", (6,)), ("norm.bias", (6,)))
    }


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("affine", "track"), [(True, True), (False, True), (True, False), (False, False)])
def test_from_conv_starts_equal(bias, affine, track) -> None:
    conv = nn.Conv2d(4, 6, (3, 5), (2, 1), (1, 3), 1, 2, bias, "reflect", dtype=torch.float64)
    norm = randomised(nn.BatchNorm2d(6, 1e-3, 0.3, affine, track, dtype=torch.float64))
    layer = AsymmetricConv2d.from_conv(conv, norm)
    input = torch.randn(3, 4, 9, 8, dtype=torch.float64)
    for _ in range(2):
        assert relative(layer(input), norm(conv(input))) < 1e-12
    assert layer.branches["square"].norm is not norm
    expected = norm.eval()(conv(input))
    assert relative(layer.eval()(input), expected) < 1e-12
    if track:
        assert relative(layer.fused()(input), expected) < 1e-12
        assert relative(randomised(layer)(input), asymmetric_conv(layer, input)) < 1e-12
        assert relative(layer.fused()(input), asymmetric_conv(layer, input)) < 1e-12
    else:
        with pytest.raises(ValueError, match=r"running statistics; the norm of 'square' keeps none"):
            layer.fused()
    for branch in layer.branches.values():
        assert (branch.norm.eps, branch.norm.momentum) == (1e-3, 0.3)
        assert (branch.norm.running_mean is not None) == track


def test_from_conv_carries_what_the_layers_have() -> None:
    conv = nn.Conv2d(4, 8, 3, padding="same", dilation=2, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    norm = nn.BatchNorm2d(8, momentum=None).eval()
    layer = AsymmetricConv2d.from_conv(conv.requires_grad_(False), norm, branches=("square", "vertical"), cross=(2, 2))
    assert layer.training
    assert not any(branch.norm.training for branch in layer.branches.values())
    assert list(layer.branches) == ["square", "vertical"]
    vertical = layer.branches["vertical"]
    assert vertical.place == (2, 0, 0, 0)
    assert (vertical.conv.weight.dtype, vertical.norm.weight.dtype) == (torch.bfloat16, torch.float32)
    assert not any(parameter.requires_grad for parameter in vertical.parameters())
    assert layer.branches["square"].norm.weight.requires_grad
    plain = layer.eval().fused()
    assert (plain.padding, plain.weight.dtype, plain.training) == ("same", torch.bfloat16, False)
    for module in (layer.branches["square"].conv, plain):
        assert module.weight.is_contiguous(memory_format=torch.channels_last)
    assert layer.fused().weight.requires_grad
    assert not layer.requires_grad_(False).fused().weight.requires_grad


def test_gamma_init_of_from_conv_is_that_of_the_new_branches() -> None:
    conv, norm = nn.Conv2d(4, 6, 3), randomised(nn.BatchNorm2d(6))
    layer = AsymmetricConv2d.from_conv(conv, norm, gamma_init=0.25)
    assert torch.equal(layer.branches["square"].norm.weight, norm.weight)
    assert torch.equal(layer.branches["horizontal"].norm.weight, torch.full((6,), 0.25))


def test_from_conv_refuses() -> None:
    conv, norm = nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)
    with pytest.raises(TypeError, match=r"ConvTranspose2d"):
        AsymmetricConv2d.from_conv(nn.ConvTranspose2d(4, 6, 3), norm)
    with pytest.raises(TypeError, match=r"norm must be exactly an nn.BatchNorm2d, got .*GroupNorm"):
        AsymmetricConv2d.from_conv(conv, nn.GroupNorm(2, 6))
    with pytest.raises(ValueError, match=r"out_channels=6 features, got 4"):
        AsymmetricConv2d.from_conv(conv, nn.BatchNorm2d(4))
    with pytest.raises(ValueError, match=r"'square'.* got \('vertical',\)"):
        AsymmetricConv2d.from_conv(conv, norm, branches=("vertical",))
    with pytest.raises(ValueError, match=r"odd"):
        AsymmetricConv2d.from_conv(nn.Conv2d(4, 6, 2), norm)


def test_training_wakes_the_branches_that_start_at_nothing() -> None:
    layer = AsymmetricConv2d.from_conv(nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6))
    start = copy.deepcopy(layer.state_dict())
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    input, target = torch.randn(4, 4, 6, 6), torch.randn(4, 6, 6, 6)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.mse_loss(layer(input), target).backward()
        optimizer.step()
    for name in ("horizontal", "vertical"):
        for key in ("conv.weight", "norm.weight", "norm.bias"):
            assert not torch.allclose(layer.state_dict()[f"branches.{name}.{key}"], start[f"branches.{name}.{key}"])


def test_fused_leaves_the_layer_and_can_be_had_again() -> None:
    layer = double(4, 6, 3, padding=1).eval()
    before = copy.deepcopy(layer.state_dict())
    first, second = layer.fused(), layer.fused()
    assert type(first) is nn.Conv2d
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)
    assert first.weight.data_ptr() != second.weight.data_ptr()
    assert all(torch.equal(before[key], value) for key, value in layer.state_dict().items())


def test_fused_refuses_train_mode() -> None:
    layer = AsymmetricConv2d(4, 6, 3)
    with pytest.raises(ValueError, match=r"eval mode"):
        layer.fused()
    layer.eval().branches["vertical"].norm.train()
    with pytest.raises(ValueError, match=r"eval mode"):
        layer.fused()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str)
def test_fused_in_lower_precision(dtype, tolerance) -> None:
    exact = double(64, 64, 3, padding=1).eval()
    layer = copy.deepcopy(exact).to(dtype)
    input = torch.randn(2, 64, 8, 8, dtype=torch.float64)
    expected = exact(input)
    assert relative(layer.fused()(input.to(dtype)).double(), expected) < tolerance
    assert torch.equal(layer.fused().weight, copy.deepcopy(layer).double().fused().weight.to(dtype))
    assert relative(layer(input.to(dtype)).double(), expected) < tolerance


def test_pruning_and_synchronised_norms_reach_the_branches() -> None:
    layer = AsymmetricConv2d(4, 6, 3, padding=1).eval()
    prune.l1_unstructured(layer.branches["square"].conv, "weight", amount=1.0)
    fused = layer.fused()
    assert not fused.weight[:, :, 0, 0].any()
    assert fused.weight[:, :, 1].any()
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(layer)
    assert isinstance(converted.branches["vertical"].norm, nn.SyncBatchNorm)
    assert torch.equal(converted.fused().weight, fused.weight)
