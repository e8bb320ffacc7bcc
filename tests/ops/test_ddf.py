"""The dynamic filter against its equation, over everything that it takes; as PyTorch's own machinery sees it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from leanconv.ops import ddf, ddf_up, native
from leanconv.ops.dynamic import library

OPERATORS = torch.ops.leanconv


def by_the_equation(input, channel, spatial, kernel_size, stride, dilation, combine):
    """One product of windows and kernels: y[b,c,i,j] = Σ_t K_t X_t, from unfolded windows and whole kernels."""
    batch, channels, height, width = input.shape
    rows, columns = kernel_size
    taps = rows * columns
    padding = (dilation[0] * (rows - 1) // 2, dilation[1] * (columns - 1) // 2)
    size = (-(-height // stride[0]), -(-width // stride[1]))
    windows = F.unfold(input, kernel_size, dilation, padding, stride).view(batch, channels, taps, *size)
    of_channel = None if channel is None else channel.expand(batch, -1, -1, -1).reshape(batch, channels, taps, 1, 1)
    of_pixel = None
    if spatial is not None:
        heads = spatial.shape[1] // taps
        of_pixel = spatial.expand(batch, -1, -1, -1).reshape(batch, heads, taps, *size)
        of_pixel = of_pixel.repeat_interleave(channels // heads, 1)
    if of_channel is None or of_pixel is None:
        kernel = of_pixel if of_channel is None else of_channel
    else:
        kernel = of_channel * of_pixel if combine == "mul" else of_channel + of_pixel
    return (windows * kernel).sum(2)


def laid_out(tensor, layout):
    if layout == "channels_last":
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "transposed":
        return tensor.transpose(2, 3).contiguous().transpose(2, 3)
    if "slice" in layout:
        wide = torch.cat([tensor, tensor], 1)
        if "last" in layout:
            wide = wide.contiguous(memory_format=torch.channels_last)
        return wide[:, : tensor.shape[1]]
    return tensor


LAYOUTS = ["contiguous", "channels_last", "slice", "slice of channels_last", "transposed"]


@st.composite
def problems(draw):
    heads = draw(st.sampled_from([1, 1, 1, 2, 3]))
    kernel_size = draw(st.sampled_from([(3, 3), (3, 3), (3, 3), (1, 1), (5, 5), (1, 3), (5, 1), (3, 7)]))
    stride = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (3, 3), (1, 2), (3, 1)]))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 3), (8, 8)]))
    given_filters = draw(st.sampled_from(["both", "both", "both", "channel", "spatial"]))
    return {
        "batch": draw(st.integers(0, 3)),
        "channels": heads * draw(st.sampled_from([1, 2, 5, 17])),
        "size": (draw(st.integers(1, 20)), draw(st.integers(1, 20))),
        "heads": heads, "kernel_size": kernel_size, "stride": stride, "dilation": dilation,
        "filters": given_filters,
        "shared": (draw(st.booleans()), draw(st.booleans())),
        "combine": draw(st.sampled_from(["mul", "add"])),
        "layouts": (draw(st.sampled_from(LAYOUTS)), draw(st.sampled_from(LAYOUTS))),
        "dtype": draw(st.sampled_from([torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16])),
        "seed": draw(st.integers(0, 999)),
    }


def tensors_of(problem):
    generator = torch.Generator().manual_seed(problem["seed"])

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(problem["dtype"])

    batch, channels, taps = problem["batch"], problem["channels"], problem["kernel_size"][0] * problem["kernel_size"][1]
    size = [-(-extent // step) for extent, step in zip(problem["size"], problem["stride"], strict=True)]
    shared = [1 if share else batch for share in problem["shared"]]
    input = laid_out(random(batch, channels, *problem["size"]), problem["layouts"][0])
    channel = random(shared[0], channels, *problem["kernel_size"]) if problem["filters"] != "spatial" else None
    spatial = random(shared[1], problem["heads"] * taps, *size) if problem["filters"] != "channel" else None
    return input, channel, None if spatial is None else laid_out(spatial, problem["layouts"][1])


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems(), st.booleans())
def test_ddf_is_the_equation(problem, with_kernels) -> None:
    tensors = tensors_of(problem)
    leaves = [tensor if tensor is None else tensor.detach().requires_grad_() for tensor in tensors]
    exact = [tensor if tensor is None else tensor.detach().double().requires_grad_() for tensor in tensors]
    flags = native.flags_of_environment() if with_kernels else None
    with native.using(flags):
        ours = ddf(*leaves, problem["kernel_size"], problem["stride"], problem["dilation"],
                   combine=problem["combine"])
    theirs = by_the_equation(*exact, problem["kernel_size"], problem["stride"], problem["dilation"], problem["combine"])
    assert ours.dtype == problem["dtype"]
    tolerance = 16 * torch.finfo(problem["dtype"]).eps
    close(ours, theirs, tolerance)
    if problem["batch"]:
        sensitivity = torch.randn_like(ours)
        wanted = [leaf for leaf in leaves if leaf is not None]
        with native.using(flags):
            found = torch.autograd.grad(ours, wanted, sensitivity)
        expected = torch.autograd.grad(theirs, [leaf for leaf in exact if leaf is not None], sensitivity.double())
        for actual, right in zip(found, expected, strict=True):
            assert actual.dtype == problem["dtype"]
            close(actual, right, tolerance)


def close(actual, expected, tolerance) -> None:
    """Near in proportion to the largest value, or to 1, the size of the terms: a single sum may cancel."""
    assert actual.shape == expected.shape
    if actual.numel():
        assert torch.isfinite(actual).all()
        error = (actual.double() - expected).abs().max() / expected.abs().max().clamp(min=1)
        assert error <= tolerance, f"relative error {error:.1e}"


@settings(max_examples=200, deadline=None)
@given(problems(), st.integers(1, 3))
def test_ddf_up_is_one_ddf_a_sub_pixel(problem, scale) -> None:
    problem |= {"stride": (1, 1), "dtype": torch.float64}
    kinds = [None if problem["filters"] == "spatial" else "channel",
             None if problem["filters"] == "channel" else "spatial"]
    branches = [tensors_of({**problem, "seed": problem["seed"] + index}) for index in range(scale * scale)]
    input = branches[0][0].detach().requires_grad_()
    filters = [None if kind is None else torch.cat([branch[1 + place] for branch in branches], 1).requires_grad_()
               for place, kind in enumerate(kinds)]
    wanted = [tensor for tensor in (input, *filters) if tensor is not None]
    arguments = (problem["kernel_size"], problem["dilation"])
    ours = ddf_up(input, *filters, scale, *arguments, combine=problem["combine"])
    parts = [[None] * len(branches) if filter is None else filter.chunk(len(branches), 1) for filter in filters]
    theirs = torch.zeros_like(ours)
    for index, (channel, spatial) in enumerate(zip(*parts, strict=True)):
        row, column = divmod(index, scale)
        branch = by_the_equation(input, channel, spatial, problem["kernel_size"], (1, 1), problem["dilation"],
                                 problem["combine"])
        theirs[:, :, row::scale, column::scale] = branch
    close(ours, theirs.detach(), 1e-13)
    if problem["batch"]:
        sensitivity = torch.randn_like(ours)
        for actual, right in zip(torch.autograd.grad(ours, wanted, sensitivity),
                                 torch.autograd.grad(theirs, wanted, sensitivity), strict=True):
            close(actual, right, 1e-13)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 2), (1, 12)])
@pytest.mark.parametrize("size", [(13, 15), (14, 7), (40, 33)])
def test_without_a_spatial_filter_it_is_a_depthwise_convolution(channels_last, stride, dilation, size) -> None:
    input, filter = torch.randn(2, 6, *size), torch.randn(1, 6, 3, 3)
    if channels_last:
        input = input.contiguous(memory_format=torch.channels_last)
    convolved = F.conv2d(input, filter.transpose(0, 1), None, stride, dilation, dilation, groups=6)
    ones, zeros = (value.expand(2, 9, *convolved.shape[2:]) for value in (torch.ones(()), torch.zeros(())))
    for output in (ddf(input, filter, None, 3, stride, dilation), ddf(input, filter, ones, 3, stride, dilation),
                   ddf(input, filter, zeros, 3, stride, dilation, combine="add")):
        torch.testing.assert_close(output, convolved, rtol=1e-5, atol=1e-5)
        assert output.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


@pytest.mark.parametrize("combine", ["mul", "add"])
@pytest.mark.parametrize(("stride", "dilation", "heads"), [(1, 1, 1), (2, 1, 2), (1, 2, 1), (3, 1, 1)])
def test_gradients_twice(combine, stride, dilation, heads) -> None:
    size = -(-5 // stride)
    tensors = [torch.randn(shape, dtype=torch.float64).requires_grad_()
               for shape in ((2, 2, 5, 5), (1, 2, 3, 3), (2, heads * 9, size, size))]
    function = lambda *tensors: ddf(*tensors, 3, stride, dilation, combine=combine)  # noqa: E731
    assert torch.autograd.gradcheck(function, tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, tensors, fast_mode=True)


def test_only_wanted_gradients_are_computed(monkeypatch) -> None:
    input, channel, spatial = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 3, 3), torch.randn(1, 9, 4, 4)
    channel.requires_grad_()
    wanted = []
    original = OPERATORS.ddf_backward
    monkeypatch.setattr(OPERATORS, "ddf_backward", lambda *given: wanted.append(given[-1]) or original(*given))
    ddf(input, channel, spatial).sum().backward()
    assert wanted == [[False, True, False]]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "slice of channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("add", "stride", "scale"), [(False, 1, 1), (True, 2, 1), (False, 1, 2)])
def test_operator_keeps_pytorchs_rules(layout, dtype, add, stride, scale) -> None:
    input = laid_out(torch.randn(2, 4, 5, 6, dtype=dtype), layout)
    channel = torch.randn(2, scale * scale * 4, 3, 3, dtype=dtype)
    size = (-(-5 // stride), -(-6 // stride))
    spatial = laid_out(torch.randn(2, scale * scale * 18, *size, dtype=dtype), layout)
    geometry = ([3, 3], [stride, stride], [1, 1], add)
    torch.library.opcheck(OPERATORS.ddf.default, (input, channel, spatial, *geometry, scale))
    vectors = [torch.randn(rows * 9 * scale * scale) for rows in (4, 4, 2, 2)]
    torch.library.opcheck(OPERATORS.ddf.default, (input, channel, spatial, *geometry, scale, *vectors, None))
    if scale == 1:
        gradient = laid_out(torch.randn(2, 4, *size, dtype=dtype), layout)
        for wanted in ([True, True, True], [False, True, False]):
            given = (gradient, input, channel, spatial, *geometry, wanted)
            torch.library.opcheck(OPERATORS.ddf_backward.default, given)


@pytest.mark.parametrize("eps", [None, 1e-3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("scale", [1, 2])
def test_norms_on_the_way_are_the_norms_before(eps, dtype, layout, scale) -> None:
    from leanconv.ops.dynamic.norms import Norms

    branches = scale * scale
    input = laid_out(torch.randn(2, 8, 7, 9).to(dtype), layout)
    channel = torch.randn(2, branches * 8, 3, 3)
    spatial = laid_out(torch.randn(2, branches * 18, 7, 9).to(dtype), layout)
    norms = Norms(torch.randn(branches * 72), torch.randn(branches * 72), torch.randn(branches * 18), None, eps)
    arguments = ((3, 3), (1, 1), (1, 1), False, scale)
    fused = OPERATORS.ddf(input, channel, spatial, *arguments, *norms)
    normed = (each.double() for each in norms.apply(channel, spatial, 9))
    expected = OPERATORS.ddf(input.double(), *normed, *arguments)
    close(fused, expected, 16 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_whole(dynamic, backend) -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda *tensors: ddf(*tensors, stride=2).relu(), fullgraph=True, dynamic=dynamic,
                             backend=backend)
    for size in (7, 10):
        tensors = [torch.randn(shape).requires_grad_()
                   for shape in ((2, 4, size, size), (2, 4, 3, 3), (2, 18, -(-size // 2), -(-size // 2)))]
        expected = ddf(*tensors, stride=2).relu()
        output = compiled(*tensors)
        torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
        for actual, right in zip(torch.autograd.grad(output.square().sum(), tensors),
                                 torch.autograd.grad(expected.square().sum(), tensors), strict=True):
            torch.testing.assert_close(actual, right, rtol=1e-4, atol=1e-4)


def test_exports_to_standard_operators_alone() -> None:
    class Filter(torch.nn.Module):
        def forward(self, *tensors):
            return ddf(*tensors, stride=2)

    tensors = (torch.randn(2, 4, 9, 8), torch.randn(2, 4, 3, 3), torch.randn(2, 9, 5, 4))
    program = torch.export.export(Filter(), tensors, strict=True)
    spaces = {node.target.namespace for node in program.graph.nodes if node.op == "call_function"
              and hasattr(node.target, "namespace")}
    assert spaces == {"aten"}
    torch.testing.assert_close(program.module()(*tensors), ddf(*tensors, stride=2), rtol=1e-5, atol=1e-5)


def test_the_flop_counter_counts_as_the_paper_does() -> None:
    library.count_operations()
    input, channel, spatial = torch.randn(2, 4, 5, 6), torch.randn(2, 4, 3, 3), torch.randn(2, 9, 5, 6)
    for filters, each in (((channel, spatial), 3), ((channel, None), 2), ((None, spatial), 2)):
        with FlopCounterMode(display=False) as counter:
            ddf(input, *filters)
        assert counter.get_total_flops() == each * 9 * input.numel()


def test_autocast_filters_in_the_lower_precision() -> None:
    input, channel, spatial = torch.randn(2, 4, 5, 6), torch.randn(2, 4, 3, 3), torch.randn(2, 9, 5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        output = ddf(input, channel, spatial)
        assert ddf(input.double(), channel.double(), spatial.double()).dtype == torch.float64
    assert output.dtype == torch.bfloat16
    close(output, ddf(input.double(), channel.double(), spatial.double()), 16 * torch.finfo(torch.bfloat16).eps)


INPUT, CHANNEL, SPATIAL = torch.randn(2, 4, 6, 7), torch.randn(2, 4, 3, 3), torch.randn(2, 9, 6, 7)


@pytest.mark.parametrize(("arguments", "options", "message"), [
    ((INPUT, None, None), {}, r"got None for both"),
    ((INPUT, CHANNEL, SPATIAL), {"kernel_size": 2}, r"odd: an even kernel has no centre, got \(2, 2\)"),
    ((INPUT, CHANNEL, SPATIAL), {"stride": 0}, r"at least 1, got \(0, 0\)"),
    ((INPUT, CHANNEL, SPATIAL), {"combine": "max"}, r"combine.*max"),
    ((INPUT[0, 0], CHANNEL, SPATIAL), {}, r"got shape \(6, 7\)"),
    ((INPUT, CHANNEL[:, :3], SPATIAL), {}, r"channel_filter must have shape \(2, 4, 3, 3\).* got \(2, 3, 3, 3\)"),
    ((INPUT, CHANNEL[0], SPATIAL), {}, r"channel_filter must have shape"),
    ((INPUT, CHANNEL, SPATIAL[:, :8]), {}, r"\(2, 9 · heads, 6, 7\), or batch 1, got \(2, 8, 6, 7\)"),
    ((INPUT, CHANNEL, SPATIAL), {"stride": 2}, r"\(2, 9 · heads, 3, 4\)"),
    ((INPUT, None, torch.randn(3, 9, 6, 7)), {}, r"got \(3, 9, 6, 7\)"),
    ((INPUT, CHANNEL, SPATIAL.repeat(1, 3, 1, 1)), {}, r"3 heads, 4 channels"),
    ((INPUT, CHANNEL.to("meta"), SPATIAL), {}, r"channel_filter must be on cpu as the input, got meta"),
])
def test_bad_arguments(arguments, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        ddf(*arguments, **options)


def test_bad_dtype_and_scale() -> None:
    with pytest.raises(TypeError, match=r"spatial_filter must be torch.float32 as the input, or .* got torch.float16"):
        ddf(INPUT, CHANNEL, SPATIAL.half())
    with pytest.raises(ValueError, match=r"scale must be at least 1, got .* 0"):
        ddf_up(INPUT, CHANNEL, SPATIAL, scale=0)


def test_filters_may_be_more_exact_than_the_input() -> None:
    """As FilterNorm gives them: in float32, whatever the input's dtype."""
    output = ddf(INPUT.bfloat16(), CHANNEL, SPATIAL)
    assert output.dtype == torch.bfloat16
    close(output, ddf(INPUT.bfloat16().double(), CHANNEL.double(), SPATIAL.double()), 2**-7)


