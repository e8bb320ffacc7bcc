"""The parts of split convolution, each against its definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from leanconv.ops.split import averaged, fuse_by_means, pointwise, window_centres


@pytest.mark.parametrize("inplace", [False, True])
def test_fusion_is_the_softmax_of_the_means(inplace) -> None:
    first, second = 3 * torch.randn(3, 4, 5, 6).double() + 1, torch.randn(3, 4, 5, 6).double()
    shares = torch.stack([first.mean((2, 3)), second.mean((2, 3))], 2).softmax(2)[..., None, None]
    expected = shares[:, :, 0] * first + shares[:, :, 1] * second
    before = first.clone(), second.clone()
    torch.testing.assert_close(fuse_by_means(first, second, inplace=inplace), expected, rtol=1e-13, atol=1e-13)
    assert inplace or (torch.equal(first, before[0]) and torch.equal(second, before[1]))


def test_fusion_of_far_apart_means_takes_one_path() -> None:
    first, second = torch.full((1, 2, 3, 3), 1e4), torch.full((1, 2, 3, 3), -1e4)
    assert torch.equal(fuse_by_means(first, second), first)
    assert torch.equal(fuse_by_means(second, first), first)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("shape", [(2, 8, 6, 5), (1, 8, 2, 2), (16, 8, 1, 2)])
def test_pointwise_is_a_convolution_of_the_slice(layout, grad, shape) -> None:
    input = torch.randn(shape).double().contiguous(memory_format=layout)[:, 2:7]
    weight, bias = torch.randn(64, 5, 1, 1).double().requires_grad_(grad), torch.randn(64).double()
    with torch.set_grad_enabled(grad):
        for vector in (None, bias):
            output = pointwise(input, weight.contiguous(memory_format=torch.channels_last), vector)
            torch.testing.assert_close(output, F.conv2d(input.contiguous(), weight, vector), check_stride=False)
            assert output.is_contiguous(memory_format=layout)


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (5, 1), (3, 2)])
@pytest.mark.parametrize("padding", [0, 1, 2, 3])
def test_centres_at_stride_one_are_what_a_centre_tap_reads(kernel, dilation, padding) -> None:
    input, delta = torch.randn(2, 1, 9, 8), torch.zeros(1, 1, kernel, kernel)
    delta[..., kernel // 2, kernel // 2] = 1
    for mode in ("zeros", "reflect", "replicate", "circular"):
        padded = F.pad(input, [padding] * 4, mode="constant" if mode == "zeros" else mode)
        seen = window_centres(input, (kernel,) * 2, (1, 1), (padding,) * 2, (dilation,) * 2, mode)
        assert torch.equal(seen, F.conv2d(padded, delta, dilation=dilation))


def test_stride_two_on_even_maps_is_the_published_pooling() -> None:
    input = torch.randn(2, 3, 8, 6)
    torch.testing.assert_close(window_centres(input, (3, 3), (2, 2), (1, 1), (1, 1)), F.avg_pool2d(input, 2))


@pytest.mark.parametrize("stride", [(2, 2), (3, 1), (2, 5)])
@pytest.mark.parametrize("size", [(8, 6), (7, 9), (1, 2), (4, 5)])
def test_both_ways_to_pool_give_the_means_of_what_is_left(stride, size) -> None:
    input = torch.randn(2, 3, *size).double()
    expected = F.avg_pool2d(input, stride, ceil_mode=True, count_include_pad=False)
    for layout in (torch.contiguous_format, torch.channels_last):
        pooled = window_centres(input.contiguous(memory_format=layout), (3, 3), stride, (1, 1), (1, 1))
        torch.testing.assert_close(pooled, expected, rtol=1e-13, atol=1e-13, check_stride=False)
        assert pooled.is_contiguous(memory_format=layout)
    torch.testing.assert_close(averaged(input, stride), expected, rtol=1e-13, atol=1e-13)


def test_same_padding_reads_the_input_itself() -> None:
    input = torch.randn(2, 3, 8, 6)
    assert window_centres(input, (3, 5), (1, 1), (2, 2), (2, 1), "circular") is input
