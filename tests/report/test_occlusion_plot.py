import numpy as np
import pytest

from leanconv.report.occlusion_plot import Panel, looks_of, occlusion_figure, panels_of
from leanconv.tasks.detection.occlusion import Group, OcclusionStudy


def group(low, high, images, *values):
    scores = {name: {"ap": value, "ap75": value - 0.1} for name, value in zip(("dense", "tied"), values, strict=True)}
    return Group(low, high, images, 10 * images, scores)


@pytest.fixture(scope="module")
def study():
    nothing = float("nan")
    return OcclusionStudy(
        source="things",
        shapes="boxes",
        models=("dense", "tied"),
        ratios=(0.1, 0.9),
        bins=(group(0, 0.3, 50, 0.5, 0.6), group(0.3, 0.6, 19, 0.4, 0.55), group(0.6, 1, 0, nothing, nothing)),
        thresholds=(
            group(0, None, 69, 0.45, 0.57), group(0.3, None, 19, 0.4, 0.55), group(0.6, None, 0, nothing, nothing)
        ),
        measures=("ap", "ap75"),
        unpredicted={},
    )


def test_each_panel_shows_the_scores_of_its_groups(study):
    figure = occlusion_figure(study, ink="black")
    figure.draw_without_rendering()
    assert [axes.get_title(loc="left") for axes in figure.axes] == [panel.title for panel in panels_of(study)]
    assert figure.axes[1].get_title(loc="left") == "AP from an overlap ratio up"
    np.testing.assert_allclose(figure.axes[0].lines[3].get_ydata(), [60, 55, np.nan])
    np.testing.assert_allclose(figure.axes[3].lines[0].get_ydata(), [35, 30, np.nan])
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["0–0.3\n50", "0.3–0.6\n19", "0.6–1\n0"]
    assert [tick.get_text() for tick in figure.axes[1].get_xticklabels()] == ["all\n69", "≥ 0.3\n19", "≥ 0.6\n0"]
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert high - low >= 10


def test_an_odd_number_of_panels_leaves_no_empty_one(study):
    figure = occlusion_figure(study, panels_of(study)[:3], ink="black")
    figure.draw_without_rendering()
    assert [axes.get_title(loc="left") for axes in figure.axes] == [panel.title for panel in panels_of(study)[:3]]


def test_few_images_are_hollow_marks(study):
    axes = occlusion_figure(study, [Panel("ap", bins=True)], ink="black").axes[0]
    _, full, hollow = axes.lines[:3]
    assert (list(full.get_xdata()), list(hollow.get_xdata())) == ([0], [1, 2])
    assert hollow.get_markerfacecolor() == "white"
    assert full.get_markerfacecolor() != "white"


def test_models_are_named_above(study):
    figure = occlusion_figure(study, ink="black")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["dense", "tied", "fewer than 20 images"]


def test_models_look_different():
    names = tuple(map(str, range(20)))
    assert len(set(looks_of(names).values())) == 20
    grey = looks_of(("one", "two"), baseline="one")["one"].colour
    assert grey not in {look.colour for look in looks_of(names).values()}
