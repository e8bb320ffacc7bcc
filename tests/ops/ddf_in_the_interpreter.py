"""The Triton kernels of the dynamic filter against its definition, on the CPU in Triton's interpreter.

`test_ddf_gpu.py` runs this file in a process of its own with TRITON_INTERPRET=1, which Triton reads as it is imported.
"""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leanconv.ops.dynamic import gpu, library, slices
from leanconv.ops.dynamic.geometry import Geometry
from leanconv.ops.dynamic.norms import Norms

LAYOUTS = ["contiguous", "channels_last", "slice", "slice of channels_last", "transposed"]
# The interpreter cuts bfloat16 off where a GPU rounds.
TOLERANCES = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Programs run one after another here: few, but more than one for an image."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "ENOUGH", 3)
        yield


def laid_out(tensor, layout):
    if layout == "transposed":
        return tensor.transpose(2, 3).contiguous().transpose(2, 3)
    wide = torch.cat([tensor, tensor], 1) if "slice" in layout else tensor
    if "last" in layout:
        wide = wide.contiguous(memory_format=torch.channels_last)
    return wide[:, : tensor.shape[1]]


def compare(
    *, batch=1, channels=4, size=(3, 5), heads=1, kernel_size=(3, 3), stride=(1, 1), dilation=(1, 1), scale=1,
    filters="both", shared=False, combine="mul", layouts=("contiguous", "contiguous"), dtype=torch.float32,
    filter_dtype=None, norms="none", seed=0,
):  # fmt: skip
    """Output and gradients: near the definition's in float64, and laid out as the compiler is told."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape, dtype=dtype):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    filter_dtype = filter_dtype or dtype
    taps, branches = kernel_size[0] * kernel_size[1], scale * scale
    geometry = Geometry(kernel_size, stride, dilation, combine == "add", scale)
    output_size = [-(-extent // step) for extent, step in zip(size, stride, strict=True)]
    input = laid_out(random(batch, channels, *size), layouts[0])
    one = 1 if shared else batch
    channel = spatial = None
    if filters != "spatial":
        channel = random(one, branches * channels, *kernel_size, dtype=filter_dtype).expand(batch, -1, -1, -1)
    if filters != "channel":
        spatial = laid_out(random(one, branches * heads * taps, *output_size, dtype=filter_dtype), layouts[1])
        spatial = spatial.expand(batch, -1, -1, -1)
    vectors = [random(branches * rows * taps, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
               for rows in (channels, channels, heads, heads)]
    norm = {"none": Norms(), "published": Norms(vectors[0], None, vectors[2], vectors[3]),
            "safe": Norms(vectors[0], vectors[1], vectors[2], None, 1e-3)}[norms]

    exact = [None if tensor is None else tensor.double() for tensor in (input, channel, spatial)]
    exact_norm = Norms(*(vector.double() if isinstance(vector, torch.Tensor) else vector for vector in norm))
    output = gpu.forward(input, channel, spatial, geometry, norm)
    assert laid_out_as(output, library.fake_forward(input, channel, spatial, *geometry))
    close(output, slices.forward(*exact, geometry, exact_norm), TOLERANCES[dtype])
    if scale == 1 and norms == "none":  # the operator has no gradients of raw filters or of an upsampling
        gradient = laid_out(random(*output.shape), layouts[0])
        wanted = [True, channel is not None, spatial is not None]
        found = gpu.backward(gradient, input, channel, spatial, geometry, wanted)
        fakes = library.fake_backward(gradient, input, channel, spatial, *geometry[:4], wanted)
        expected = slices.backward(gradient.double(), *exact, geometry, wanted)
        for actual, fake, right in zip(found, fakes, expected, strict=True):
            assert laid_out_as(actual, fake)
            close(actual, right, TOLERANCES[actual.dtype])


def laid_out_as(actual, fake) -> bool:
    return (actual.shape, actual.stride(), actual.dtype) == (fake.shape, fake.stride(), fake.dtype)


def close(actual, expected, tolerance) -> None:
    if actual.numel():
        error = float((actual.double() - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
        assert error <= tolerance, f"relative error {error:.1e}"


QUICK = [("contiguous", "mul"), ("channels_last", "add"), ("slice of channels_last", "mul")]


@pytest.mark.parametrize(("layout", "combine"), [
    *QUICK, *(pytest.param(*case, marks=pytest.mark.slow)
              for case in product(LAYOUTS, ("mul", "add")) if case not in QUICK),
])
def test_neighbours(layout, combine) -> None:
    compare(channels=6, heads=2, combine=combine, layouts=(layout, layout), batch=2, size=(4, 3))


@pytest.mark.parametrize("filters", ["channel", "spatial"])
@pytest.mark.parametrize("kernel_size", [(3, 3), (3, 1)])
def test_one_filter(filters, kernel_size) -> None:
    compare(filters=filters, kernel_size=kernel_size)


@pytest.mark.parametrize("problem", [
    dict(stride=(2, 2), size=(7, 6)), dict(stride=(2, 2), size=(8, 5), combine="add", heads=2),
    dict(stride=(3, 1), dilation=(1, 2), size=(7, 4)), dict(dilation=(8, 8), size=(9, 10)),
    dict(kernel_size=(5, 5), stride=(2, 2)), dict(kernel_size=(1, 1), stride=(2, 2)),
    dict(kernel_size=(1, 7), dilation=(1, 2)), dict(kernel_size=(1, 9), layouts=("channels_last", "contiguous")),
])
def test_geometry(problem) -> None:
    compare(**problem)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stride", [1, 2])
def test_dtypes(dtype, stride) -> None:
    compare(dtype=dtype, stride=(stride, stride), channels=3, layouts=("channels_last", "channels_last"))
    if dtype != torch.float64:
        compare(dtype=dtype, filter_dtype=torch.float32, stride=(stride, stride))


@pytest.mark.parametrize("norms", ["published", "safe"])
@pytest.mark.parametrize("problem", [
    dict(dtype=torch.float64, heads=2, layouts=("channels_last", "contiguous")), dict(stride=(2, 2)),
    dict(kernel_size=(1, 3), filters="spatial"), dict(filters="channel"), dict(scale=2, kernel_size=(3, 1)),
    pytest.param(dict(scale=2, heads=2), marks=pytest.mark.slow),
])
def test_norms_on_the_way(norms, problem) -> None:
    compare(norms=norms, size=(3, 4), **problem)


def test_a_flat_filter_has_no_spread() -> None:
    """The mean of nine equal values is exactly that value; else rounding errors would be divided by each other."""
    input, filter = torch.randn(1, 2, 4, 4), torch.full((1, 2, 3, 3), 0.1)
    for kernel_size, dilation in (((3, 3), (1, 1)), ((3, 3), (2, 2))):
        output = gpu.forward(input, filter, None, Geometry(kernel_size, (1, 1), dilation, add=False),
                             Norms(torch.ones(18)))
        assert not output.count_nonzero()


@pytest.mark.parametrize("problem", [
    dict(scale=3), dict(scale=2, layouts=("channels_last", "channels_last"), combine="add"),
    dict(scale=2, dilation=(2, 1)), dict(scale=2, filters="spatial", heads=2),
    dict(scale=3, filters="channel", kernel_size=(1, 3)),
])
def test_upsampling(problem) -> None:
    compare(size=(4, 3), **problem)


def test_filters_of_all_samples() -> None:
    compare(shared=True, batch=2)
    compare(shared=True, batch=2, stride=(2, 2), layouts=("channels_last", "channels_last"))


@pytest.mark.parametrize("problem", [
    dict(channels=2, size=(3, 35)), dict(channels=5, size=(3, 9), stride=(1, 2)),
    dict(channels=10, heads=2, size=(2, 9), layouts=("channels_last", "contiguous")),
    dict(channels=6, heads=2, size=(3, 9), scale=2, norms="published"),
])
def test_more_than_one_block_of_everything(problem, monkeypatch) -> None:
    monkeypatch.setattr(gpu, "VALUES", 64)
    compare(**problem)


@pytest.mark.slow
def test_tiles_of_full_size() -> None:
    """And one more channel and column than fit into one."""
    compare(channels=17, size=(3, 33))
    compare(channels=129, size=(3, 5), layouts=("channels_last", "channels_last"))


@pytest.mark.parametrize("problem", [dict(batch=0), dict(channels=1, size=(1, 1)), dict(channels=1, size=(1, 5))])
def test_small_and_empty(problem) -> None:
    compare(**problem)


def test_a_gradient_that_is_one_number() -> None:
    tensors = [torch.randn(shape) for shape in ((2, 4, 5, 6), (2, 4, 3, 3), (2, 9, 5, 6))]
    geometry = Geometry((3, 3), (1, 1), (1, 1), add=False)
    sensitivity = torch.ones(()).expand(2, 4, 5, 6)
    for actual, right in zip(gpu.backward(sensitivity, *tensors, geometry, [True] * 3),
                             slices.backward(sensitivity, *tensors, geometry, [True] * 3), strict=True):
        close(actual, right.double(), 1e-6)


def test_only_wanted_gradients() -> None:
    tensors = [torch.randn(shape) for shape in ((2, 4, 5, 6), (2, 4, 5, 6), (2, 4, 3, 3), (2, 9, 5, 6))]
    for index in range(3):
        wanted = [place == index for place in range(3)]
        found = gpu.backward(*tensors, Geometry((3, 3), (1, 1), (1, 1), add=False), wanted)
        assert [gradient.numel() > 0 for gradient in found] == wanted


@st.composite
def problems(draw):
    heads = draw(st.sampled_from([1, 1, 2, 3]))
    stride = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (3, 3), (1, 2), (3, 1)]))
    return dict(
        batch=draw(st.integers(0, 2)), heads=heads, channels=heads * draw(st.sampled_from([1, 2, 5, 17])),
        stride=stride, size=(draw(st.integers(1, 9)), draw(st.integers(1, 9))),
        kernel_size=draw(st.sampled_from([(3, 3), (3, 3), (3, 3), (1, 1), (1, 3), (5, 1), (3, 5)])),
        dilation=draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 3), (8, 8)])),
        scale=draw(st.sampled_from([1, 1, 2])) if stride == (1, 1) else 1,
        filters=draw(st.sampled_from(["both", "both", "channel", "spatial"])), shared=draw(st.booleans()),
        combine=draw(st.sampled_from(["mul", "add"])),
        layouts=(draw(st.sampled_from(LAYOUTS)), draw(st.sampled_from(LAYOUTS))),
        dtype=draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16])), seed=draw(st.integers(0, 99)),
    )


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems())
def test_anything(problem) -> None:
    compare(**problem)
