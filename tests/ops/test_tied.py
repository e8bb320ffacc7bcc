"""The op against the paper's equation, over everything that a convolution takes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leanconv.ops import tied_conv2d, tied_linear
from leanconv.ops.tied import untied


def by_the_equation(input, weight, bias, stride, padding, dilation, groups, blocks):
    """⊕_g ⊕_b X_gb ∗ W'_g, literally."""
    filters = weight.chunk(groups)
    biases = [None] * groups if bias is None else bias.chunk(groups)
    return torch.cat([
        F.conv2d(block, filters[index], biases[index], stride, padding, dilation)
        for index, group in enumerate(input.chunk(groups, 1)) for block in group.chunk(blocks, 1)
    ], 1)


@st.composite
def problems(draw):
    small = st.integers(1, 3)
    blocks, groups = draw(st.sampled_from([1, 2, 3, 4])), draw(st.sampled_from([1, 1, 1, 2, 3]))
    kernel = draw(st.sampled_from([(1, 1), (1, 1), (3, 3), (3, 3), (1, 3), (2, 2), (5, 1)]))
    stride, dilation = (draw(small), draw(small)), (draw(st.integers(1, 2)), draw(small))
    padding = (draw(st.integers(0, 3)), draw(st.integers(0, 3)))
    height, width = (
        max(draw(st.integers(1, 9)), d * (k - 1) + 1 - 2 * p) for k, d, p in zip(kernel, dilation, padding, strict=True)
    )
    layout = draw(st.sampled_from(["contiguous", "channels_last", "slice", "channels_last slice", "transposed"]))
    inputs, outputs = draw(small) * blocks * groups, draw(small) * blocks * groups
    return (draw(st.integers(0, 3)), inputs, outputs, height, width, kernel, stride, padding, dilation, groups, blocks,
            draw(st.booleans()), layout, draw(st.integers(0, 999)))


def laid_out(input, layout: str):
    if layout == "transposed":
        return input.transpose(2, 3).contiguous().transpose(2, 3)
    if "channels_last" in layout:
        input = input.contiguous(memory_format=torch.channels_last)
    if "slice" in layout:
        wide = torch.cat([input, input], 1).contiguous(
            memory_format=torch.channels_last if "channels_last" in layout else torch.contiguous_format)
        return wide[:, : input.shape[1]]
    return input


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems())
def test_tied_conv2d_is_the_equation(problem) -> None:
    (batch, inputs, outputs, height, width, kernel, stride, padding, dilation, groups, blocks,
     bias, layout, seed) = problem
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    input = laid_out(random(batch, inputs, height, width), layout).requires_grad_()
    weight = random(outputs // blocks, inputs // (blocks * groups), *kernel).requires_grad_()
    vector = random(outputs // blocks).requires_grad_() if bias else None
    leaves = [input, weight] + ([vector] if bias else [])
    ours = tied_conv2d(input, weight, vector, stride, padding, dilation, groups, blocks=blocks)
    theirs = by_the_equation(input, weight, vector, stride, padding, dilation, groups, blocks)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10, check_stride=False)
    if batch:
        sensitivity = random(*theirs.shape)
        for actual, expected in zip(torch.autograd.grad(ours, leaves, sensitivity),
                                    torch.autograd.grad(theirs, leaves, sensitivity), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10, check_stride=False)


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 4), (4, 3)])
@pytest.mark.parametrize("dilation", [1, (2, 1)])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_padding_by_name_is_conv2ds(kernel, dilation, channels_last) -> None:
    input, weight = torch.randn(2, 8, 9, 10), torch.randn(4, 4, *kernel)
    if channels_last:
        input = input.contiguous(memory_format=torch.channels_last)
    for padding in ("valid", "same"):
        expected = F.conv2d(input, weight.repeat(2, 1, 1, 1), None, 1, padding, dilation, 2)
        torch.testing.assert_close(tied_conv2d(input, weight, None, 1, padding, dilation, blocks=2), expected,
                                   rtol=1e-5, atol=1e-5, check_stride=False)


def test_groups_are_group_major_as_in_the_paper() -> None:
    """Channel = (group, block, channel): the equation's order; the authors' code has blocks outside."""
    input, weight = torch.randn(1, 8, 4, 4), torch.randn(4, 2, 1, 1)
    ours = tied_conv2d(input, weight, groups=2, blocks=2)
    equation = F.conv2d(input, weight.view(2, 2, 2, 1, 1).repeat_interleave(2, 0).flatten(0, 1), groups=4)
    block_major = F.conv2d(input, weight.repeat(2, 1, 1, 1), groups=4)
    torch.testing.assert_close(ours, equation)
    assert not torch.allclose(ours, block_major, atol=1e-3)


