"""FilterNorm against its formula, its gradient in closed form, and filters that are flat."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leanconv.ops.dynamic import filter_norm


def by_the_formula(filters, taps, scale, shift, eps):
    """y = α (x − mean) / (std + 1e-10) + β, or with √(var + eps), each filter from its own slice."""
    output = []
    for start in range(0, filters.shape[1], taps):
        one = filters[:, start : start + taps]
        mean = sum(one.unbind(1)) / taps
        variance = sum((value - mean) ** 2 for value in one.unbind(1)) / (taps - 1)
        deviation = variance.sqrt() + 1e-10 if eps is None else (variance + eps).sqrt()
        output += [(value - mean) / deviation for value in one.unbind(1)]
    normed = torch.stack(output, 1)
    along = (-1,) + (1,) * (filters.dim() - 2)
    normed = normed * (scale.view(along) if isinstance(scale, torch.Tensor) else scale)
    return normed if shift is None else normed + shift.view(along)


@st.composite
def problems(draw):
    rest = tuple(draw(st.lists(st.integers(1, 4), max_size=2)))
    return {
        "shape": (draw(st.integers(0, 3)), draw(st.integers(1, 3)), *rest),
        "taps": draw(st.sampled_from([2, 3, 9, 9, 15, 25])),
        "scale": draw(st.sampled_from(["number", "vector"])), "shift": draw(st.booleans()),
        "eps": draw(st.sampled_from([None, None, 1e-5, 0.1])),
        "offset": draw(st.sampled_from([0.0, 100.0])), "spread": draw(st.sampled_from([1.0, 1e-2, 1e3])),
        "channels_last": draw(st.booleans()),
        "dtype": draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16])),
        "seed": draw(st.integers(0, 999)),
    }


@settings(max_examples=400, deadline=None)
@given(problems())
def test_filter_norm_is_the_formula(problem) -> None:
    generator = torch.Generator().manual_seed(problem["seed"])

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    batch, count, *rest = problem["shape"]
    rows, dtype = count * problem["taps"], problem["dtype"]
    wide = torch.promote_types(dtype, torch.float32)
    filters = random(batch, rows, *rest)
    # a spread that every dtype resolves, whatever the offset is
    filters = (filters * max(problem["spread"], problem["offset"]) + problem["offset"]).to(dtype)
    if problem["channels_last"] and len(rest) == 2:
        filters = filters.contiguous(memory_format=torch.channels_last)
    scale = 0.37 if problem["scale"] == "number" else random(rows).to(wide)
    shift = random(rows).to(wide) if problem["shift"] else None
    vectors = [vector.requires_grad_() for vector in (scale, shift) if isinstance(vector, torch.Tensor)]
    leaf = filters.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    exact = filters.double().requires_grad_()
    ours = filter_norm(leaf, problem["taps"], scale, shift, eps=problem["eps"])
    theirs = by_the_formula(exact, problem["taps"], scale, shift, problem["eps"])
    assert ours.dtype == wide
    for memory_format in (torch.contiguous_format, torch.channels_last) if batch and len(rest) == 2 else ():
        assert ours.is_contiguous(memory_format=memory_format) == filters.is_contiguous(memory_format=memory_format)
    tolerance = 1e-10 if dtype == torch.float64 else 2e-5
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=tolerance, atol=tolerance)
    if batch:
        sensitivity = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
        found = torch.autograd.grad(ours, [leaf, *vectors], sensitivity.to(wide))
        expected = torch.autograd.grad(theirs, [exact, *vectors], sensitivity)
        for index, (actual, right) in enumerate(zip(found, expected, strict=True)):
            limit = max(tolerance * 10, 2 * torch.finfo(dtype).eps if index == 0 else 0)
            size = right.abs().max().double()
            # gradients are of the size of 1 / spread, from terms of that size that cancel
            size = max(size, sensitivity.abs().max() / filters.double().std()) if index == 0 else size.clamp(min=1)
            assert (actual.double() - right).abs().max() <= limit * size


def test_deviation_is_the_unbiased_one() -> None:
    values = [1.0, 4.0, 9.0, 16.0]
    normed = filter_norm(torch.tensor([values]), 4)
    expected = [(value - statistics.mean(values)) / statistics.stdev(values) for value in values]
    torch.testing.assert_close(normed, torch.tensor([expected]))


@pytest.mark.parametrize("eps", [None, 1e-5, 0.5])
@pytest.mark.parametrize("number", [True, False])
def test_gradients_of_first_and_second_order(eps, number) -> None:
    filters = torch.randn(2, 18, 2, 3, dtype=torch.float64, requires_grad=True)
    vectors = [torch.randn(18, dtype=torch.float64, requires_grad=True) for _ in range(2)]

    def function(filters, scale, shift):
        return filter_norm(filters, 9, 0.3 if number else scale, shift, eps=eps)

    assert torch.autograd.gradcheck(function, (filters, *vectors))
    assert torch.autograd.gradgradcheck(function, (filters, *vectors))


def test_gradient_in_closed_form() -> None:
    """gx = (g − mean(g) − z · Σ(g z) / (n − 1)) / σ, with g already multiplied by α."""
    filters = torch.randn(3, 9, dtype=torch.float64, requires_grad=True)
    scale = torch.randn(9, dtype=torch.float64)
    gradient = torch.randn(3, 9, dtype=torch.float64)
    filter_norm(filters, 9, scale).backward(gradient)
    deviation, mean = torch.std_mean(filters.detach(), 1, keepdim=True)
    z, g = (filters.detach() - mean) / deviation, gradient * scale
    expected = (g - g.mean(1, keepdim=True) - z * (g * z).sum(1, keepdim=True) / 8) / deviation
    torch.testing.assert_close(filters.grad, expected)



@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [0.0, 0.3, -1000.0])
def test_flat_filters_are_safe_with_eps(dtype, value) -> None:
    filters = torch.full((2, 18, 3, 3), value, dtype=dtype, requires_grad=True)
    normed = filter_norm(filters, 9, 0.47, eps=1e-5)
    assert normed.abs().max() <= 0.47 * abs(value) * 2**-22 / math.sqrt(1e-5)  # the rounding of the mean
    normed.backward(torch.randn_like(normed))
    assert filters.grad.abs().max() < 5 / math.sqrt(1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.3, -1000.0])
def test_flat_filters_are_finite_by_the_published_formula(dtype, value) -> None:
    """Half precision included, in which 1e-10 is 0: the formula is computed in float32."""
    filters = torch.full((2, 18, 3, 3), value, dtype=dtype).float().requires_grad_()
    normed = filter_norm(filters, 9)
    assert normed.abs().max() < 3
    normed.backward(torch.randn_like(normed))
    assert torch.isfinite(filters.grad).all()
    if value == 0:
        assert filters.grad.abs().max() > 1e8


@pytest.mark.parametrize("eps", [None, 1e-5])
def test_compiled_and_exported_give_the_same(eps) -> None:
    class Norm(torch.nn.Module):
        def forward(self, filters):
            return filter_norm(filters, 9, 0.3, eps=eps)

    filters = torch.randn(2, 18, 3, 4)
    expected = filter_norm(filters, 9, 0.3, eps=eps)
    torch.compiler.reset()
    leaf, other = (filters.clone().requires_grad_() for _ in range(2))
    compiled = torch.compile(Norm(), fullgraph=True, backend="aot_eager")(leaf)
    torch.testing.assert_close(compiled, expected)
    compiled.pow(3).sum().backward()
    filter_norm(other, 9, 0.3, eps=eps).pow(3).sum().backward()
    torch.testing.assert_close(leaf.grad, other.grad, rtol=1e-4, atol=1e-5)
    program = torch.export.export(Norm(), (filters,))
    torch.testing.assert_close(program.module()(filters), expected)
    assert all("leanconv" not in str(node.target) for node in program.graph.nodes)


@pytest.mark.parametrize(("shape", "taps", "message"), [
    ((2, 9), 1, r"taps must be at least 2.*got 1"),
    ((2, 10), 9, r"F · 9.*got shape \(2, 10\)"),
    ((9,), 9, r"got shape \(9,\)"),
])
def test_bad_arguments(shape, taps, message) -> None:
    with pytest.raises(ValueError, match=message):
        filter_norm(torch.randn(shape), taps)
