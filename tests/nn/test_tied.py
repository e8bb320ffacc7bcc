"""What is the tied layers' own: starting from trained layers, and the plain form."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from leanconv.nn import TiedConv2d, TiedLinear
from leanconv.nn.tied import nearest_tied


@pytest.mark.parametrize(("groups", "blocks", "padding_mode"), [(1, 2, "zeros"), (2, 2, "reflect"), (1, 4, "circular")])
def test_fused_is_the_plain_convolution(groups, blocks, padding_mode) -> None:
    layer = TiedConv2d(8, 16, (3, 2), (1, 2), (1, 1), 1, groups, padding_mode=padding_mode, blocks=blocks)
    layer = layer.double().eval()
    plain = layer.fused()
    assert type(plain) is nn.Conv2d
    assert plain.groups == groups * blocks
    assert not plain.training
    input = torch.randn(2, 8, 5, 6).double()
    torch.testing.assert_close(plain(input), layer(input), rtol=1e-12, atol=1e-12)


def test_fused_linear_is_block_diagonal() -> None:
    layer = TiedLinear(6, 8, blocks=2)
    plain = layer.fused()
    assert not plain.weight[:4, 3:].any()
    input = torch.randn(5, 6)
    torch.testing.assert_close(plain(input), layer(input))


@pytest.mark.parametrize(("groups", "blocks"), [(1, 2), (1, 4), (2, 2)])
def test_projection_is_the_least_squares_solution(groups, blocks) -> None:
    """Solve min ‖T w − W‖² where column i of T is the i-th tied weight repeated on the diagonal, as a linear system."""
    dense = torch.randn(8, 8 // groups, 1, 1, dtype=torch.float64)
    tied_shape = (8 // blocks, 8 // (blocks * groups), 1, 1)
    count = tied_shape[0] * tied_shape[1]
    columns = []
    for index in range(count):
        unit = torch.zeros(count, dtype=torch.float64)
        unit[index] = 1
        banks = unit.view(groups, -1, tied_shape[1])
        columns.append(torch.cat([torch.block_diag(*[bank] * blocks) for bank in banks]).flatten())
    solution = torch.linalg.lstsq(torch.stack(columns, 1), dense.flatten()).solution.view(tied_shape)
    torch.testing.assert_close(nearest_tied(dense, groups, blocks), solution)


def test_from_conv_keeps_a_convolution_that_is_tied_already() -> None:
    tied = TiedConv2d(8, 8, 3, 2, 1, padding_mode="replicate", blocks=2).eval()
    dense = nn.Conv2d(8, 8, 3, 2, 1, padding_mode="replicate").eval()
    with torch.no_grad():
        dense.weight.zero_()
        dense.weight[:4, :4] = dense.weight[4:, 4:] = tied.weight
        dense.bias.copy_(tied.bias.repeat(2))
    again = TiedConv2d.from_conv(dense, blocks=2)
    assert not again.training
    input = torch.randn(2, 8, 7, 7)
    torch.testing.assert_close(again(input), dense(input))


def test_from_conv_carries_arguments_dtype_and_frozen_weights() -> None:
    conv = nn.Conv2d(4, 8, (3, 1), (2, 1), "valid", (1, 2), 2, bias=False, dtype=torch.float64).requires_grad_(False)
    layer = TiedConv2d.from_conv(conv, blocks=2)
    plain = layer.conv
    assert (plain.stride, plain.padding, plain.dilation, plain.groups) == ((2, 1), "valid", (1, 2), 2)
    assert layer.bias is None
    assert layer.weight.dtype == torch.float64
    assert not layer.weight.requires_grad


def test_from_linear_is_the_mean_of_the_diagonal() -> None:
    linear = nn.Linear(4, 6)
    layer = TiedLinear.from_linear(linear, blocks=2)
    torch.testing.assert_close(layer.weight, (linear.weight[:3, :2] + linear.weight[3:, 2:]) / 2)
    torch.testing.assert_close(layer.bias, (linear.bias[:3] + linear.bias[3:]) / 2)


def test_from_refuses_other_layers() -> None:
    with pytest.raises(TypeError, match=r"ConvTranspose2d"):
        TiedConv2d.from_conv(nn.ConvTranspose2d(4, 4, 1))
    with pytest.raises(TypeError, match=r"Conv2d"):
        TiedLinear.from_linear(nn.Conv2d(4, 4, 1))


def test_parameters_and_state_dict_names() -> None:
    """A B²G-th of the parameters, under the name that the authors' layer gives them."""
    layer = TiedConv2d(64, 128, 3, bias=False, groups=2, blocks=4)
    assert {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()} == {"conv.weight": (32, 8, 3, 3)}
    assert layer.weight.numel() * 4**2 * 2 == nn.Conv2d(64, 128, 3).weight.numel()


def test_one_block_is_the_standard_layer() -> None:
    layer = TiedConv2d(4, 6, 3, padding="same", blocks=1)
    input = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(layer(input), F.conv2d(input, layer.weight, layer.bias, padding=1))


def test_pruning_reaches_the_weight() -> None:
    layer = TiedConv2d(4, 4, 3, blocks=2)
    prune.l1_unstructured(layer.conv, "weight", amount=1.0)
    assert torch.equal(layer(torch.randn(1, 4, 5, 5)), layer.bias.repeat(2)[:, None, None].expand(1, 4, 3, 3))