def test_unbatched() -> None:
    torch.testing.assert_close(ddf(INPUT[0], CHANNEL[:1], SPATIAL[:1]), ddf(INPUT, CHANNEL, SPATIAL)[0])


@pytest.mark.parametrize("huge", [50_000, 2**31, 2**62])
def test_dilations_and_strides_beyond_the_map(huge) -> None:
    """All taps but the centre's meet zeros; one output pixel is left."""
    input, channel, spatial = (tensor.clone().requires_grad_() for tensor in (INPUT, CHANNEL, SPATIAL))
    centre = channel[:, :, 1:2, 1:2]
    output = ddf(input, channel, spatial, dilation=huge)
    torch.testing.assert_close(output, input * centre * spatial[:, 4:5])
    output.sum().backward()
    assert channel.grad.count_nonzero() == 8
    strided = ddf(INPUT, CHANNEL, SPATIAL[:, :, :1, :1], stride=huge)
    torch.testing.assert_close(strided, ddf(INPUT, CHANNEL, SPATIAL[:, :, :1, :1].expand(-1, -1, 6, 7))[:, :, :1, :1])


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_function_transforms() -> None:
    input, direction = INPUT.double(), torch.randn_like(INPUT).double()
    filters = CHANNEL.double(), SPATIAL.double()
    _, tangent = torch.func.jvp(lambda input: ddf(input, *filters), (input,), (direction,))
    torch.testing.assert_close(tangent, ddf(direction, *filters))
    found = torch.func.grad(lambda input: ddf(input, *filters).sum())(input)
    leaf = input.clone().requires_grad_()
    ddf(leaf, *filters).sum().backward()
    torch.testing.assert_close(found, leaf.grad)


def test_whole_numbers_are_refused_under_autocast_too() -> None:
    with torch.autocast("cpu"):
        with pytest.raises(TypeError, match=r"channel_filter must be torch.float32 .* got torch.int64"):
            ddf(INPUT, CHANNEL.long(), None)
        with pytest.raises(TypeError, match=r"input must hold real numbers, got torch.int64"):
            ddf(INPUT.long(), CHANNEL, None)
