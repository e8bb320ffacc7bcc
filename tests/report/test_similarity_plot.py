import math

import numpy as np
import pytest
import torch

from leanconv.measure import LayerSimilarity, MapPair, Reconstruction, Similarity
from leanconv.report.map_plot import LayerMaps, pairs_figure, reconstruction_figure
from leanconv.report.pictures import STAND_IN, svg_as_drawn
from leanconv.report.similarity_plot import matrix_figure, middle_layers, similarity_figure


def layer(name, value, count=4, of=8):
    matrix = torch.full((count, count), value)
    return LayerSimilarity(name, range(count), of, matrix.fill_diagonal_(1))


def similarity(*values, prefix="conv"):
    return Similarity("patterns", [layer(f"{prefix}{number}", value) for number, value in enumerate(values)])


def test_the_histogram_and_the_means_are_those_of_the_layers():
    found = {"dense": similarity(0.31, 0.71), "tied $x$": similarity(0.11, 0.21)}
    figure = similarity_figure(found, ink="black")
    figure.draw_without_rendering()
    left, right = figure.axes
    for each, steps in zip(found.values(), left.patches, strict=True):
        shares, edges = steps.get_data()[:2]
        assert shares.sum() == pytest.approx(100)
        for index in np.flatnonzero(shares):
            assert any(edges[index] <= one.values[0] < edges[index + 1] for one in each.layers)
    assert [line.get_xdata()[0] for line in left.lines] == pytest.approx([0.51, 0.16])
    for each, drawn in zip(found.values(), right.containers, strict=True):
        assert list(drawn[0].get_xdata()) == [1, 2]
        assert list(drawn[0].get_ydata()) == pytest.approx([one.mean for one in each.layers])
    assert [label.get_text() for label in right.get_xticklabels()] == ["conv0", "conv1"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(found)


def test_errors_are_drawn_where_they_are_known():
    uneven = torch.eye(4) + torch.tensor([[0, 0.1, 0.2, 0.5]]).T * torch.tensor([[0, 0.3, 0.1, 0.4]])
    sampled = LayerSimilarity("conv", range(4), 8, (uneven + uneven.T) / 2)
    two = layer("two", 0.5, count=2)
    assert math.isnan(two.error)
    figure = similarity_figure({"dense": Similarity("patterns", [sampled, two])}, ink="black")
    (drawn,) = figure.axes[1].containers
    lengths = [top - bottom for (_, bottom), (_, top) in drawn[2][0].get_segments()]
    assert lengths == pytest.approx([2 * sampled.error, 0])
    assert not figure.legends


def test_networks_of_different_layers_share_the_depth():
    found = {"short": similarity(0.1, 0.2), "long": similarity(0.1, 0.2, 0.3, 0.4)}
    axes = similarity_figure(found, ink="black").axes[1]
    assert [list(drawn[0].get_xdata()) for drawn in axes.containers] == [[50, 100], [25, 50, 75, 100]]
    assert "depth" in axes.get_xlabel()


def test_a_matrix_is_shown_as_it_is():
    found = {"dense": layer("a", 0.5), "tied": layer("b", -0.25)}
    first, second, scale = matrix_figure(found, ink="black").axes
    assert np.array_equal(second.images[0].get_array(), found["tied"].matrix.numpy())
    assert (first.images[0].get_clim(), scale.get_ylim()) == ((-1, 1), (-1, 1))
    assert first.get_xlabel() == "4 filters, mean 0.500"


def test_layers_from_the_middle_go_by_the_first_networks_name():
    single = Similarity("patterns", [layer("only", 0.5, count=1)])
    found = middle_layers({
        "none": single, "dense": similarity(0.1, 0.2, 0.3), "same": similarity(0.4, 0.5, 0.6, 0.7, 0.8),
        "other": similarity(0.6, 0.7, prefix="block"),
    })
    assert {name: (each.name, each.mean) for name, each in found.items()} == {
        "dense": ("conv1", pytest.approx(0.2)), "same": ("conv1", pytest.approx(0.5)),
        "other": ("block1", pytest.approx(0.7)),
    }


def pair(source, target, *errors):
    return MapPair("layer1.0", source, target, 0.9, 2.0, dict(zip((1, 3), errors, strict=True)), {})


def test_maps_are_shown_beside_their_image():
    maps = torch.rand(5, 4, 6)
    found = {"dense": LayerMaps(np.zeros((8, 8, 3)), maps, [pair(0, 3, 1, 0.5), pair(2, 1, 1, 1)])}
    figure = pairs_figure(found, ink="black")
    pictures = [axes.images[0].get_array() for axes in figure.axes]
    assert len(pictures) == 5
    for shown, channel in zip(pictures[1:], (0, 3, 2, 1), strict=True):
        assert np.array_equal(shown, maps[channel].numpy())
    words = [text.get_text() for text in figure.texts]
    assert words == ["dense: layer1.0", "0 and 3, cosine 0.900", "2 and 1, cosine 0.900"]
    frames = [axes.patches[0].get_edgecolor() for axes in figure.axes[1:]]
    assert (frames[0], frames[2]) == (frames[1], frames[3])
    assert frames[0] != frames[2]


def test_errors_are_shares_of_the_power():
    found = {"dense": Reconstruction([pair(0, 3, 1, 0.5), pair(2, 1, 0.4, 0.2)], (1, 3), 4)}
    (axes,) = reconstruction_figure(found, ink="black").axes
    assert [list(line.get_ydata()) for line in axes.lines] == [pytest.approx([50, 25]), pytest.approx([20, 10])]
    assert list(axes.lines[0].get_xdata()) == [1, 3]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1 × 1", "3 × 3"]


def test_a_picture_is_no_wider_than_it_is_drawn():
    figure = matrix_figure({"dense": layer("a", 0.5)}, ink=STAND_IN)
    drawn = svg_as_drawn(figure, "A matrix")
    assert drawn.caption == "A matrix"
    assert drawn.svg.startswith(f'<svg style="max-width: {figure.get_figwidth():.2f}in" ')
    assert "currentColor" in drawn.svg
