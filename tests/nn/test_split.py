"""What is the split layer's own: a literal reference over all that it takes, folding, counts, a trained start."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from contract.split_cases import split_conv
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from leanconv.nn import SplitConv2d
from leanconv.nn.split import nearest_pointwise


def randomised(layer: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights, statistics and shifts: nothing is left at a value that hides it."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, tensor in layer.state_dict().items():
            if "running_var" in name:
                tensor.uniform_(0.3, 2)
            elif tensor.is_floating_point():
                tensor.normal_()
    return layer


def laid_out(input, layout: str):
    memory_format = torch.channels_last if "channels_last" in layout else torch.contiguous_format
    if layout == "transposed":
        return input.transpose(2, 3).contiguous().transpose(2, 3)
    if "slice" in layout:
        return torch.cat([input, input], 1).contiguous(memory_format=memory_format)[:, : input.shape[1]]
    return input.contiguous(memory_format=memory_format)


@st.composite
def problems(draw):
    groups, alpha = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([0.25, 0.5, 0.75, 1.0]))
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (3, 3), (5, 5), (1, 3), (5, 3)]))
    sides = st.tuples(st.integers(1, 3), st.integers(1, 3))
    stride, dilation = draw(sides), draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
    height, width = (
        max(draw(st.integers(1, 9)), d * (k - 1) + 1 - 2 * p, p + 1 if mode != "zeros" else 1)
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    )
    layout = draw(st.sampled_from(["contiguous", "channels_last", "slice", "channels_last slice", "transposed"]))
    layer = dict(in_channels=4 * groups, out_channels=groups * draw(st.integers(1, 3)), kernel_size=kernel,
                 stride=stride, padding=padding, dilation=dilation, padding_mode=mode, bias=draw(st.booleans()),
                 alpha=alpha, group_count=groups)
    dtype = draw(st.sampled_from([torch.float64, torch.float64, torch.float64, torch.float32]))
    return layer, (draw(st.integers(1, 3)), 4 * groups, height, width), layout, dtype, draw(st.integers(0, 999))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems())
def test_is_the_equation_folded_or_not(problem) -> None:
    arguments, shape, layout, dtype, seed = problem
    layer = randomised(SplitConv2d(**arguments, dtype=dtype), seed).eval()
    input = laid_out(torch.randn(shape, dtype=dtype), layout).requires_grad_()
    plain = nn.Conv2d(**{key: value for key, value in arguments.items() if key not in ("alpha", "group_count")})
    tolerance = 1e-10 if dtype == torch.float64 else 2e-3
    theirs = split_conv(layer, input)
    assert theirs.shape == plain(torch.empty(shape)).shape
    sensitivity = torch.randn_like(theirs)
    leaves = [input, *layer.parameters()]
    expected = torch.autograd.grad(theirs, leaves, sensitivity)
    ours = layer(input)
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance, check_stride=False)
    actual = torch.autograd.grad(ours, leaves, sensitivity)
    for mine, true in zip(actual, expected, strict=True):
        torch.testing.assert_close(mine, true, rtol=tolerance, atol=tolerance * (1 + float(true.abs().max())),
                                   check_stride=False)
    folded = layer.fused()(input)
    torch.testing.assert_close(folded, theirs, rtol=tolerance, atol=tolerance, check_stride=False)
    (gradient,) = torch.autograd.grad(folded, input, sensitivity)
    torch.testing.assert_close(gradient, expected[0], rtol=tolerance, check_stride=False,
                               atol=tolerance * (1 + float(expected[0].abs().max())))


@pytest.mark.parametrize("alpha", [0.5, 0.25, 1])
@pytest.mark.parametrize("bias", [True, False])
def test_folding_is_exact_and_leaves_no_norm(alpha, bias) -> None:
    layer = randomised(SplitConv2d(8, 12, 3, 2, 1, bias=bias, alpha=alpha)).double().eval()
    before = copy.deepcopy(layer.state_dict())
    folded = layer.fused()
    input = torch.randn(3, 8, 9, 7).double()
    torch.testing.assert_close(folded(input), layer(input), rtol=1e-12, atol=1e-12)
    assert type(folded) is SplitConv2d
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert folded.grouped.bias is not None
    assert folded.pointwise.bias is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())
    torch.testing.assert_close(folded.fused()(input), folded(input), rtol=0, atol=0)


def test_folding_a_frozen_channels_last_layer_keeps_it_so() -> None:
    layer = SplitConv2d(8, 12, 3, dtype=torch.bfloat16).to(memory_format=torch.channels_last).requires_grad_(False)
    folded = layer.eval().fused()
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert {parameter.dtype for parameter in folded.parameters()} == {torch.bfloat16}
    assert folded.grouped.weight.is_contiguous(memory_format=torch.channels_last)


def test_folding_refuses_what_goes_by_the_batch() -> None:
    layer = SplitConv2d(8, 12, 3)
    with pytest.raises(ValueError, match="eval mode"):
        layer.fused()
    layer.eval().redundant_norm.train()
    with pytest.raises(ValueError, match="eval mode"):
        layer.fused()
    layer.eval().representative_norm = nn.BatchNorm2d(12, track_running_stats=False).eval()
    with pytest.raises(ValueError, match="running statistics"):
        layer.fused()


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("size", [(7, 9), (225, 11), (8, 5), (1, 1)])
def test_odd_maps(stride, size) -> None:
    """The authors' layer crashes where the sizes don't divide by the stride."""
    layer = randomised(SplitConv2d(4, 6, 3, stride, 1)).eval()
    input = torch.randn(1, 4, *size)
    assert layer(input).shape == nn.Conv2d(4, 6, 3, stride, 1)(input).shape
    torch.testing.assert_close(layer(input), split_conv(layer, input), rtol=1e-4, atol=1e-4)


def test_stride_two_pools_what_remains_of_an_odd_map() -> None:
    """On even maps as published; the last pixel of an odd one is its own mean."""
    layer = SplitConv2d(2, 2, 3, 2, 1, alpha=0.5, group_count=1).eval()
    with torch.no_grad():
        layer.grouped.weight.zero_()
        layer.pointwise.weight.zero_()
        layer.redundant.weight.fill_(1)
        layer.redundant.bias.zero_()
    input = torch.zeros(1, 2, 1, 5)
    input[0, 1, 0] = torch.tensor([1.0, 3.0, 5.0, 7.0, 11.0])
    red = torch.tensor([2.0, 6.0, 11.0]) / (1 + 1e-5) ** 0.5
    expected = (1 - torch.sigmoid(-red.mean())) * red
    torch.testing.assert_close(layer(input)[0, 0, 0], expected)


def test_one_representative_channel_in_channels_last() -> None:
    """There `torch.nn.functional.conv2d` reads what isn't its own (torch 2.14, oneDNN, float32)."""
    layer = SplitConv2d(4, 3, 5, (1, 2), alpha=0.25, group_count=1).eval()
    for _ in range(20):
        input = torch.randn(1, 4, 6, 5)
        torch.testing.assert_close(layer(input.contiguous(memory_format=torch.channels_last)), layer(input),
                                   rtol=1e-4, atol=1e-4, check_stride=False)


