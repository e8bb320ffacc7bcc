"""The native kernels against the definition in float64, over all that they take, in each instruction set."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leanconv.ops import native
from leanconv.ops.dynamic import cpu, library, reference
from leanconv.ops.dynamic.geometry import Geometry
from leanconv.ops.dynamic.norms import Norms

pytestmark = pytest.mark.skipif(not cpu.available(torch.float32), reason="there are no native kernels here")

INSTRUCTION_SETS = {"this processor's": None, "AVX2": ("-mavx2", "-mfma", "-mf16c"), "plain": ("-march=x86-64",)}
LAYOUTS = ["contiguous", "channels_last", "channels_last", "slice", "slice of channels_last", "transposed"]
DTYPES = [torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16]


def laid_out(tensor, layout):
    if layout == "channels_last":
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "transposed":
        return tensor.transpose(2, 3).contiguous().transpose(2, 3)
    if "slice" in layout:
        wide = torch.cat([tensor, tensor.flip(1)], 1)
        if "last" in layout:
            wide = wide.contiguous(memory_format=torch.channels_last)
        return wide[:, : tensor.shape[1]]
    return tensor


@st.composite
def problems(draw):
    def some(*values):
        return draw(st.sampled_from(values))

    scale = some(1, 1, 1, 2, 3)
    kernel_size = some((3, 3), (3, 3), (3, 3), (1, 1), (5, 5), (7, 7), (15, 15), (1, 3), (5, 1), (3, 7))
    return {
        "batch": some(1, 2, 3), "heads": some(1, 1, 2, 3), "channels": some(1, 2, 5, 8, 16, 17, 20, 33, 40),
        "size": (draw(st.integers(1, 22)), draw(st.integers(1, 40))), "scale": scale, "kernel_size": kernel_size,
        "stride": (1, 1) if scale > 1 else some((1, 1), (1, 1), (2, 2), (3, 3), (1, 2), (3, 1)),
        "dilation": some((1, 1), (1, 1), (2, 2), (1, 3), (8, 8), (12, 2)),
        "given": some("both", "both", "both", "channel", "spatial"), "add": some(False, False, True),
        "shared": (draw(st.booleans()), draw(st.booleans())), "layouts": tuple(some(*LAYOUTS) for _ in range(4)),
        "dtype": some(*DTYPES), "exact_filters": draw(st.booleans()),
        "norms": some(None, None, (True, True, True, True), (True, False, True, False), (False, False, True, True)),
        "eps": some(None, 1e-3), "wanted": some((1, 1, 1), (1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)),
        "constant_gradient": some(False, False, True), "threads": some(1, 2, 3), "seed": draw(st.integers(0, 999)),
    }


def made(problem):
    """The input, both filters, the gradient and the norms of a problem."""
    generator = torch.Generator().manual_seed(problem["seed"])

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    batch, heads, branches = problem["batch"], problem["heads"], problem["scale"] ** 2
    if problem["given"] == "channel":
        heads = 1
    dtype = problem["dtype"]
    of_filters = torch.promote_types(dtype, torch.float32) if problem["exact_filters"] else dtype
    channels, taps = heads * problem["channels"], problem["kernel_size"][0] * problem["kernel_size"][1]
    size = [-(-extent // step) for extent, step in zip(problem["size"], problem["stride"], strict=True)]
    layouts, shared = problem["layouts"], problem["shared"]
    input = laid_out(random(batch, channels, *problem["size"]).to(dtype), layouts[0])
    channel, spatial = (
        laid_out(random(1 if share else batch, *shape).to(of_filters), layout).expand(batch, -1, -1, -1)
        if problem["given"] in (name, "both") else None
        for name, share, shape, layout in (
            ("channel", shared[0], (branches * channels, *problem["kernel_size"]), layouts[1]),
            ("spatial", shared[1], (branches * heads * taps, *size), layouts[2]))
    )
    gradient = laid_out(random(batch, channels, *size).to(dtype), layouts[3])
    if problem["constant_gradient"]:
        gradient = gradient[:1, :1, :1, :1].expand(gradient.shape)
    norms = Norms()
    if problem["norms"] and taps > 1:
        rows = [branches * channels] * 2 + [branches * heads] * 2
        vectors = [random(each * taps).float() if give else None
                   for each, give in zip(rows, problem["norms"], strict=True)]
        norms = Norms(*vectors, problem["eps"])
    return input, channel, spatial, gradient, norms


def exact(tensor):
    return None if tensor is None else tensor.double()


def close(actual, expected, dtype) -> None:
    assert actual.shape == expected.shape
    error = (actual.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-3)
    assert error < 16 * torch.finfo(dtype).eps, float(error)


@pytest.fixture(params=INSTRUCTION_SETS)
def instructions(request):
    """The kernels of one instruction set."""
    flags = INSTRUCTION_SETS[request.param]
    if flags is None:
        flags = native.flags_of_environment() or ()
    else:
        has = native.processor()
        if not has.startswith("x86_64"):
            pytest.skip("these are instruction sets of x86")
        if request.param == "AVX2" and not all(name in has for name in (" avx2 ", " fma ", " f16c ")):
            pytest.skip("this processor has no AVX2")
    threads = torch.get_num_threads()
    with native.using(flags):
        yield request.param
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def poisoned():
    """Fills all memory that is handed out with NaN."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(deterministic)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=problems())
