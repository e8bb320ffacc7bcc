"""What every layer promises, whatever it computes."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from contract.case import Case
from contract.cases import CASES, distributed_worker, gradients_of_one_process
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

every_layer = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
every_image_layer = pytest.mark.parametrize(
    "case", [case for case in CASES if case.spatial], ids=lambda case: case.name.replace(" ", "-")
)


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance, check_stride=False)


def gradients(layer: nn.Module, compute, input: Tensor) -> list[Tensor]:
    leaf = input.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    output = compute(leaf)
    return [output, *torch.autograd.grad(output.square().sum(), [leaf, *layer.parameters()])]


@every_layer
def test_equals_its_definition(case: Case) -> None:
    layer = case.layer().double()
    input = case.input(dtype=torch.float64)
    ours = gradients(layer, layer, input)
    theirs = gradients(layer, lambda leaf: case.reference(layer, leaf), input)
    for actual, expected in zip(ours, theirs, strict=True):
        close(actual, expected, 1e-11)


@every_image_layer
def test_channels_last_gives_the_same_numbers_and_keeps_the_format(case: Case) -> None:
    layer = case.layer()
    expected = case.reference(layer, case.input())
    for module in (layer, copy.deepcopy(layer).to(memory_format=torch.channels_last)):
        output = module(case.input().contiguous(memory_format=torch.channels_last))
        assert output.is_contiguous(memory_format=torch.channels_last)
        close(output, expected)
        plain = module(case.input())
        assert plain.is_contiguous()
        close(plain, expected)


@every_image_layer
def test_gradients_in_channels_last(case: Case) -> None:
    layer = case.layer().double()
    input = case.input(dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    for actual, expected in zip(gradients(layer, layer, input),
                                gradients(layer, lambda leaf: case.reference(layer, leaf), input), strict=True):
        close(actual, expected, 1e-11)


@every_layer
def test_gradcheck(case: Case) -> None:
    layer = case.layer().double()
    shape = (2, *case.shape[1:2], 4, 5) if case.spatial else case.shape
    assert torch.autograd.gradcheck(layer, case.input(*shape, dtype=torch.float64).requires_grad_(), fast_mode=True)
    assert torch.autograd.gradgradcheck(layer, case.input(*shape, dtype=torch.float64).requires_grad_(), fast_mode=True)


@every_image_layer
def test_non_contiguous_input(case: Case) -> None:
    layer = case.layer()
    batch, channels, height, width = case.shape
    wider = case.input(batch, channels + 2, height, width)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        slice_of_channels = wider.contiguous(memory_format=memory_format)[:, 1:-1]
        close(layer(slice_of_channels), case.reference(layer, slice_of_channels.contiguous()))
    transposed = case.input(batch, channels, width, height).transpose(2, 3)
    close(layer(transposed), case.reference(layer, transposed.contiguous()))


@every_layer
def test_batch_of_none_has_zero_gradients(case: Case) -> None:
    layer = case.layer()
    empty = case.input(0, *case.shape[1:]).requires_grad_()
    output = layer(empty)
    assert output.shape == (0, *layer(case.input()).shape[1:])
    output.sum().backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in layer.parameters())


@every_layer
def test_unbatched(case: Case) -> None:
    layer = case.layer()
    close(layer(case.input()[0]), layer(case.input())[0])


@every_image_layer
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (7, 9), (8, 5)])
def test_small_and_odd_sizes(case: Case, size: tuple[int, int]) -> None:
    if "reflect" in case.name and 1 in size:
        pytest.skip("PyTorch reflects no map of one pixel")
    layer = case.layer()
    for memory_format in (torch.contiguous_format, torch.channels_last):
        input = case.input(2, case.shape[1], *size).contiguous(memory_format=memory_format)
        close(layer(input), case.reference(layer, input))


@every_layer
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_near_single(case: Case, dtype: torch.dtype) -> None:
    layer = case.layer()
    half, expected = copy.deepcopy(layer).to(dtype), case.reference(layer, case.input())
    output = half(case.input().to(dtype))
    assert output.dtype == dtype
    error = (output.float() - expected).norm() / expected.norm()
    assert error < 4 * torch.finfo(dtype).eps


@every_layer
def test_autocast(case: Case) -> None:
    layer = case.layer()
    expected = case.reference(layer, case.input())
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(case.input())
    error = (output.float() - expected).norm() / expected.norm()
    assert 0 < error < 4 * torch.finfo(torch.bfloat16).eps
    output.float().square().sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in layer.parameters())


@every_layer
def test_deterministic_and_writes_all_that_it_allocates(case: Case) -> None:
    layer = case.layer()
    expected = gradients(layer, layer, case.input())
    torch.use_deterministic_algorithms(True)  # fills what `torch.empty` gives with NaN, too
    try:
        assert torch.utils.deterministic.fill_uninitialized_memory
        for _ in range(2):
            for actual, first in zip(gradients(layer, layer, case.input()), expected, strict=True):
                close(actual, first)
    finally:
        torch.use_deterministic_algorithms(False)


@every_layer
def test_state_dict_copy_and_pickle(case: Case) -> None:
    layer = case.layer().eval()
    expected = layer(case.input())
    fresh = case.build().eval()
    fresh.load_state_dict(layer.state_dict(), strict=True)
    stored = io.BytesIO()
    torch.save(layer.state_dict(), stored)
    stored.seek(0)
    torch.load(stored, weights_only=True)
    for other in (fresh, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(case.input()), expected)


@every_layer
def test_flop_counter_sees_it(case: Case) -> None:
    layer = case.layer()
    formats = [torch.contiguous_format, torch.channels_last] if case.spatial else [torch.contiguous_format]
    for memory_format in formats:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            layer(case.input().contiguous(memory_format=memory_format))
        assert counter.get_total_flops() == 2 * case.macs


@every_layer
def test_device_and_dtype_arguments(case: Case) -> None:
    layer = case.build(device="meta", dtype=torch.float16)
    assert {(parameter.device.type, parameter.dtype) for parameter in layer.parameters()} == {("meta", torch.float16)}
    assert layer(torch.empty(case.shape, device="meta", dtype=torch.float16)).shape == case.layer()(case.input()).shape


@pytest.mark.parametrize(("make", "message"), [refusal for case in CASES for refusal in case.refuses])
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@every_layer
def test_traces_whole(case: Case) -> None:
    formats = [torch.contiguous_format, torch.channels_last] if case.spatial else [torch.contiguous_format]
    compiled_equals_eager(case, "aot_eager", *formats)


@pytest.mark.slow
@pytest.mark.parametrize("case", {getattr(case.build, "func", case.build): case for case in reversed(CASES)}.values(),
                         ids=lambda case: case.name.replace(" ", "-"))
def test_compiles_whole(case: Case) -> None:
    """The first case of each layer, in one format: a C++ compiler takes its time."""
    compiled_equals_eager(case, "inductor", torch.channels_last if case.spatial else torch.contiguous_format)


def compiled_equals_eager(case: Case, backend: str, *formats: torch.memory_format) -> None:
    torch.compiler.reset()
    layer = case.layer()
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    for memory_format in formats:
        input = case.input().contiguous(memory_format=memory_format)
        for actual, expected in zip(gradients(layer, compiled, input), gradients(layer, layer, input), strict=True):
            close(actual, expected, 1e-4)


def dynamic_shapes(case: Case) -> tuple[dict[int, object]]:
    dimensions = (0, 2, 3) if case.spatial else (0,)
    return (dict.fromkeys(dimensions, torch.export.Dim.DYNAMIC),)


def other_shape(case: Case) -> tuple[int, ...]:
    return (5, case.shape[1], 9, 8) if case.spatial else (5, case.shape[1])


@every_layer
def test_exports_with_dynamic_shapes(case: Case) -> None:
    layer = case.layer().eval()
    program = torch.export.export(layer, (case.input(),), dynamic_shapes=dynamic_shapes(case), strict=True)
    other = case.input(*other_shape(case))
    close(program.module()(other), layer(other))


@pytest.mark.slow
@every_layer
@pytest.mark.filterwarnings("ignore")
def test_onnx_gives_the_same_numbers(case: Case, tmp_path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    layer = case.layer().eval()
    path = str(tmp_path / "layer.onnx")
    torch.onnx.export(layer, (case.input(),), path, dynamo=True, dynamic_shapes=dynamic_shapes(case), verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for shape in (case.shape, other_shape(case)):
        input = case.input(*shape)
        (output,) = session.run(None, {session.get_inputs()[0].name: input.numpy()})
        close(torch.from_numpy(output), layer(input).detach(), 1e-4)


@pytest.mark.slow
def test_two_processes_share_a_batch(tmp_path) -> None:
    names = [case.name for case in CASES]
    arguments = (2, str(tmp_path / "rendezvous"), names, str(tmp_path))
    torch.multiprocessing.spawn(distributed_worker, args=arguments, nprocs=2)
    for rank in range(2):
        stored = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name in names:
            for actual, expected in zip(stored[name], gradients_of_one_process(name, 0, 2), strict=True):
                close(actual, expected)
