"""The picture of depth maps enlarged by several methods."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from leanconv.report.depth_plot import depth_figure, depth_picture
from leanconv.tasks.depth.examples import Batch
from leanconv.tasks.depth.methods import BASELINES
from leanconv.tasks.depth.protocol import low_resolution, rmse

METHODS = {name: BASELINES[name] for name in ("nearest", "bilinear")}


def example(holes: bool = True) -> Batch:
    depth = 100 + 50 * torch.rand(1, 1, 32, 48)
    if holes:
        depth[..., 10:14, 10:14] = 0
    return Batch(low_resolution(depth, 4), torch.rand(1, 3, 32, 48), depth)


def test_a_picture_holds_what_the_methods_gave() -> None:
    low, image, depth = batch = example()
    picture = depth_picture("room", batch, METHODS)
    assert picture.image.shape == (32, 48, 3)
    np.testing.assert_array_equal(picture.low, low[0, 0])
    assert np.isnan(picture.depth).sum() == 16
    for name, method in METHODS.items():
        np.testing.assert_array_equal(picture.predictions[name], method(low, image)[0, 0])
        assert picture.errors[name] == pytest.approx(rmse(method(low, image), depth).item())


def test_panels_show_them_with_shared_scales() -> None:
    batch = example()
    pictures = [depth_picture(name, batch, METHODS) for name in ("room", "hall")]
    figure = depth_figure(pictures, unit="cm", ink="black")
    figure.draw_without_rendering()
    panels = [axes for axes in figure.axes if axes.images]
    titles = [axes.get_title() for axes in panels]
    scene = ["wanted", "nearest", "bilinear", "given: 1/4 of each side",
             *(f"RMSE {error:.2f} cm" for error in pictures[0].errors.values())]
    assert titles[:7] == ["room", *scene]
    assert titles[7] == "hall"
    shown = {axes.get_title(): axes.images[0] for axes in panels[:7]}
    limits = {title: image.get_clim() for title, image in shown.items()}
    assert limits["wanted"] == limits["nearest"] == limits["bilinear"] == limits["given: 1/4 of each side"]
    assert limits[titles[5]] == limits[titles[6]]
    assert limits[titles[5]][0] == 0
    wrong = np.abs(pictures[0].predictions["bilinear"] - pictures[0].depth)
    np.testing.assert_allclose(shown[titles[6]].get_array().filled(np.nan), wrong)
    bars = {bar.get_title(): bar.get_xlim() for axes in figure.axes for bar in axes.child_axes}
    assert bars == {"depth (cm)": pytest.approx(limits["wanted"]), "error (cm)": pytest.approx(limits[titles[6]])}


def test_a_scene_without_any_depth_is_drawn() -> None:
    batch = example()
    picture = depth_picture("nothing", Batch(batch.low, batch.image, torch.zeros_like(batch.depth)), METHODS)
    depth_figure([picture], unit="cm", ink="black").draw_without_rendering()
