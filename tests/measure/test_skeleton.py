import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from leanconv import nn as lean
from leanconv.measure import KernelSkeleton, LayerSkeleton, kernel_skeleton
from leanconv.measure.skeleton import region


def matrix_by_loops(weight):
    """S_i / max(S_i), entry by entry."""
    filters, channels, size, _ = weight.shape
    values = weight.tolist()
    sums = [[0.0] * size for _ in range(size)]
    for row in range(size):
        for column in range(size):
            for out in range(filters):
                for channel in range(channels):
                    sums[row][column] += abs(values[out][channel][row][column])
    largest = max(map(max, sums))
    return torch.tensor([[value / largest for value in line] for line in sums], dtype=torch.float64)


def randomised(model):
    """The model with norm statistics as after a training."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.weight)
    return model


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from([3, 5]), st.integers(0, 99))
def test_it_equals_the_equation(channels, filters, size, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(channels, filters, size), nn.ReLU(), nn.Conv2d(filters, 2, size))
    expected = [matrix_by_loops(model[index].weight) for index in (0, 2)]
    skeleton = kernel_skeleton(model)
    assert [(layer.name, layer.filters) for layer in skeleton.layers] == [("0", filters), ("2", 2)]
    for layer, matrix in zip(skeleton.layers, expected, strict=True):
        torch.testing.assert_close(layer.matrix, matrix)
    torch.testing.assert_close(skeleton.average, (expected[0] + expected[1]) / 2)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("cross", [None, (2, 2)])
def test_an_asymmetric_convolution_counts_as_what_its_branches_add_up_to(training, cross):
    torch.manual_seed(0)
    model = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), lean.AsymmetricConv2d(4, 5, 3, cross=cross))).train(training)
    before = copy.deepcopy(model.state_dict())
    skeleton = kernel_skeleton(model)
    fused = copy.deepcopy(model[1]).eval().fused()
    assert [layer.name for layer in skeleton.layers] == ["0", "1"]
    torch.testing.assert_close(skeleton.layers[1].matrix, matrix_by_loops(fused.weight))
    assert all(module.training == training for module in model.modules())
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_norm_without_statistics_is_refused():
    model = nn.Sequential(lean.AsymmetricConv2d(2, 2, 3))
    model[0].branches["square"].norm = nn.BatchNorm2d(2, track_running_stats=False)
    with pytest.raises(ValueError, match="needs running statistics; the norm of 'square' keeps none"):
        kernel_skeleton(model)


def test_layers_of_ours_count_with_the_kernels_that_they_store():
    model = nn.Sequential(lean.TiedConv2d(4, 8, 3, blocks=2), lean.GhostConv2d(8, 8, 3), lean.SplitConv2d(8, 8, 3),
                          lean.TiedSplitConv2d(32, 32, 3))
    found = {layer.name: layer.matrix for layer in kernel_skeleton(model).layers}
    convs = ["0.conv", "1.primary", "1.cheap", "2.grouped", *(f"3.splits.{index}.conv" for index in range(4))]
    assert list(found) == convs
    for name, matrix in found.items():
        torch.testing.assert_close(matrix, matrix_by_loops(model.get_submodule(name).weight))


def mixed():
    return nn.Sequential(nn.Conv2d(2, 2, 5), nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 1),
                         nn.Conv2d(2, 2, (3, 1)), nn.Sequential(nn.Conv2d(2, 2, 7), nn.Conv2d(2, 2, 3)))


@pytest.mark.parametrize(
    ("layers", "size", "expected"),
    [
        (None, None, ["1", "2", "5.1"]),
        (None, 5, ["0"]),
        (["0", "1"], None, ["0"]),
        (["[12]"], None, ["1", "2"]),
        (["5"], 3, ["5.1"]),
        (["5.*"], 7, ["5.0"]),
    ],
)
def test_layers_are_chosen_by_name_and_by_size(layers, size, expected):
    assert [layer.name for layer in kernel_skeleton(mixed(), layers, kernel_size=size).layers] == expected


def test_weights_that_two_layers_share_count_once():
    model = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3))
    model[1].weight = model[0].weight
    assert [layer.name for layer in kernel_skeleton(model).layers] == ["0"]


def test_mistakes_are_named():
    model = nn.Sequential(nn.Conv2d(2, 2, 4), nn.Linear(2, 2))
    with pytest.raises(ValueError, match="unknown layer 'first': did you mean 'fist'"):
        kernel_skeleton(nn.ModuleDict({"fist": nn.Conv2d(2, 2, 3)}), ["first"])
    with pytest.raises(ValueError, match="must be odd and larger than 1, for an even kernel has no centre, got 4"):
        kernel_skeleton(model, kernel_size=4)
    with pytest.raises(ValueError, match="must have 3 × 3 kernels, those of Sequential have: 4 × 4"):
        kernel_skeleton(model)
    with pytest.raises(ValueError, match="must have 9 × 9 kernels, those of Sequential have: 3 × 3, 5 × 5, 7 × 7"):
        kernel_skeleton(mixed(), kernel_size=9)
    with pytest.raises(ValueError, match="must have 3 × 3 kernels, those of Sequential have: none larger than 1 × 1"):
        kernel_skeleton(mixed(), ["3"])


def test_shares_are_those_of_the_places():
    matrix = torch.arange(1.0, 26).view(5, 5)
    layer = LayerSkeleton("conv", 1, matrix)
    skeleton = sum(matrix[row][column].item() for row in range(5) for column in range(5) if row == 2 or column == 2)
    assert layer.share("skeleton") == pytest.approx(skeleton / 325)
    assert layer.share("corner") == pytest.approx(1 - skeleton / 325)
    assert layer.share("global") == 1


@pytest.mark.parametrize("size", [3, 5, 7])
def test_corners_and_skeleton_make_up_the_kernel(size):
    corner, skeleton = region("corner", size), region("skeleton", size)
    assert skeleton.sum() == 2 * size - 1
    assert torch.equal(corner ^ skeleton, region("global", size))
    for turned in (corner.rot90(), corner.flip(0)):
        assert torch.equal(turned, corner)
    assert corner[0, 0]


def test_the_table_has_the_shares():
    cross = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]])
    text = str(KernelSkeleton([LayerSkeleton("a", 8, torch.ones(3, 3)), LayerSkeleton("b", 4, cross / 4)]))
    assert "a             8      55.6%    44.4%" in text
    assert "b             4      75.0%    25.0%" in text
    assert "2 layers: 61.5% on the skeleton, which is 55.6% of a 3 × 3 kernel" in text
    assert "0.625  0.750  0.625\n0.750  1.000  0.750\n0.625  0.750  0.625" in text


def test_a_layer_of_zeros_adds_nothing():
    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3))
    nn.init.zeros_(model[0].weight)
    skeleton = kernel_skeleton(model)
    torch.testing.assert_close(skeleton.average, matrix_by_loops(model[1].weight) / 2)
