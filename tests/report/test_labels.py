import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from leanconv.report.labels import name_points, spread_apart


@given(st.lists(st.floats(0, 100), max_size=12))
def test_positions_stand_a_gap_apart_in_their_order(positions):
    moved = spread_apart(positions, 5.0, 0.0, 100.0)
    assert sorted(range(len(moved)), key=lambda i: (positions[i], moved[i])) == sorted(
        range(len(moved)), key=lambda i: moved[i]
    )
    places = sorted(moved)
    assert all(after - before >= 5.0 - 1e-9 for before, after in itertools.pairwise(places))
    assert all(-1e-9 <= place <= 100 + 1e-9 for place in places)


def test_positions_that_are_far_enough_stay():
    assert spread_apart([30.0, 10.0, 20.0], 5.0, 0.0, 40.0) == [30.0, 10.0, 20.0]


@pytest.mark.parametrize("points", [
    [(1.0, 1.0), (1.01, 1.0), (1.0, 1.02), (1.02, 1.02)],
    [(0.0, 0.0), (2.0, 2.0), (0.0, 2.0), (2.0, 0.0)],
    [(0.5, 1.0), (0.55, 1.0), (0.6, 1.0), (0.65, 1.0), (0.7, 1.0), (0.75, 1.0)],
], ids=["a heap", "the corners", "a row"])  # fmt: skip
def test_no_name_hides_another_or_leaves_the_axes(points):
    figure = Figure(figsize=(4.4, 3.3))
    axes = figure.subplots()
    axes.set(xlim=(0, 2), ylim=(0, 2))
    axes.plot(*zip(*points, strict=True), "o")
    names = ["dense", "tied:blocks=2", "tied:blocks=4", "tied-se", "ghost:ratio=2", "asymmetric"][: len(points)]
    name_points(axes, points, names, ink="black")
    renderer = FigureCanvasAgg(figure).get_renderer()
    written = [text for text in axes.texts if text.get_text()]
    assert sorted(text.get_text() for text in written) == sorted(names)
    boxes = [text.get_window_extent(renderer) for text in written]
    inside = axes.get_window_extent(renderer)
    for box in boxes:
        assert inside.x0 <= box.x0 <= box.x1 <= inside.x1
        assert inside.y0 <= box.y0 <= box.y1 <= inside.y1
        for x, y in axes.transData.transform(points):
            assert not box.contains(x, y)
    assert not any(Bbox.intersection(one, other) for one, other in itertools.combinations(boxes, 2))


def test_a_dollar_in_a_name_is_no_formula():
    figure = Figure()
    axes = figure.subplots()
    name_points(axes, [(0.5, 0.5)], ["a$b_$"], ink="black")
    figure.draw_without_rendering()