def test_weight_gradient_is_the_sum_over_blocks() -> None:
    input, weight = torch.randn(2, 6, 5, 5).double(), torch.randn(2, 2, 3, 3).double().requires_grad_()
    tied_conv2d(input, weight, blocks=3).square().sum().backward()
    repeated = weight.detach().repeat(3, 1, 1, 1).requires_grad_()
    F.conv2d(input, repeated, groups=3).square().sum().backward()
    torch.testing.assert_close(weight.grad, repeated.grad.view(3, 2, 2, 3, 3).sum(0))


def test_untied_repeats_within_each_group() -> None:
    weight = torch.arange(8.0).view(4, 2, 1, 1)
    assert untied(weight, 2, 3).flatten(1)[:, 0].tolist() == [0, 2, 0, 2, 0, 2, 4, 6, 4, 6, 4, 6]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.lists(st.integers(0, 3), max_size=2), st.booleans())
def test_tied_linear_is_the_equation(blocks, inputs, outputs, batch, bias) -> None:
    generator = torch.Generator().manual_seed(blocks)
    input = torch.randn((*batch, inputs * blocks), generator=generator, dtype=torch.float64)
    weight = torch.randn((outputs, inputs), generator=generator, dtype=torch.float64)
    vector = torch.randn(outputs, generator=generator, dtype=torch.float64) if bias else None
    expected = torch.cat([F.linear(block, weight, vector) for block in input.chunk(blocks, -1)], -1)
    torch.testing.assert_close(tied_linear(input, weight, vector, blocks=blocks), expected)
    doubled = torch.stack([input, input], -1)[..., 0]
    torch.testing.assert_close(tied_linear(doubled, weight, vector, blocks=blocks), expected)


@pytest.mark.parametrize(("arguments", "message"), [
    (dict(input=(2, 6, 4, 4), weight=(4, 4, 3, 3), blocks=2), r"4 · 2 · 1 = 8 channels, got 6"),
    (dict(input=(2, 8, 4, 4), weight=(3, 2, 3, 3), groups=2, blocks=2), r"groups must divide .* = 3, got groups=2"),
    (dict(input=(2, 8, 4, 4), weight=(4, 4, 3), blocks=2), r"got shape \(4, 4, 3\)"),
    (dict(input=(8, 4), weight=(4, 4, 3, 3), blocks=2), r"got shape \(8, 4\)"),
    (dict(input=(2, 8, 4, 4), weight=(4, 4, 3, 3), bias=(8,), blocks=2), r"bias must have shape \(4,\).* got \(8,\)"),
    (dict(input=(2, 8, 4, 4), weight=(4, 4, 3, 3), blocks=0), r"got blocks=0"),
    (dict(input=(2, 8, 4, 4), weight=(4, 4, 3, 3), blocks=2, stride=2, padding="same"), r"got stride=\(2, 2\)"),
    (dict(input=(2, 8, 4, 4), weight=(4, 4, 3, 3), blocks=2, padding="full"), r"'full'"),
    (dict(input=(2, 8, 4, 4), weight=(4, 4, 3, 3), blocks=2, stride=(1, 2, 3)), r"stride .* \(1, 2, 3\)"),
])
def test_bad_arguments(arguments, message) -> None:
    tensors = {key: torch.randn(arguments[key]) for key in ("input", "weight", "bias") if key in arguments}
    with pytest.raises(ValueError, match=message):
        tied_conv2d(**{**arguments, **tensors})


@pytest.mark.parametrize(("shape", "weight", "blocks"), [((3, 5), (2, 3), 2), ((6,), (2, 3, 1), 2), ((6,), (2, 3), 0)])
def test_bad_arguments_of_tied_linear(shape, weight, blocks) -> None:
    with pytest.raises(ValueError, match=r"got"):
        tied_linear(torch.randn(shape), torch.randn(weight), blocks=blocks)


def test_no_path_copies_a_dense_input() -> None:
    """In either memory format the tied convolution reads the input where it lies: no clone, copy or cat is called."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Names(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.called = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.called.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    for kernel, stride in ((3, 1), (3, 2), (1, 1)):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            input = torch.randn(2, 8, 6, 6).contiguous(memory_format=memory_format)
            weight = torch.randn(4, 4, kernel, kernel)
            with Names() as names, torch.no_grad():
                tied_conv2d(input, weight, None, stride, kernel // 2, blocks=2)
            repeats_weight = memory_format == torch.channels_last and stride == 2
            copies = [name for name in names.called if name in ("clone", "copy_", "cat", "contiguous", "_to_copy")]
            assert len(copies) == int(repeats_weight), (kernel, stride, memory_format, names.called)