def published_bottleneck(state: dict[str, torch.Tensor], input, stride: int):
    """The block as the authors give it (kernel 3, padding 1, two groups, even maps), by position in the state dict."""
    gwc, pwc, weight, bias, *norms = state.values()
    first, second = norms[:5], norms[5:]
    size = pwc.shape[1]

    def pool(maps):
        return F.avg_pool2d(maps, 2) if stride == 2 else maps

    rep = F.conv2d(input[:, :size], gwc, None, stride, 1, 1, 2) + F.conv2d(pool(input[:, :size]), pwc)
    rep = F.batch_norm(rep, first[2], first[3], first[0], first[1])
    red = F.batch_norm(F.conv2d(pool(input[:, size:]), weight, bias), second[2], second[3], second[0], second[1])
    shares = torch.stack([rep.mean((2, 3)), red.mean((2, 3))], 2).softmax(2)
    return rep * shares[:, :, 0, None, None] + red * shares[:, :, 1, None, None]


@pytest.mark.parametrize("stride", [1, 2])
def test_a_state_dict_in_the_official_order_loads_by_position(stride) -> None:
    shapes = [(12, 2, 3, 3), (12, 4, 1, 1), (12, 4, 1, 1), (12,)]
    names = ["gwc.weight", "pwc.weight", "conv1x1.weight", "conv1x1.bias"]
    state = {name: torch.randn(shape) for name, shape in zip(names, shapes, strict=True)}
    for norm in ("bn1", "bn2"):
        state |= {f"{norm}.weight": torch.randn(12), f"{norm}.bias": torch.randn(12),
                  f"{norm}.running_mean": torch.randn(12), f"{norm}.running_var": torch.rand(12) + 0.5,
                  f"{norm}.num_batches_tracked": torch.tensor(3)}
    layer = SplitConv2d(8, 12, 3, stride, 1).eval()
    assert list(layer.state_dict()) == [
        name.replace("gwc", "grouped").replace("pwc", "pointwise").replace("conv1x1", "redundant")
        .replace("bn1", "representative_norm").replace("bn2", "redundant_norm") for name in state
    ]
    layer.load_state_dict(dict(zip(layer.state_dict(), state.values(), strict=True)))
    input = torch.randn(2, 8, 6, 8)
    torch.testing.assert_close(layer(input), published_bottleneck(state, input, stride), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("alpha", "count"), [(0.5, 18_345_448), (0.25, 16_930_792), (0.125, 16_223_464)])
