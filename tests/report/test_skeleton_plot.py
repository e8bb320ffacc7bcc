import itertools

import pytest
import torch
from matplotlib.path import Path

from leanconv.measure import UNCHANGED, KernelSkeleton, LayerSkeleton, Robustness, Zeroing, ZeroingCurves
from leanconv.report.robustness_plot import robustness_figure
from leanconv.report.skeleton_plot import lightest_of, magnitude_figure, zeroing_figure

MATRIX = torch.tensor([[0.1, 0.2, 0.3], [0.4, 1.0, 0.6], [0.7, 0.8, 0.9]], dtype=torch.float64)


@pytest.mark.parametrize("size", [3, 5])
def test_each_cell_has_its_number_in_its_place(size):
    matrix = torch.arange(size * size).view(size, size) / (size * size - 1)
    skeleton = KernelSkeleton([LayerSkeleton("conv", 1, matrix)])
    figure = magnitude_figure({"dense": skeleton, "a$b$": skeleton}, lightest=0.2, ink="black")
    figure.draw_without_rendering()
    assert [axes.get_title() for axes in figure.axes] == ["dense", "a$b$"]
    for axes in figure.axes:
        numbers = {text.get_position(): text.get_text() for text in axes.texts}
        for row in range(size):
            for column in range(size):
                assert numbers[column + 0.5, row + 0.5] == f"{matrix[row, column]:.2f}"
        (mesh,) = axes.collections
        assert torch.equal(torch.tensor(mesh.get_array().reshape(size, size).tolist()), matrix)
        assert mesh.get_clim() == (0.2, 1)
        assert axes.yaxis_inverted()


def test_the_outline_is_that_of_the_skeleton():
    figure = magnitude_figure({"dense": KernelSkeleton([LayerSkeleton("conv", 1, MATRIX)])}, lightest=0, ink="black")
    (outline,) = figure.axes[0].lines
    path = Path(outline.get_xydata())
    inside = [[path.contains_point((column + 0.5, row + 0.5)) for column in range(3)] for row in range(3)]
    assert inside == [[False, True, False], [True, True, True], [False, True, False]]
    assert figure.axes[0].get_xlabel() == "60.0% on the skeleton"


def test_curves_are_the_means_with_bands_of_a_deviation():
    accuracies = {UNCHANGED: 0.9, Zeroing("corner", 0.4, 0): 0.5, Zeroing("corner", 0.4, 1): 0.7,
                  Zeroing("skeleton", 0.4, 0): 0.02, Zeroing("skeleton", 0.4, 1): 0.1}  # fmt: skip
    figure = zeroing_figure({"dense": ZeroingCurves(accuracies), "x": ZeroingCurves(accuracies)}, ink="black")
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert [line.get_label() for line in axes.lines] == ["corner", "skeleton"]
        assert axes.lines[0].get_xydata().tolist() == [[0, 90], pytest.approx([0.4, 60])]
        band = axes.collections[0].get_paths()[0].get_extents()
        assert (band.y0, band.y1) == pytest.approx((60 - 200**0.5, 90))
        assert axes.collections[1].get_paths()[0].get_extents().y0 == pytest.approx(6 - 32**0.5)
        assert axes.get_ylim() == (0, 100)


@pytest.mark.parametrize("count", [1, 3, 9])
def test_bars_are_the_accuracies(count):
    names = [f"net{index}" for index in range(count)]
    accuracies = {name: {"upright": 0.9 - index / 20, "rotated 90°": 0.4 + index / 20} for index, name in
                  enumerate(names)}  # fmt: skip
    figure = robustness_figure(Robustness(accuracies, 100), ink="black")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["upright", "rotated 90°"]
    ends = []
    for index, bars in enumerate(axes.containers):
        assert [bar.get_height() for bar in bars] == pytest.approx([90 - 5 * index, 40 + 5 * index])
        assert [round(bar.get_center()[0]) for bar in bars] == [0, 1]
        ends += [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars]
    ends.sort()
    assert all(one[1] <= two[0] for one, two in itertools.pairwise(ends))
    shown = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert shown == (names if count > 1 else [])
    assert len(axes.texts) == (2 * count if count <= 5 else 0)


@pytest.mark.parametrize(("smallest", "expected"), [(0.0, 0), (0.05, 0), (0.25, 0.2), (0.81, 0.8), (1.0, 0.9)])
def test_shades_begin_below_the_smallest_value(smallest, expected):
    skeletons = [KernelSkeleton([LayerSkeleton("conv", 1, torch.tensor([[smallest, 1.0]]).double())]),
                 KernelSkeleton([LayerSkeleton("conv", 1, torch.ones(1, 2))])]  # fmt: skip
    assert lightest_of(skeletons) == expected
