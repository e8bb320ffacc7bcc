"""The native tail of a Ghost module against its definition, and where it must not run; the fit of cheap kernels."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from leanconv.nn import GhostConv2d
from leanconv.ops import ghost, native
from leanconv.ops.ghost_fit import ghost_kernels, moments


def needs_kernel() -> None:
    if native.load(ghost.KERNELS) is None:
        pytest.skip("there is no C compiler here")


@st.composite
def problems(draw):
    channels = draw(st.sampled_from([1, 2, 5, 16, 63, 64, 65, 130]))
    each = draw(st.sampled_from([1, 1, 2, 3]))
    out_channels = draw(st.integers(channels, channels * (1 + each)))
    size = draw(st.sampled_from([1, 3, 3, 5, 7]))
    edge = st.one_of(st.integers(1, 9), st.sampled_from([15, 16, 17, 33]))
    return (draw(st.integers(0, 3)), channels, draw(edge), draw(edge), each, out_channels, size, draw(st.booleans()),
            draw(st.booleans()), draw(st.booleans()), draw(st.integers(0, 999)))


@settings(max_examples=400, deadline=None)
@given(problems())
def test_kernel_is_the_definition(problem) -> None:
    """On maps of all sizes, and into memory that is filled with NaN."""
    needs_kernel()
    batch, channels, height, width, each, out_channels, size, relu, channels_last, weights_last, seed = problem
    torch.manual_seed(seed)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    input = torch.randn(batch, channels, height, width).contiguous(memory_format=layout)
    weight, bias = torch.randn(channels * each, 1, size, size), torch.randn(channels * each)
    if weights_last:
        weight = weight.contiguous(memory_format=torch.channels_last)
    before = input.clone()
    torch.use_deterministic_algorithms(True)
    try:
        with torch.no_grad():
            assert ghost.kernel_takes(input, weight, bias)
            output = ghost.ghost_tail(input, weight, bias, out_channels, relu=relu)
    finally:
        torch.use_deterministic_algorithms(False)
    exact = ghost.reference(input.double(), weight.double(), bias.double(), out_channels, relu)
    assert channels == 1 or output.is_contiguous(memory_format=layout)  # one channel is dense in both formats
    assert torch.equal(output[:, :channels], input.relu() if relu else input)
    torch.testing.assert_close(output.double(), exact, rtol=1e-5, atol=1e-4, check_stride=False)
    assert torch.equal(input, before)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_kernel_keeps_nan(layout) -> None:
    """As ReLU does; and a NaN reaches the ghosts around it alone."""
    needs_kernel()
    input, weight, bias = torch.randn(1, 3, 6, 6), torch.randn(3, 1, 3, 3), torch.zeros(3)
    input[0, 1, 2, 2] = torch.nan
    input = input.contiguous(memory_format=layout)
    with torch.no_grad():
        output = ghost.ghost_tail(input, weight, bias, 6)
    assert torch.equal(output.isnan(), ghost.reference(input, weight, bias, 6, True).isnan())
    assert output.isnan().sum() == 10


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_kernel_gives_the_same_with_any_number_of_threads(threads) -> None:
    needs_kernel()
    input, weight, bias = torch.randn(3, 70, 9, 9), torch.randn(70, 1, 3, 3), torch.randn(70)
    before = torch.get_num_threads()
    with torch.no_grad():
        torch.set_num_threads(1)
        expected = ghost.ghost_tail(input, weight, bias, 140)
        try:
            torch.set_num_threads(threads)
            assert torch.equal(ghost.ghost_tail(input, weight, bias, 140), expected)
        finally:
            torch.set_num_threads(before)


def fused() -> tuple[GhostConv2d, torch.Tensor]:
    return GhostConv2d(4, 8, 3, padding=1).eval().fused(), torch.randn(2, 4, 6, 6)


@pytest.mark.parametrize(("weight", "bias", "out_channels", "message"), [
    ((6, 2, 3, 3), 6, 6, r"got shape \(6, 2, 3, 3\)"), ((6, 1, 3, 5), 6, 6, r"got shape \(6, 1, 3, 5\)"),
    ((6, 1, 2, 2), 6, 6, r"d odd"), ((5, 1, 3, 3), 5, 6, r"3 · n filters"), ((6, 1, 3, 3), 3, 6, r"got shape \(3,\)"),
    ((6, 1, 3, 3), 6, 2, r"3 to 9, got 2"), ((6, 1, 3, 3), 6, 10, r"3 to 9, got 10"),
])
def test_bad_arguments(weight, bias, out_channels, message) -> None:
    with pytest.raises(ValueError, match=message):
        ghost.ghost_tail(torch.randn(1, 3, 4, 4), torch.randn(weight), torch.randn(bias), out_channels)


def test_runs_without_kernels() -> None:
    layer, input = fused()
    with torch.no_grad():
        expected = layer(input)
        with native.using(None):
            torch.testing.assert_close(layer(input), expected)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`")  # PyTorch's own, in forward-mode differentiation
@torch.no_grad()
def test_what_watches_or_transforms_sees_plain_operators() -> None:
    layer, input = fused()
    with FlopCounterMode(display=False) as counter:
        layer(input)
    assert counter.get_total_flops() == 2 * 2 * 36 * (4 * 4 * 9 + 4 * 9)
    expected = layer(input)
    torch.testing.assert_close(torch.vmap(layer)(input), expected)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(input, torch.ones_like(input))
        assert torch.autograd.forward_ad.unpack_dual(layer(dual)).tangent is not None
    _, tangent = torch.func.jvp(layer, (input,), (torch.ones_like(input),))
    assert tangent.abs().sum() > 0
    for module in (layer.double(), copy.deepcopy(layer).to(torch.bfloat16)):
        dtype = module.primary.weight.dtype
        assert module(input.to(dtype)).dtype == dtype
    program = torch.export.export(fused()[0], (input,))
    assert all("leanconv" not in str(node.target) for node in program.graph.nodes)


def test_gradients_of_a_fused_layer() -> None:
    layer, input = fused()
    layer = layer.double()
    assert torch.autograd.gradcheck(layer, input.double().requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("channels_last", [False, True])
def test_autocast_stays_in_half_precision(channels_last) -> None:
    layer, input = fused()
    if channels_last:
        input = input.contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = layer(input)
    assert output.dtype == torch.bfloat16
    with torch.no_grad():
        torch.testing.assert_close(output.float(), layer(input), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(("size", "stride", "dilation"),
                         [(3, (1, 1), (1, 1)), (5, (2, 1), (1, 2)), (1, (1, 1), (1, 1))])
def test_fit_is_the_least_squares_solution(size, stride, dilation) -> None:
    """Without activation: a linear system whose columns are the shifted source filters."""
    filters = torch.randn(2, 3, 3, 2).double()
    reach = [step * (extent - 1) + 1 for step, extent in zip(dilation, filters.shape[2:], strict=True)]
    dense = torch.zeros(2, 3, *reach).double()
    dense[..., :: dilation[0], :: dilation[1]] = filters / filters.flatten(1).norm(dim=1)[:, None, None, None]
    border = [step * (size // 2) for step in stride]
    canvas = F.pad(dense, (border[1], border[1], border[0], border[0]))
    offsets = [(row * stride[0], column * stride[1]) for row in range(-(size // 2), size // 2 + 1)
               for column in range(-(size // 2), size // 2 + 1)]
    columns = torch.stack([canvas[0].roll(offset, (1, 2)).flatten() for offset in offsets], 1)
    solution = torch.linalg.lstsq(columns, canvas[1].flatten()).solution
    kernels, means, correlation = ghost_kernels(
        filters, torch.tensor([0.5, 0.0]).double(), torch.ones(2).double(), torch.tensor([0]), torch.tensor([1]), size,
        stride, dilation, nn.Identity())
    torch.testing.assert_close(kernels.flatten(), solution)
    torch.testing.assert_close(means, 0.5 * solution.sum()[None])
    torch.testing.assert_close(correlation, (columns @ solution).norm()[None])


def test_moments_of_a_rectified_gaussian() -> None:
    """E relu(x) = 1/√(2π), cov(relu(x), x) = 1/2, var relu(x) = 1/2 − 1/(2π)."""
    level, slope, variance = moments(torch.zeros(1).double(), torch.ones(1).double(), nn.ReLU())
    expected = [(2 * torch.pi) ** -0.5, 0.5, 0.5 - 1 / (2 * torch.pi)]
    torch.testing.assert_close(torch.cat([level, slope, variance]), torch.tensor(expected).double(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.SiLU()])
def test_fit_through_an_activation_is_the_regression(activation) -> None:
    """On Gaussian maps, least squares from samples finds the kernel that the fit computes without any."""
    torch.manual_seed(0)
    filters = torch.randn(2, 2, 3, 3).double() + 0.3
    filters /= filters.flatten(1).norm(dim=1)[:, None, None, None]
    input = torch.randn(1, 2, 300, 300).double()
    source, target = F.conv2d(input, filters)[0]
    mean, scale = torch.tensor([0.4, 0.0]).double(), torch.tensor([-0.8, 1.0]).double()
    columns = activation(mean[0] + scale[0] * source).unfold(0, 3, 1).unfold(1, 3, 1).reshape(-1, 9)
    wanted = target[1:-1, 1:-1].flatten()
    solution = torch.linalg.lstsq(columns - columns.mean(0), wanted - wanted.mean()).solution
    kernels, means, correlation = ghost_kernels(
        filters, mean, scale, torch.tensor([0]), torch.tensor([1]), 3, (1, 1), (1, 1), activation)
    torch.testing.assert_close(kernels.flatten(), solution, rtol=0, atol=0.03 * float(solution.abs().max()))
    torch.testing.assert_close(means[0], columns.mean(0) @ solution, rtol=0.05, atol=0.01)
    torch.testing.assert_close(correlation[0], (columns @ solution).std(), rtol=0.03, atol=0)