def test_resnet50_has_the_published_number_of_parameters(alpha, count) -> None:
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        model = torchvision.models.resnet50()
    replaced = 0
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            layer = SplitConv2d(module.in_channels, module.out_channels, 3, module.stride, 1, alpha=alpha,
                                device="meta")
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer)
            replaced += 1
    assert replaced == 16
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_training_norms_use_the_batch() -> None:
    layer = randomised(SplitConv2d(4, 6, 3, 1, 1)).double().train()
    input = torch.randn(4, 4, 5, 5).double()
    size = layer.representative_channels
    rep = layer.grouped(input[:, :size]) + layer.pointwise(input[:, :size])
    red = layer.redundant(input[:, size:])
    first, second = (
        F.batch_norm(maps, None, None, norm.weight, norm.bias, True)
        for maps, norm in ((rep, layer.representative_norm), (red, layer.redundant_norm))
    )
    share = torch.sigmoid(first.mean((2, 3), keepdim=True) - second.mean((2, 3), keepdim=True))
    torch.testing.assert_close(layer(input), share * first + (1 - share) * second, rtol=1e-11, atol=1e-11)
    assert int(layer.redundant_norm.num_batches_tracked) == 1


@pytest.mark.parametrize("folded", [False, True])
def test_the_input_is_left_alone_and_hooks_see_what_a_norm_gave(folded) -> None:
    layer = randomised(SplitConv2d(4, 6, 3, 1, 1)).eval()
    layer = layer.fused() if folded else layer
    seen = {}
    for name in ("grouped", "representative_norm", "redundant_norm"):
        layer.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: (output, output.clone())}))
        layer.get_submodule(name).register_full_backward_hook(lambda *given: None)
    input = torch.randn(2, 4, 5, 5)
    before = input.clone()
    layer(input.requires_grad_()).sum().backward()
    assert torch.equal(input, before)
    assert seen
    assert all(torch.equal(now, then) for now, then in seen.values())


def test_pruning_reaches_every_filter() -> None:
    layer = SplitConv2d(4, 6, 3).eval()
    for conv in (layer.grouped, layer.pointwise, layer.redundant):
        prune.l1_unstructured(conv, "weight", amount=1.0)
    output = layer(torch.randn(1, 4, 5, 5))
    assert torch.equal(output, output[..., :1, :1].expand_as(output))


@pytest.mark.parametrize(("alpha", "channels"), [(0.29, 29), (0.5, 50), (0.999, 99), (1, 100)])
def test_representative_channels_are_alpha_rounded_down(alpha, channels) -> None:
    assert SplitConv2d(100, 4, 3, alpha=alpha, group_count=1).representative_channels == channels


def test_export_holds_no_batch_size() -> None:
    for layer in (SplitConv2d(4, 6, 3, 2, 1).eval(), SplitConv2d(4, 6, 3, 2, 1).eval().fused()):
        batch = {0: torch.export.Dim.DYNAMIC}
        program = torch.export.export(layer, (torch.randn(2, 4, 8, 8),), dynamic_shapes=(batch,))
        for size in (1, 3, 7):
            input = torch.randn(size, 4, 8, 8)
            torch.testing.assert_close(program.module()(input), layer(input))


