import pytest

from leanconv.report.cost_plot import cost_figure, cost_points
from leanconv.report.learning_plot import learning_figure
from leanconv.report.style import styles


@pytest.fixture(scope="module")
def both(row, comparison):
    dense = row("dense", [97.0, 98.0], 4000, 8_000_000, 1.0)
    return comparison(dense, row("tied", [96.0, 97.0], 1000, 4_000_000, 0.5), row("ghost", [], 2000, 5_000_000))


def test_points_are_the_numbers_of_the_rows(both):
    points = cost_points(both)
    assert list(points) == ["MACs (M) per image", "ms per image, batch 1", "ms per image, batch 32"]
    assert [point.operator for point in points["ms per image, batch 1"]] == ["dense", "tied"]
    tied = points["ms per image, batch 1"][1]
    assert (tied.cost, tied.low, tied.high) == pytest.approx((2.0, 1.96, 2.04))
    assert (tied.score, tied.spread) == pytest.approx((96.5, 0.5**0.5))
    assert points["MACs (M) per image"][0].cost == 8.0


def test_large_networks_are_shown_in_billions(row, comparison):
    assert "MACs (G) per image" in cost_points(comparison(row("dense", [70.0], macs=4_089_000_000)))


def test_each_point_has_its_bars_inside_the_axes(both):
    points = cost_points(both)
    figure = cost_figure(both, points, ink="black")
    for axes, found in zip(figure.axes, points.values(), strict=True):
        left, right = axes.get_xlim()
        bottom, top = axes.get_ylim()
        assert left == 0
        for point in found:
            assert left <= point.low <= point.high <= right
            assert bottom <= point.score - point.spread <= point.score + point.spread <= top


def test_curves_are_a_line_a_training_and_one_for_the_mean(both):
    axes = learning_figure(both, ink="black").axes[0]
    heights = [list(line.get_ydata()) for line in axes.lines]
    assert heights[:3] == [[10.0, 92.0, 97.0], [10.0, 93.0, 98.0], [10.0, 92.5, 97.5]]
    assert len(heights) == 6
    assert [text.get_text() for text in axes.texts] == ["dense", "tied"]


def test_a_single_epoch_with_a_loss_that_is_not_finite_is_drawn(row, comparison):
    broken = row("dense", [50.0, 60.0])
    for training in broken.trainings:
        training.curve.update(train_loss=[None], test_score=[50.0])
    figure = learning_figure(comparison(broken), ink="black")
    figure.draw_without_rendering()
    assert [len(axes.texts) for axes in figure.axes] == [1, 0]


def test_operators_look_different_and_the_baseline_is_grey(row, comparison):
    names = ["tied", "dense", *(f"ghost:ratio={ratio}" for ratio in range(2, 14))]
    looks = styles(comparison(*(row(name, [90.0]) for name in names)))
    assert len(set(looks.values())) == len(names)
    assert looks["dense"].marker == "o"
