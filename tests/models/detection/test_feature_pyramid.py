from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from leanconv.models.detection import FeaturePyramid, SpatialDDFUp
from leanconv.models.detection.upsampling import UPSAMPLINGS
from leanconv.nn import DDFUp
from leanconv.ops.dynamic.library import count_operations

SIZES = ((25, 41), (13, 21), (7, 11), (4, 6))
CHANNELS = [6, 8, 10, 12]


def maps(sizes=SIZES) -> OrderedDict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return OrderedDict((str(index), torch.randn(2, channels, *size, generator=generator, dtype=torch.float64))
                       for index, (channels, size) in enumerate(zip(CHANNELS, sizes, strict=True)))


@pytest.mark.parametrize(("extra", "theirs"), [
    ("none", lambda: None), ("pool", LastLevelMaxPool), ("convolutions", lambda: LastLevelP6P7(8, 8))])
@pytest.mark.parametrize("sizes", [SIZES, ((24, 40), (12, 20), (6, 10), (3, 5))])
def test_nearest_is_torchvisions(sizes, extra, theirs):
    torch.manual_seed(0)
    reference = FeaturePyramidNetwork(CHANNELS, 8, theirs()).double()
    pyramid = FeaturePyramid(CHANNELS, 8, upsample="nearest", extra=extra).double()
    pyramid.load_state_dict(reference.state_dict())
    expected = reference(maps(sizes))
    found = pyramid(maps(sizes))
    assert list(found) == list(expected)
    for name, map in found.items():
        assert torch.equal(map, expected[name])


@pytest.mark.parametrize("upsample", UPSAMPLINGS)
def test_each_level_adds_the_coarser_one_upsampled_and_cropped(upsample):
    torch.manual_seed(0)
    pyramid = FeaturePyramid(CHANNELS, 8, upsample=upsample).double()
    found = pyramid(maps())
    top = None
    for level in (3, 2, 1, 0):
        lateral = pyramid.inner_blocks[level](maps()[str(level)])
        height, width = SIZES[level]
        top = lateral if top is None else lateral + pyramid.upsamplers[level](top)[:, :, :height, :width]
        torch.testing.assert_close(found[str(level)], pyramid.layer_blocks[level](top))
    torch.stack([map.square().mean() for map in found.values()]).sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in pyramid.parameters())


@pytest.mark.parametrize("upsample", UPSAMPLINGS)
def test_upsampling_doubles_the_map(upsample):
    assert UPSAMPLINGS[upsample](8)(torch.randn(2, 8, 3, 5)).shape == (2, 8, 6, 10)


def test_bilinear_interpolates_between_pixels():
    rising = torch.arange(4.0).expand(1, 1, 4, 4)
    assert UPSAMPLINGS["bilinear"](1)(rising)[0, 0, 0].tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]


def carafe(layer: SpatialDDFUp, input: Tensor) -> Tensor:
    """Each output pixel is the weighted mean of the k x k input pixels around the one that it lies in."""
    batch, channels, height, width = input.shape
    taps = layer.kernel_size**2
    logits = layer.encode(layer.compress(input)).reshape(batch, 2, 2, taps, height, width)
    weights = logits.softmax(3)
    around = F.unfold(input, layer.kernel_size, padding=layer.kernel_size // 2)
    around = around.reshape(batch, channels, taps, height, width)
    output = torch.einsum("bpqnhw,bcnhw->bchpwq", weights, around)
    return output.reshape(batch, channels, 2 * height, 2 * width)


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_spatial_filters_are_carafes(kernel_size):
    torch.manual_seed(0)
    layer = SpatialDDFUp(6, kernel_size, 4).double()
    torch.nn.init.normal_(layer.encode.weight)
    torch.nn.init.normal_(layer.encode.bias)
    input = torch.randn(2, 6, 5, 7, dtype=torch.float64, requires_grad=True)
    output, expected = layer(input), carafe(layer, input)
    torch.testing.assert_close(output, expected)
    weights = [input, *layer.parameters()]
    torch.testing.assert_close(torch.autograd.grad(output.square().sum(), weights),
                               torch.autograd.grad(expected.square().sum(), weights))


def test_a_new_spatial_filter_is_nearly_a_mean():
    torch.manual_seed(0)
    input = torch.randn(1, 16, 9, 9)
    with torch.no_grad():
        expected = F.interpolate(F.avg_pool2d(input, 5, 1, 2), scale_factor=2)
        assert (SpatialDDFUp(16)(input) - expected).abs().max() < 0.02


def upsamplers(upsample: str) -> FeaturePyramid:
    with torch.device("meta"):
        return FeaturePyramid([256, 512, 1024, 2048], 256, upsample=upsample)


def macs(pyramid: FeaturePyramid) -> int:
    """Multiply-accumulates of the three upsamplings for an image of 800 x 1280."""
    from torch.utils.flop_counter import FlopCounterMode

    count_operations()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for layer, (height, width) in zip(pyramid.upsamplers, ((100, 160), (50, 80), (25, 40)), strict=True):
            layer(torch.empty(1, 256, height, width, device="meta"))
    return counter.get_total_flops() // 2


def test_costs_of_ddf_up_are_the_papers():
    pyramid = upsamplers("ddf-up")
    assert len(pyramid.upsamplers) == 3
    for layer in pyramid.upsamplers:
        assert isinstance(layer, DDFUp)
        assert (layer.scale, layer.kernel_size) == (2, (3, 3))
        assert sum(weight.numel() for weight in layer.parameters()) == 560_368
    combining = 9 * 256 * 4 * (100 * 160 + 50 * 80 + 25 * 40) // 2  # of both filters: the paper doesn't count it
    assert round((macs(pyramid) - combining) / 1e9, 3) == 0.582


@pytest.mark.parametrize(("upsample", "params", "giga"), [
    ("nearest", 0, 0), ("bilinear", 0, 0),
    ("pixel-shuffle", 9 * 256 * 1024 + 1024, 49.55),
    ("spatial-ddf", 256 * 64 + 64 + 9 * 64 * 100 + 100, 2.09),  # CARAFE's
])
def test_costs_of_the_others(upsample, params, giga):
    pyramid = upsamplers(upsample)
    assert {sum(weight.numel() for weight in layer.parameters()) for layer in pyramid.upsamplers} == {params}
    assert round(macs(pyramid) / 1e9, 2) == giga


def test_maps_that_do_not_halve_are_refused():
    with pytest.raises(ValueError, match=r"at most twice the size .* got 25 x 41 pixels where that makes 24 x 42"):
        FeaturePyramid(CHANNELS, 8).double()(maps(((25, 41), (12, 21), (7, 11), (4, 6))))
