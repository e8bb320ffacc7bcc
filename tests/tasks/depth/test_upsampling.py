"""Training, testing and comparing networks that enlarge depth maps, on small scenes."""

import json
import math
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from command_line import complaint, csv_rows
from PIL import Image
from safetensors.torch import load_file

from leanconv.report import write_evaluation
from leanconv.report.depth_page import write_depth_report
from leanconv.tasks import depth_recipe, evaluate, train
from leanconv.tasks.depth import BASELINES, Scene, WholeImages, open_depth
from leanconv.tasks.depth.comparing import compare_depth
from leanconv.tasks.depth.evaluation import Evaluation, Placed, Run, errors_of
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
    assert [(run.method, run.seed) for run in evaluation.runs] == [
        ("ddf_up_net", 0), *((name, None) for name in ("nearest", "bilinear", "bicubic", "joint-bilateral"))]


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
    assert "those of seed" not in text
    [row] = csv_rows(tmp_path / "errors.csv")[:1]
    expected = evaluation.runs[0].errors[0]
    assert row == {"method": "ddf_up_net", "seed": "0", "scene": evaluation.data.test.names[0], "rmse": str(expected)}


def test_networks_are_compared_with_each_other_and_with_methods_that_do_not_learn(recipe, tmp_path):
    recipe, out = replace(recipe, epochs=1, precision="bf16"), tmp_path / "new"
    comparison = compare_depth(recipe, [0, 1], out, progress=False)
    runs = {(run.method, run.seed): run.rmse for run in comparison.runs}
    assert set(runs) == {("ddf_up_net", 0), ("ddf_up_net", 1), ("pac_net", 0), ("pac_net", 1),
                         *((name, None) for name in BASELINES)}
    for (method, seed), error in runs.items():
        if seed is not None:
            result = json.loads((out / method / f"seed-{seed}" / "result.json").read_text())
            assert error == pytest.approx(result["scores"]["rmse"], rel=1e-4)
    rows = {row[0]: row[1:3] for row in comparison.table().rows}
    pair = [runs["pac_net", seed] for seed in (0, 1)]
    assert rows["pac_net"] == [f"{statistics.mean(pair):.2f} ± {statistics.stdev(pair):.2f}", 183_489]
    assert rows["bicubic"] == [f"{runs['bicubic', None]:.2f}", 0]
    assert [float(shown.split(" ")[0]) for shown, _ in rows.values()] == pytest.approx(
        sorted(comparison.rmse.values()), abs=0.006)

    tests = []
    again = compare_depth(recipe, [0, 1], out, progress=False, step=lambda done, total: tests.append(done))
    assert tests == []
    assert str(again) == str(comparison)
    shutil.rmtree(out / "pac_net" / "seed-1")
    scenes, third = len(comparison.data.test), compare_depth(
        recipe, [0, 1, 2], out, progress=False, step=lambda done, total: tests.append(done))
    assert len(tests) == 3 * scenes  # of the network trained again, and of two with the third seed
    assert [run for run in third.runs if run.seed == 0] == [run for run in comparison.runs if run.seed == 0]


def made(errors, data):
    """An evaluation with these errors by method and seed, on one scene."""
    examples = WholeImages(data.test, 4)
    methods = {name: Placed(BASELINES["nearest"], DepthRecipe(data="depth:x", accelerator="cpu")) for name, _ in errors}
    runs = [Run(*key, found) for key, found in errors.items()]
    return Evaluation(runs=runs, data=data, factor=4, methods=methods, examples=examples)


def test_a_report_of_several_seeds_tells_of_their_means(scenes, tmp_path):
    """The network is best with the first seed alone, and second in the mean."""
    evaluation = made({("net", 0): [1.0], ("net", 1): [9.0], ("plain", None): [3.0]}, open_depth(scenes, limit=1))
    text = write_depth_report(evaluation, tmp_path, command="compare").read_text()
    assert "plain is nearest to the truth: it is off by 3.00 cm" in text
    assert "Networks are those of seed 0." in text
    assert [(row["method"], row["seed"], row["rmse"]) for row in csv_rows(tmp_path / "errors.csv")] == [
        ("net", "0", "1.0"), ("net", "1", "9.0"), ("plain", "", "3.0")]
    assert [row[:2] for row in evaluation.table().rows] == [["plain", "3.00"], ["net", "5.00 ± 5.66"]]
    assert [row[3] for row in evaluation.table().rows] == ["3.00", "5.00"]


