import pytest
import timm
import torch
from opcounter import legacy_operations
from torch import nn

from leanconv.nn import SplitConv2d


class PublishedSplit(nn.Module):
    """The modules that the published SPConv has, run as it runs them; functions aren't counted."""

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.half = channels // 2
        self.grouped = nn.Conv2d(self.half, out_channels, 3, stride, 1, groups=2, bias=False)
        self.pointwise = nn.Conv2d(self.half, out_channels, 1, bias=False)
        self.redundant = nn.Conv2d(channels - self.half, out_channels, 1)
        self.pools = nn.ModuleList(nn.AvgPool2d(2) if stride == 2 else nn.Identity() for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(out_channels) for _ in range(2))
        self.means = nn.ModuleList(nn.AdaptiveAvgPool2d(1) for _ in range(2))

    def forward(self, input):
        chosen, rest = input[:, : self.half], input[:, self.half :]
        rich = self.norms[0](self.grouped(chosen) + self.pointwise(self.pools[0](chosen)))
        light = self.norms[1](self.redundant(self.pools[1](rest)))
        shares = torch.softmax(torch.stack([self.means[0](rich), self.means[1](light)]), 0)
        return shares[0] * rich + shares[1] * light


@pytest.mark.parametrize("stride", [1, 2])
def test_a_split_convolution_counts_as_the_published_modules(stride):
    ours, theirs = SplitConv2d(8, 12, 3, stride, 1), PublishedSplit(8, 12, stride)
    assert legacy_operations(ours, (2, 8, 6, 6)) == legacy_operations(theirs, (2, 8, 6, 6))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(4, 6, 3, groups=2, bias=False), 2 * 9 * 6 * 9),
        (nn.BatchNorm2d(4), 4 * 4 * 25),
        (nn.ReLU(), 4 * 25),
        (nn.MaxPool2d(2), 2 * 4 * 4),
        (nn.AvgPool2d(2), 3 * 4 * 4),
        (nn.AdaptiveAvgPool2d(1), 4 * 25 + 4),
        (nn.Sequential(nn.Flatten(), nn.Linear(100, 3)), 300),
        (nn.Sigmoid(), 0),
    ],
)
def test_each_layer_counts_as_it_did(layer, expected):
    assert legacy_operations(layer, (1, 4, 5, 5)) == expected
    assert legacy_operations(layer, (3, 4, 5, 5)) == 3 * expected


@pytest.mark.parametrize(("rectifiers", "expected"), [(True, "4.144"), (False, "4.134")])
def test_resnet50_has_the_operations_of_spconvs_table(rectifiers, expected):
    with torch.device("meta"):
        model = timm.create_model("resnet50")
    assert f"{legacy_operations(model, (1, 3, 224, 224), rectifiers=rectifiers) / 1e9:.3f}" == expected