def test_the_kernels_are_the_definition(instructions, problem) -> None:
    dtype = problem["dtype"]
    if not cpu.available(dtype):
        return
    input, channel, spatial, gradient, norms = made(problem)
    torch.set_num_threads(problem["threads"])
    geometry = Geometry(*(problem[name] for name in ("kernel_size", "stride", "dilation", "add", "scale")))
    output = cpu.forward(input, channel, spatial, geometry, norms)
    filters = Norms(*map(exact, norms[:4]), norms.eps).apply(exact(channel), exact(spatial), geometry.taps())
    close(output, reference.ddf(input.double(), *filters, geometry), dtype)
    fake = library.fake_forward(input, channel, spatial, *geometry)
    assert (output.stride(), output.dtype) == (fake.stride(), dtype)
    tensors = (input, channel, spatial)
    wanted = [bool(want) and tensor is not None for want, tensor in zip(problem["wanted"], tensors, strict=True)]
    if problem["scale"] > 1 or not any(wanted):
        return
    found = cpu.backward(gradient, *tensors, geometry, wanted)
    leaves = [None if tensor is None else tensor.double().requires_grad_() for tensor in tensors]
    of_those = [leaf for leaf, want in zip(leaves, wanted, strict=True) if want]
    expected = iter(torch.autograd.grad(reference.ddf(*leaves, geometry), of_those, gradient.double()))
    fakes = library.fake_backward(gradient, *tensors, *geometry[:4], wanted)
    for actual, tensor, fake, want in zip(found, tensors, fakes, wanted, strict=True):
        assert actual.shape == fake.shape == (tensor.shape if want else (0,))
        assert actual.stride() == fake.stride()
        if want:
            assert actual.dtype == tensor.dtype
            close(actual, next(expected), tensor.dtype)


LARGE = [("contiguous", 40, 1), ("channels_last", 40, 1), ("contiguous", 200, 2), ("channels_last", 200, 2)]


@pytest.mark.parametrize(("layout", "channels", "stride"), LARGE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_no_bit(layout, channels, stride, dtype) -> None:
    """Whole images are cut into several items of work, along rows and along channels."""
    generator = torch.Generator().manual_seed(0)
    size = -(-45 // stride), -(-70 // stride)
    input, channel, spatial, gradient = (
        laid_out(torch.randn(shape, generator=generator).to(dtype), layout)
        for shape in ((1, channels, 45, 70), (1, channels, 3, 3), (1, 18, *size), (1, channels, *size)))
    geometry = Geometry((3, 3), (stride, stride), (1, 1), add=False)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3, 2):
        torch.set_num_threads(threads)
        results.append((cpu.forward(input, channel, spatial, geometry, Norms()),
                        *cpu.backward(gradient, input, channel, spatial, geometry, [True] * 3)))
    torch.set_num_threads(before)
    leaves = [tensor.double().requires_grad_() for tensor in (input, channel, spatial)]
    output = reference.ddf(*leaves, geometry)
    expected = (output, *torch.autograd.grad(output, leaves, gradient.double()))
    for first, *others in zip(*results, strict=True):
        assert all(torch.equal(first, other) for other in others)
    for actual, right in zip(results[0], expected, strict=True):
        close(actual, right.detach(), dtype)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", [(0, 4, 5, 6), (2, 4, 0, 6), (2, 0, 5, 6)])
def test_nothing_to_do(layout, shape) -> None:
    input = laid_out(torch.empty(shape), layout)
    channel, spatial = torch.randn(shape[0], shape[1], 3, 3), torch.randn(shape[0], 9, *shape[2:])
    geometry = Geometry((3, 3), (1, 1), (1, 1), add=False)
    assert cpu.forward(input, channel, spatial, geometry, Norms()).shape == shape
    of_input, of_channel, of_spatial = cpu.backward(input, input, channel, spatial, geometry, [True] * 3)
    assert of_input.shape == shape
    assert not of_channel.any()
    assert not of_spatial.any()


def test_huge_kernels_are_left_to_the_definition() -> None:
    input, channel, spatial = torch.randn(1, 2, 6, 6), torch.randn(1, 2, 65, 65), torch.randn(1, 65 * 65, 6, 6)
    geometry = Geometry((65, 65), (1, 1), (1, 1), add=False)
    torch.testing.assert_close(cpu.forward(input, channel, spatial, geometry, Norms()),
                               reference.ddf(input, channel, spatial, geometry))
    found = cpu.backward(input, input, channel, spatial, geometry, [False, True, False])
    assert found[1].shape == channel.shape


def test_infinities_and_what_is_no_number() -> None:
    """Rounding to bfloat16 keeps both."""
    input = torch.tensor([float("inf"), float("-inf"), float("nan"), 3e38, 1.0]).bfloat16().view(1, 1, 1, 5)
    output = cpu.forward(input, torch.ones(1, 1, 1, 1), None, Geometry((1, 1), (1, 1), (1, 1), add=False), Norms())
    torch.testing.assert_close(output, input, equal_nan=True)


def test_turned_off_the_definition_runs() -> None:
    with native.using(None):
        assert not cpu.available(torch.float32)
    assert cpu.available(torch.float32)
    assert not cpu.available(torch.int32)


def test_sources_are_part_of_the_package() -> None:
    folder = Path(cpu.__file__).parent
    assert {path.name for path in folder.glob("*.[ch]")} >= {cpu.SOURCE.name, "ddf_memory.h", "ddf_pixels.h"}
    assert (native.HEADERS / "parallel.h").exists()
