"""Training, testing and comparing networks that enlarge depth maps, on small scenes."""

import json
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from leanconv.report import write_evaluation
from leanconv.report.depth_page import write_depth_report
from leanconv.tasks import depth_recipe, evaluate, train
from leanconv.tasks.depth.comparing import compare_depth
from leanconv.tasks.depth.protocol import Sampling
from leanconv.tasks.depth.upsampling import NETWORKS
from leanconv.tasks.depth_recipe import DepthRecipe
from leanconv.tasks.task import load_recipe
from leanconv.tasks.training_recipe import recipe_names


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Five scenes of 48×40: a bright near disc before a far wall, a hole in a corner."""
    root = tmp_path_factory.mktemp("depth") / "discs"
    root.mkdir()
    rows, columns = np.mgrid[:48, :40]
    for number in range(5):
        disc = (rows - 20 - number) ** 2 + (columns - 18) ** 2 < 120
        depth = np.where(disc, 900, 2400).astype(np.uint16)
        depth[:8, :8] = 0
        Image.fromarray(depth).save(root / f"{number}_depth_mm.png")
        Image.fromarray(np.where(disc[..., None], (220, 180, 90), (40, 60, 80)).astype(np.uint8)).save(
            root / f"{number}_rgb.png")
    return f"depth:{root}"


@pytest.fixture(scope="module")
def recipe(scenes):
    return DepthRecipe(data=scenes, crop=32, epochs=3, batch_size=2, lr=0.003, schedule="constant", decay_epochs=(),
                       accelerator="cpu")


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    train(recipe, folder)
    return folder


def test_a_training_learns_and_is_tested_in_centimetres(recipe, finished):
    rows = json.loads((finished / "metrics.json").read_text())
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    result = train(recipe, finished)
    evaluation = evaluate(finished)
    assert evaluation.data.unit == "cm"
    assert evaluation.rmse["ddf_up_net"] == pytest.approx(result.scores["rmse"], rel=1e-5)
    assert 5 < evaluation.rmse["bilinear"] < 100  # the disc is 150 cm before the wall
    assert set(evaluation.errors) == {"ddf_up_net", "nearest", "bilinear", "bicubic", "joint-bilateral"}


def test_the_same_training_again_gives_the_same_weights(recipe, finished, tmp_path):
    train(recipe, tmp_path)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path, finished))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_report_has_pictures_and_numbers(finished, tmp_path):
    evaluation = evaluate(finished)
    text = write_evaluation(evaluation, tmp_path).read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"errors.csv", "depth.png", "report.html"}
    best = min(evaluation.rmse, key=evaluation.rmse.get)
    assert f"{best} is nearest to the truth" in text
    header, first, *_ = (tmp_path / "errors.csv").read_text().splitlines()
    assert header.startswith("method,")
    assert float(first.split(",")[1]) == evaluation.errors["ddf_up_net"][0]


def test_networks_are_compared_with_each_other_and_with_methods_that_do_not_learn(recipe, tmp_path):
    comparison = compare_depth(replace(recipe, epochs=1), [0, 1], tmp_path, progress=False)
    assert {name: len(errors) for name, errors in comparison.errors.items()} == {"ddf_up_net": 2, "pac_net": 2}
    assert comparison.parameters["ddf_up_net"] == 156_921
    means = [float(row[1].split(" ")[0]) for row in comparison.table().rows]
    assert means == sorted(means)
    assert " ± " in next(row[1] for row in comparison.table().rows if row[0] == "pac_net")
    path = write_depth_report(comparison.evaluation, comparison.table(), tmp_path, command="compare")
    assert "pac_net" in path.read_text()
    before = (tmp_path / "pac_net" / "seed-1" / "result.json").read_text()
    compare_depth(replace(recipe, epochs=1), [0, 1], tmp_path, progress=False)
    assert (tmp_path / "pac_net" / "seed-1" / "result.json").read_text() == before


@pytest.mark.parametrize(("key", "value", "message"), [
    ("factor", 3, "must be one of 4, 8, 16, got 3"),
    ("crops", 0, "must be at least 1, got 0"),
    ("crop", 30, r"must be a multiple of factor \(4\), got 30"),
    ("units_per_metre", 0, "must be above 0"),
    ("sampling", "center", "did you mean 'centre'"),
    ("model", "ddf_up", "did you mean 'ddf_up_net'"),
    ("data", "folder:x", "unknown data source"),
])
def test_rules(recipe, key, value, message):
    with pytest.raises(ValueError, match=message):
        replace(recipe, **{key: value})


def test_an_operator_is_refused(recipe, tmp_path):
    with pytest.raises(ValueError, match="takes no operator, got operator 'tied:blocks=2'"):
        train(replace(recipe, operator="tied:blocks=2"), tmp_path)


@pytest.mark.parametrize("name", [name for name in recipe_names() if load_recipe(name).task == "depth"])
def test_a_recipe_trains(name, scenes, tmp_path):
    """An epoch on tiny images, in the recipe's own way."""
    recipe = load_recipe(name, data=scenes, crop=32, crops=1, epochs=1, schedule="constant", decay_epochs=[],
                         warmup_epochs=0, batch_size=2, workers=0, accelerator="cpu")
    assert 5 < train(recipe, tmp_path).scores["rmse"] < 300
    (row,) = json.loads((tmp_path / "metrics.json").read_text())
    assert 0 < row["train_loss"] < 10


def test_a_recipe_knows_what_there_is():
    assert tuple(NETWORKS) == depth_recipe.NETWORKS
    assert get_args(Sampling) == depth_recipe.SAMPLINGS
