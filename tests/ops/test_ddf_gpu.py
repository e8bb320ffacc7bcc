"""The Triton kernels: right in Triton's interpreter, compiled for GPUs that aren't there, and run on one that is."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from leanconv.ops import ddf, ddf_up
from leanconv.ops.dynamic import gpu
from leanconv.ops.dynamic.geometry import Geometry
from leanconv.ops.dynamic.norms import Norms

has_triton = importlib.util.find_spec("triton") is not None
with_triton = pytest.mark.skipif(not has_triton, reason="triton is not installed")
on_a_gpu = pytest.mark.skipif(not (torch.cuda.is_available() and has_triton), reason="there is no GPU with triton")
FORMATS = {False: torch.contiguous_format, True: torch.channels_last}


def run_in_the_interpreter(marker: str) -> None:
    file = Path(__file__).with_name("ddf_in_the_interpreter.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", marker, str(file)],
        env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert re.search(r"\d+ passed", done.stdout), done.stdout[-5000:]


@with_triton
def test_kernels_are_the_definition() -> None:
    run_in_the_interpreter("not slow")


@with_triton
@pytest.mark.slow
def test_kernels_are_the_definition_over_everything() -> None:
    run_in_the_interpreter("slow")


class AbsentGpu:
    """Tells Triton to compile for a GPU, known by its compute capability, that need not be there."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability  # each target has a cache of its own

    def get_current_stream(self, device: int) -> int:
        return 0


@pytest.fixture(params=[80, 90])
def compiled(request, monkeypatch):
    """What the launches of a test compiled, by name; nothing is run."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    kernels = []

    def compile_alone(kernel, grid):
        return lambda *args, **options: kernels.append((kernel.fn.__name__, kernel.warmup(*args, grid=grid, **options)))

    monkeypatch.setattr(driver, "_active", AbsentGpu(request.param))
    monkeypatch.setattr(JITFunction, "__getitem__", compile_alone)
    return kernels


def resources(kernel, folder: Path) -> dict[str, int]:
    """Registers, and bytes of stack, of a compiled kernel; what a kernel spills lies on its stack."""
    import triton

    program = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    binary = folder / "kernel.cubin"
    binary.write_bytes(kernel.asm["cubin"])
    listing = subprocess.run([program, "-res-usage", binary], capture_output=True, text=True, check=True).stdout
    return {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", listing)}


def launch(*, channels, size, channels_last, dtype, heads=1, kernel=3, stride=1, scale=1, norms=False, add=False,
           filters="both", backward=True, batch=8) -> None:  # fmt: skip
    """Forward and backward, of tensors that nobody reads."""
    branches, taps, out = scale * scale, kernel * kernel, -(-size // stride)

    def empty(*shape):
        return torch.empty(shape, dtype=dtype, memory_format=FORMATS[channels_last])

    input = empty(batch, channels, size, size)
    channel = empty(batch, branches * channels, kernel, kernel).contiguous() if filters != "spatial" else None
    spatial = empty(batch, branches * heads * taps, out, out) if filters != "channel" else None
    geometry = Geometry((kernel, kernel), (stride, stride), (1, 1), add, scale)
    vectors = [torch.empty(branches * rows * taps) for rows in (channels, channels, heads, heads)]
    gpu.forward(input, channel, spatial, geometry, Norms(*vectors) if norms else Norms())
    if backward and scale == 1:
        gpu.backward(empty(batch, channels, out, out), input, channel, spatial, geometry, [True] * 3)


def check(compiled, folder: Path, *names: str) -> None:
    assert [name for name, _ in compiled] == list(names)
    for name, kernel in compiled:
        used = resources(kernel, folder)
        assert used["STACK"] == used["LOCAL"] == 0, f"{name} spills: {used}"
        assert used["REG"] <= 255


ALL = ("gradient_of_channel", "gradient_of_spatial")


@with_triton
@pytest.mark.parametrize("channels_last", [False, True])
def test_compiles_without_spilling(channels_last, compiled, tmp_path) -> None:
    launch(channels=64, size=56, channels_last=channels_last, dtype=torch.float32)
    check(compiled, tmp_path, "slide", "slide", *ALL)


@with_triton
@pytest.mark.slow
@pytest.mark.parametrize("channels_last", [False, True])
class TestCompilesWithoutSpilling:
    """Every kernel in every shape of tile that is chosen for usual layers."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize(("channels", "size"), [(512, 7), (256, 14), (1, 512), (8, 64), (64, 64)])
    def test_neighbours(self, channels, size, channels_last, dtype, compiled, tmp_path) -> None:
        launch(channels=channels, size=size, channels_last=channels_last, dtype=dtype)
        check(compiled, tmp_path, "slide", "slide", *ALL)

    @pytest.mark.parametrize(("channels", "size"), [(64, 56), (512, 7)])
    @pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 1)])
    def test_any_geometry(self, channels, size, kernel, stride, channels_last, compiled, tmp_path) -> None:
        launch(channels=channels, size=size, kernel=kernel, stride=stride, channels_last=channels_last,
               dtype=torch.float32)
        check(compiled, tmp_path, "gather", "gather", *ALL)

    @pytest.mark.parametrize("options", [
        dict(norms=True, size=56), dict(norms=True, kernel=5), dict(norms=True, scale=2), dict(kernel=5, scale=2),
        dict(heads=8), dict(add=True), dict(filters="channel"), dict(filters="spatial"),
    ])
    def test_variants(self, options, channels_last, compiled, tmp_path) -> None:
        launch(**{"channels": 64, "size": 28, "channels_last": channels_last, "dtype": torch.float32, **options})
        for name, kernel in compiled:
            used = resources(kernel, tmp_path)
            assert used["STACK"] == used["LOCAL"] == 0, f"{name} spills: {used}"