@pytest.mark.parametrize(("stride", "dilation"), [((1, 1), (1, 1)), ((2, 2), (1, 1)), ((1, 3), (2, 1))])
def test_nearest_pointwise_solves_the_normal_equation(stride, dilation) -> None:
    """min_p E(Σ_t W_t x_t − p·mean(x over the stride))² with E x_a x_b = 2^-distance, over a patch, pixel by pixel."""
    weight = torch.randn(2, 3, 3, 5).double()
    places = [((i - 1) * dilation[0], (j - 2) * dilation[1]) for i in range(3) for j in range(5)]
    read = [(i, j) for i in range(stride[0]) for j in range(stride[1])]

    def correlation(one, other):
        return torch.tensor([[0.5 ** (abs(a - c) + abs(b - d)) for c, d in other] for a, b in one]).double()

    expected = (weight.flatten(2) @ correlation(places, read)).mean(2) / correlation(read, read).mean()
    torch.testing.assert_close(nearest_pointwise(weight, stride, dilation)[:, :, 0, 0], expected)


def test_from_conv_keeps_a_convolution_that_is_split_already() -> None:
    """Filters within the groups and 1x1 on a map of one pixel: with equal shares there is nothing to lose."""
    conv = nn.Conv2d(8, 12, 1).eval()
    layer = SplitConv2d.from_conv(conv)
    assert not layer.training
    input = torch.randn(3, 8, 4, 4)
    rep = layer.representative_norm(layer.grouped(input[:, :4]) + layer.pointwise(input[:, :4]))
    red = layer.redundant_norm(layer.redundant(input[:, 4:]))
    torch.testing.assert_close((rep + red) / 2, conv(input), rtol=1e-4, atol=1e-5)


def test_from_conv_of_grouped_representative_filters_is_exact() -> None:
    conv = nn.Conv2d(8, 12, 3, 2, 1, padding_mode="replicate").double().eval()
    with torch.no_grad():
        conv.weight[:6, 4:] = 0
        conv.weight[6:, :4] = 0
    layer = SplitConv2d.from_conv(conv, alpha=1)
    input = torch.randn(3, 8, 7, 7).double()
    torch.testing.assert_close(layer(input), conv(input), rtol=1e-10, atol=1e-10)


def test_from_conv_is_nearer_than_the_centre_taps_on_smooth_maps() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 32, 3, 1, 1).eval()
    input = F.avg_pool2d(torch.randn(4, 32, 34, 34), 3, 1, 1)
    layer = SplitConv2d.from_conv(conv)
    taps = copy.deepcopy(layer)
    with torch.no_grad():
        taps.redundant.weight.copy_(conv.weight[:, 16:, 1:2, 1:2])
    errors = [(other(input) - conv(input)).norm() / conv(input).norm() for other in (layer, taps)]
    assert errors[0] < 0.9 * errors[1] < 0.9


def test_from_conv_carries_arguments_dtype_layout_and_frozen_weights() -> None:
    conv = nn.Conv2d(8, 8, (3, 1), (2, 1), "valid", (1, 2), bias=False, dtype=torch.float64)
    layer = SplitConv2d.from_conv(conv.requires_grad_(False).to(memory_format=torch.channels_last), alpha=0.25)
    plain = layer.grouped
    assert (plain.stride, plain.padding, plain.dilation) == ((2, 1), "valid", (1, 2))
    assert layer.training
    assert plain.weight.is_contiguous(memory_format=torch.channels_last)
    assert all(parameter.dtype == torch.float64 and not parameter.requires_grad for parameter in layer.parameters())
    assert layer.redundant.bias is not None


def test_from_conv_refuses_other_layers_and_groups() -> None:
    with pytest.raises(TypeError, match=r"ConvTranspose2d"):
        SplitConv2d.from_conv(nn.ConvTranspose2d(4, 4, 1))
    with pytest.raises(ValueError, match=r"groups must be 1"):
        SplitConv2d.from_conv(nn.Conv2d(4, 4, 1, groups=2))