def test_a_scene_without_depth_does_not_count_but_a_network_without_an_answer_does(scenes):
    data = open_depth(scenes, limit=1)
    errors = {("diverged", 0): [math.nan, 2.0], ("diverged", 1): [4.0, 2.0], ("plain", None): [None, 3.0]}
    evaluation = made(errors, data)
    assert list(evaluation.rmse) == ["plain", "diverged"]
    assert evaluation.rmse["plain"] == 3
    assert math.isnan(evaluation.rmse["diverged"])
    assert evaluation.table().rows[1][1] == "nan ± nan"

    class Blind(type(data.test)):
        def read(self, index):
            image, depth = super().read(index)
            return Scene(image, 0 * depth)

    examples = WholeImages(Blind(data.test.pairs, data.test.sizes), 4)
    assert errors_of(list(evaluation.methods.values()), examples) == [[None]] * 2


def test_networks_are_tested_in_their_precision(finished):
    full, half = (evaluate(finished, precision=precision, workers=1) for precision in ("fp32", "bf16"))
    assert full.rmse["ddf_up_net"] != half.rmse["ddf_up_net"]
    assert full.rmse["ddf_up_net"] == pytest.approx(half.rmse["ddf_up_net"], rel=0.02)
    assert full.rmse["joint-bilateral"] == half.rmse["joint-bilateral"]
    with pytest.raises(ValueError, match="batch_size can't be given: scenes are tested one by one, got 2"):
        evaluate(finished, batch_size=2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_network_on_a_gpu_is_shown_in_the_report(finished, tmp_path):
    evaluation = evaluate(finished, accelerator="gpu")
    assert evaluation.rmse == pytest.approx(evaluate(finished, accelerator="cpu").rmse, rel=1e-3)
    assert write_evaluation(evaluation, tmp_path).exists()


def renamed(scenes, root, ending):
    """The scenes with other names of their depth maps, which say another unit or none."""
    root.mkdir()
    for path in Path(scenes.removeprefix("depth:")).iterdir():
        shutil.copy(path, root / path.name.replace("_depth_mm", ending))
    return f"depth:{root}"


def test_depth_in_another_unit_is_refused(recipe, finished, scenes, tmp_path):
    silent = renamed(scenes, tmp_path / "silent", "_depth")
    with pytest.raises(ValueError, match=r"in cm, as the network .* got levels of .*silent: give units_per"):
        evaluate(finished, silent)
    in_cm = evaluate(finished)
    assert evaluate(finished, silent, units_per_metre=1000).rmse == in_cm.rmse

    few = replace(recipe, epochs=1, limit=2)
    train(replace(few, data=silent), tmp_path / "levels")
    for data, options in ((scenes, {}), (None, {"units_per_metre": 1000})):
        with pytest.raises(ValueError, match=r"in levels, as the network .* got cm of .*: don't give units_per"):
            evaluate(tmp_path / "levels", data, **options)
    weights = finished / "model.safetensors"
    with pytest.raises(ValueError, match=r"in cm, as the network has learned it, got levels of .*silent"):
        train(replace(few, data=silent, weights=weights), tmp_path / "more")
    train(replace(few, weights=weights), tmp_path / "more")


def test_other_data_has_its_own_scale(recipe, scenes, tmp_path):
    """A network trained on files whose unit the recipe says, tested on files that say it themselves."""
    silent = renamed(scenes, tmp_path / "silent", "_depth")
    train(replace(recipe, data=silent, units_per_metre=1000, epochs=1), tmp_path / "run")
    known = evaluate(tmp_path / "run").rmse
    assert evaluate(tmp_path / "run", silent, units_per_metre=1000).rmse == known
    assert evaluate(tmp_path / "run", scenes).rmse == known
    far = evaluate(tmp_path / "run", renamed(scenes, tmp_path / "far", "_depth_cm")).rmse
    assert far["bilinear"] == pytest.approx(10 * known["bilinear"])


def test_a_comparison_takes_no_folder_of_another(recipe, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"rows": [], "recipe": {"model": "cifar_resnet20"}}))
    with pytest.raises(ValueError, match="must be new or hold a comparison of networks for depth, got one of classif"):
        compare_depth(recipe, [0], tmp_path, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(ValueError, match=r"results.json isn't the result of a comparison"):
        compare_depth(recipe, [0], tmp_path, progress=False)


@pytest.mark.parametrize(("changes", "message"), [
    ({"weights": "some.safetensors"}, "'weights' must be empty to compare networks, .* got 'some.safetensors'"),
    ({"crop": 64}, "crop must fit into every scene to train on, got 64 for 48×40"),
    ({"limit": 1, "batch_size": 2, "devices": 2}, "at least 2 images for 2 process"),
])
def test_what_is_wrong_with_a_comparison_shows_before_it_trains(recipe, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        compare_depth(replace(recipe, **changes), [0], tmp_path / "new", progress=False)
    assert not (tmp_path / "new").exists()


def in_parts(scenes, root, size):
    """The scenes to train on, and two of them again to test on, of another size."""
    shutil.copytree(scenes.removeprefix("depth:"), root / "train")
    (root / "val").mkdir(parents=True)
    for path in sorted((root / "train").iterdir())[:4]:
        with Image.open(path) as picture:
            picture.resize(size, Image.Resampling.NEAREST).save(root / "val" / path.name)
    return f"depth:{root}"


def test_scenes_that_nothing_is_measured_in_show_before_a_training(recipe, scenes, tmp_path):
    with pytest.raises(ValueError, match=r"scenes to test on must have sides of more than 12 .* got 12×40 of 0"):
        train(replace(recipe, data=in_parts(scenes, tmp_path / "data", (40, 12))), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_the_command_says_what_is_compared(scenes, capsys, tmp_path):
    for option, value in (("--model", "pac_net"), ("--operators", "dense")):
        text = complaint(capsys, "compare", "--task", "depth", "--data", scenes, option, value, "--out", tmp_path)
        assert "--operators and --model can't be given for depth" in text


COMPARE = """
import sys
from leanconv.cli import main

main(["compare", "--task", "depth", *sys.argv[1:]])
"""


@pytest.mark.slow
def test_of_two_processes_the_first_tests_and_reports(scenes, tmp_path, script):
    options = ["--data", in_parts(scenes, tmp_path / "data", (40, 48)), "--crop", "32", "--epochs", "1", "--seeds", "1",
               "--schedule", "constant", "--decay-epochs", "--batch-size", "4", "--accelerator", "cpu",
               "--no-channels-last", "--out", tmp_path / "out"]
    ran = script(COMPARE, "--devices", "2", *options)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("report: ") == ran.stdout.count("RMSE in cm") == 1
    assert len(csv_rows(tmp_path / "out" / "errors.csv")) == 2 * (2 + len(BASELINES))
    again = script(COMPARE, *options)  # read, in one process
    assert again.stdout == ran.stdout


@pytest.mark.parametrize(("key", "value", "message"), [
    ("factor", 3, "must be one of 4, 8, 16, got 3"),
    ("crops", 0, "must be at least 1, got 0"),
    ("crop", 30, r"must be a multiple of factor \(4\), got 30"),
    ("units_per_metre", 0, "must be above 0"),
    ("sampling", "center", "did you mean 'centre'"),
    ("model", "ddf_up", "did you mean 'ddf_up_net'"),
    ("data", "folder:x", "unknown data source"),
    ("operator", "tied:blocks=2", "'operator' must be 'dense' for depth, .* got 'tied:blocks=2'"),
    ("where", "steps.*", r"'where' must be '' for depth, .* got 'steps.\*'"),
    ("pretrained", True, "'pretrained' must be False for depth, .* got True"),
])
def test_rules(recipe, key, value, message):
    with pytest.raises(ValueError, match=message):
        replace(recipe, **{key: value})


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