@with_triton
@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 2])
def test_float64_compiles(stride, compiled) -> None:
    launch(channels=64, size=28, stride=stride, channels_last=False, dtype=torch.float64, norms=stride == 1)
    assert len(compiled) == 4


def test_without_a_gpu_there_are_no_kernels(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.has_triton.cache_clear()
    assert not gpu.available(torch.float32)
    gpu.has_triton.cache_clear()


@on_a_gpu
def test_takes_the_kernels() -> None:
    assert gpu.available(torch.float32)
    assert gpu.available(torch.bfloat16)
    assert not gpu.available(torch.int8)


@on_a_gpu
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("channels", "size", "stride", "kernel", "heads", "scale"), [
    (64, 56, 1, 3, 1, 1), (512, 7, 1, 3, 1, 1), (48, 33, 2, 3, 3, 1), (20, 13, 1, 5, 2, 1), (16, 9, 1, 3, 1, 2),
])
def test_on_the_gpu(channels, size, stride, kernel, heads, scale, dtype, channels_last) -> None:
    def random(*shape):
        values = torch.randn(shape, dtype=torch.float64).to(dtype)
        return values.to("cuda", memory_format=FORMATS[channels_last])

    out, branches = -(-size // stride), scale * scale
    tensors = [random(2, channels, size, size), random(2, branches * channels, kernel, kernel),
               random(2, branches * heads * kernel * kernel, out, out)]
    sensitivity = random(2, channels, out * scale, out * scale)
    results = []
    for leaves in (tensors, [tensor.cpu().double() for tensor in tensors]):
        leaves = [leaf.detach().requires_grad_() for leaf in leaves]
        output = ddf_up(*leaves, scale, kernel) if scale > 1 else ddf(*leaves, kernel, stride)
        results.append([output, *torch.autograd.grad(output, leaves, sensitivity.to(output))])
    tolerance = 32 * torch.finfo(dtype).eps
    for actual, right in zip(*results, strict=True):
        assert float((actual.cpu().double() - right).abs().max() / right.abs().max()) < tolerance


@on_a_gpu
@pytest.mark.parametrize("channels_last", [False, True])
def test_pytorchs_rules_on_the_gpu(channels_last) -> None:
    tensors = [torch.randn(shape, device="cuda").contiguous(memory_format=FORMATS[channels_last])
               for shape in ((2, 4, 6, 7), (2, 4, 3, 3), (2, 18, 6, 7))]
    geometry = ([3, 3], [1, 1], [1, 1], False)
    torch.library.opcheck(torch.ops.leanconv.ddf.default, (*tensors, *geometry, 1))
    gradient = torch.randn_like(tensors[0])
    torch.library.opcheck(torch.ops.leanconv.ddf_backward.default, (gradient, *tensors, *geometry, [True] * 3))
    compiled = torch.compile(lambda *tensors: ddf(*tensors).relu(), fullgraph=True)
    torch.testing.assert_close(compiled(*tensors), ddf(*tensors).relu())


@on_a_gpu
def test_in_a_cuda_graph() -> None:
    tensors = [torch.randn(shape, device="cuda") for shape in ((2, 4, 6, 7), (2, 4, 3, 3), (2, 9, 6, 7))]
    expected = ddf(*tensors)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = ddf(*tensors)
    graph.replay()
    torch.testing.assert_close(output, expected)
