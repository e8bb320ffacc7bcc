import csv
import dataclasses
import json
import re

import pytest
import torch

from leanconv.measure import Timing
from leanconv.tasks import Recipe, Result, comparing
from leanconv.tasks.classification import Classification
from leanconv.tasks.comparing import compare
from leanconv.tasks.comparison import Comparison, Row, Training

OPERATORS = ["dense", "tied:blocks=2"]
SEEDS = [0, 1]


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch):
    monkeypatch.setattr(comparing, "ROUNDS", 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where `whole` lies."""
    return tmp_path_factory.mktemp("runs") / "whole"


@pytest.fixture(scope="module")
def recipe(quick):
    return dataclasses.replace(quick, epochs=2)


@pytest.fixture(scope="module")
def whole(recipe, folder):
    """A comparison that nothing interrupted."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(comparing, "ROUNDS", 2)
        return compare(recipe, OPERATORS, SEEDS, folder)


@pytest.fixture
def trained(monkeypatch):
    """The operators and seeds that are trained, in order, as they start."""
    calls = []

    def train(recipe, *call, original=comparing.train, **named):
        calls.append((recipe.operator, recipe.seed))
        return original(recipe, *call, **named)

    monkeypatch.setattr(comparing, "train", train)
    return calls


def accuracies(comparison: Comparison) -> dict[str, list[float]]:
    return {row.operator: [training.score for training in row.trainings] for row in comparison.rows}


def stored(folder) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_numbers_are_those_of_the_run_folders(whole, folder):
    assert whole.finished
    assert whole.seeds == SEEDS
    for row, name in zip(stored(folder)["rows"], ("dense", "tied-blocks-2"), strict=True):
        first, second = (Result.load(folder / name / f"seed-{seed}") for seed in SEEDS)
        assert row["score"] == pytest.approx(50 * (first.scores["accuracy"] + second.scores["accuracy"]))
        assert row["spread"] == pytest.approx(100 * abs(first.scores["accuracy"] - second.scores["accuracy"]) / 2**0.5)
        assert row["train_seconds"] == pytest.approx((first.seconds + second.seconds) / 2)
        assert row["params"] < first.params, "folded norms are gone"
        metrics = json.loads((folder / name / "seed-1" / "metrics.json").read_text())
        assert row["trainings"][1]["curve"]["train_loss"] == [epoch["train_loss"] for epoch in metrics]
        assert row["trainings"][1]["curve"]["test_score"] == [100 * epoch["test_accuracy"] for epoch in metrics]


def test_counts_are_those_of_the_layers(whole):
    dense, tied = whole.rows
    stem, head = 3 * 8 * 9, 16 * 6 + 6
    assert dense.params == stem + 8 + 8 * 16 * 9 + 16 + head, "each norm is a bias now"
    assert tied.params == stem + 8 + 4 * 8 * 9 + 2 * 16 + head, "the filters are counted once, with the norm after them"
    assert dense.macs == 64 * stem + 16 * 8 * 16 * 9 + 16 * 6
    assert tied.macs == 64 * stem + 16 * 8 * 16 * 9 // 2 + 16 * 6


def test_csv_and_json_hold_the_same_numbers(whole, folder):
    with open(folder / "results.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    for line, row in zip(lines, stored(folder)["rows"], strict=True):
        assert line["operator"] == row["operator"]
        assert int(line["trainings"]) == 2
        for name in ("score", "spread", "params", "macs", "train_seconds"):
            assert float(line[name]) == row[name]
        for batch in ("1", "32"):
            low, median, high = (float(line[f"ms_b{batch}{part}"]) for part in ("_low", "", "_high"))
            assert 0 < low <= median <= high
            assert median == row["latency"][batch]["median_ms"]


def test_the_setting_says_how_to_repeat_it(whole, recipe, folder):
    setting = stored(folder)["setting"]
    assert set(setting["versions"]) == {"python", "leanconv", "torch", "torchvision", "timm", "lightning"}
    assert setting["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert setting["machine"]["threads"] == torch.get_num_threads()
    assert setting["started"] <= setting["finished"]
    assert setting["command"]
    assert Recipe.of({**stored(folder)["recipe"], "operator": "dense", "seed": 0}) == recipe


def test_it_loads_from_its_folder_and_prints(whole, folder):
    assert Comparison.load(folder) == whole
    text = str(whole)
    row = whole.rows[1]
    assert re.search(rf"tied:blocks=2 +{row.score:.2f} ± {row.spread:.2f} ", text)
    assert "seeds 0, 1" in text
    assert "1 thread, 1×3×16×16, float32, channels_last" in text


@pytest.mark.parametrize("stop", [("dense", 0, 0), ("tied:blocks=2", 0, 1), ("tied:blocks=2", 1, 1)])
def test_interrupted_it_keeps_what_is_done_and_resumes(recipe, whole, tmp_path, monkeypatch, trained, stop):
    original = Classification.training_step

    def step(module, batch):
        if (module.recipe.operator, module.recipe.seed, module.current_epoch) == stop:
            raise KeyboardInterrupt
        return original(module, batch)

    order = [(operator, seed) for seed in SEEDS for operator in OPERATORS]
    done = order.index(stop[:2])
    with monkeypatch.context() as patched:
        patched.setattr(Classification, "training_step", step)
        with pytest.raises(KeyboardInterrupt):
            compare(recipe, OPERATORS, SEEDS, tmp_path)
    assert trained == order[: done + 1]
    half = Comparison.load(tmp_path)
    assert not half.finished
    assert sum(len(row.trainings) for row in half.rows) == done
    for operator, found in accuracies(half).items():
        assert found == accuracies(whole)[operator][: len(found)]

    trained.clear()
    resumed = compare(recipe, OPERATORS, SEEDS, tmp_path)
    assert trained == order[done:]
    assert accuracies(resumed) == accuracies(whole)
    assert resumed.finished
    assert resumed.setting["started"] == half.setting["started"]


def test_interrupted_while_it_measures_it_keeps_the_trainings(recipe, tmp_path, monkeypatch, trained):
    def interrupt(*call):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(comparing, "timed", interrupt)
        with pytest.raises(KeyboardInterrupt):
            compare(recipe, ["dense"], [0], tmp_path)
    assert len(Comparison.load(tmp_path).rows[0].trainings) == 1
    trained.clear()
    assert compare(recipe, ["dense"], [0], tmp_path).finished
    assert trained == []


def test_operators_and_seeds_can_be_added(recipe, tmp_path, trained):
    first = compare(recipe, ["dense"], [1], tmp_path)
    second = compare(recipe, ["tied:blocks=4"], [0], tmp_path)
    assert trained == [("dense", 1), ("dense", 0), ("tied:blocks=4", 0), ("tied:blocks=4", 1)]
    assert [row.operator for row in second.rows] == ["dense", "tied:blocks=4"]
    assert second.seeds == [0, 1]
    assert second.finished
    assert second.rows[0].trainings[1] == first.rows[0].trainings[0]
    assert first.rows[0].spread is None
    assert second.rows[0].spread is not None


def test_finished_it_is_only_read(whole, recipe, folder, monkeypatch):
    before = stored(folder)
    monkeypatch.setattr(comparing, "task_named", lambda *call, **named: pytest.fail("opened the data"))
    assert compare(recipe, OPERATORS, SEEDS, folder) == whole
    assert compare(recipe, ["dense"], [1], folder) == whole
    with pytest.raises(ValueError, match=r"another epochs \(2 there, 5 here\)"):
        compare(dataclasses.replace(recipe, epochs=5), OPERATORS, SEEDS, folder)
    assert stored(folder) == before


def test_seeds_are_trained_in_order(recipe, tmp_path, trained):
    comparison = compare(recipe, ["dense"], [1, 0], tmp_path)
    assert comparison.seeds == [0, 1]
    assert trained == [("dense", 0), ("dense", 1)]


def test_of_one_seed_no_deviation_is_promised(whole):
    assert "mean ± standard deviation over seeds 0, 1;" in whole.notes()[0]
    alone = dataclasses.replace(whole, seeds=[0])
    assert "after the last epoch, seed 0;" in alone.notes()[0]


def test_a_folder_of_another_recipe_is_refused(whole, recipe, folder, monkeypatch):
    before = stored(folder)
    other = dataclasses.replace(recipe, epochs=5, lr=0.3)
    monkeypatch.setattr(comparing, "train", lambda *call, **named: pytest.fail("trained"))
    with pytest.raises(ValueError, match=r"another epochs \(2 there, 5 here\), lr \(0.2 there, 0.3 here\)"):
        compare(other, ["tied:blocks=4"], [0], folder)
    assert stored(folder) == before


@pytest.mark.parametrize(("changes", "operators", "seeds", "message"), [
    ({}, ["dense", "tide"], [0], "unknown operator 'tide': did you mean 'tied'"),
    ({}, ["dense", "tied:block=2"], [0], "unknown setting of operator 'tied' 'block': did you mean 'blocks'"),
    ({}, ["dense", "tied:blocks=3"], [0], "takes none of the model's"),
    ({}, [], [0], r"operators must be at least one, each once, got \[\]"),
    ({}, ["dense", "dense"], [0], r"operators must be at least one, each once, got \['dense', 'dense'\]"),
    ({}, ["dense"], [], r"seeds must be at least one, each once, got \[\]"),
    ({}, ["dense"], [0, -1], "'seed' must be at least 0, got -1"),
    ({"model": "cifar_resnet21"}, ["dense"], [0], "unknown model 'cifar_resnet21'"),
    ({"model": "inception_v3"}, ["dense"], [0], "model 'inception_v3' can't run on images of 3×16×16"),
    ({"data": "arrays:nowhere.npz"}, ["dense"], [0], "nowhere.npz"),
    ({"accelerator": "gpu", "devices": 32}, ["dense"], [0], "needs as many CUDA GPUs"),
])  # fmt: skip
def test_mistakes_show_before_any_training(recipe, tmp_path, monkeypatch, changes, operators, seeds, message):
    monkeypatch.setattr(comparing, "train", lambda *call, **named: pytest.fail("trained"))
    with pytest.raises(ValueError, match=message):
        compare(dataclasses.replace(recipe, **changes), operators, seeds, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_shows_before_any_training(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(comparing, "train", lambda *call, **named: pytest.fail("trained"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot make the folder"):
        compare(recipe, ["dense"], [0], tmp_path / "file" / "new")


def test_a_line_tells_of_each_finished_training(recipe, tmp_path, capsys):
    comparison = compare(recipe, OPERATORS, [0], tmp_path)
    first, second = capsys.readouterr().err.splitlines()
    dense, tied = comparison.rows
    time = r"after \d+ s"
    assert re.fullmatch(f"dense, seed 0: accuracy {dense.score:.2f}% {time}; 1 of 2 trained, about 0.. min left", first)
    assert re.fullmatch(f"tied:blocks=2, seed 0: accuracy {tied.score:.2f}% {time}; 2 of 2 trained", second)
    compare(recipe, [*OPERATORS, "tied:blocks=4"], [0], tmp_path, progress=False)
    assert capsys.readouterr().err == ""


COMPARE = """
import sys
from leanconv.tasks import Recipe, comparing

comparing.ROUNDS = 2
print(comparing.compare(Recipe.load(sys.argv[1]), ["dense", "tied:blocks=2"], [0], sys.argv[2]).finished, flush=True)
"""


def test_two_processes_compare_what_one_compares(recipe, tmp_path, script):
    pair = dataclasses.replace(recipe, devices=2, strategy="ddp")
    pair.save(tmp_path / "pair.yaml")
    ran = script(COMPARE, tmp_path / "pair.yaml", tmp_path / "pair")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("True") == 2  # each process has it
    assert len(ran.stderr.splitlines()) == 2  # one process tells of each training
    assert Comparison.load(tmp_path / "pair").finished


@pytest.mark.parametrize(("content", "message"), [
    (None, "folder must hold a comparison, got .* without a results.json"),
    ("{", "results.json isn't the result of a comparison"),
    ('{"recipe": {"task": "depth"}}', "it compares networks for depth, not operators"),
    ('{"recipe": {}, "rows": [{"operator": "dense"}]}', "isn't the result of a comparison of operators: .*'params'"),
    ("[]", "results.json isn't the result of a comparison"),
])  # fmt: skip
def test_what_holds_no_comparison_is_not_loaded(tmp_path, content, message):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        Comparison.load(tmp_path)


def test_a_spread_needs_two_trainings_and_a_mean_one():
    rows = [Row("dense", 1, 1, [Training(seed, accuracy, 2.0) for seed, accuracy in enumerate(found)])
            for found in ([], [90.0], [90.0, 96.0, 93.0])]
    assert [row.score for row in rows] == [None, 90.0, 93.0]
    assert [row.spread for row in rows] == [None, None, 3.0]
    assert [row.train_seconds for row in rows] == [None, 2.0, 2.0]


def test_milliseconds_are_per_image():
    assert comparing.per_image(Timing(64.0, 32.0, 96.0, 20), 32) == Timing(2.0, 1.0, 3.0, 20)


def test_by_default_each_operator_that_takes_a_layer_is_compared(quick, tmp_path, capfd):
    recipe = dataclasses.replace(quick, epochs=1, warmup_epochs=0, limit=64)
    comparison = compare(recipe, None, [0], tmp_path)
    assert [row.operator for row in comparison.rows] == ["dense", "tied", "asymmetric", "ghost", "split", "ddf"]
    dense, tied, asymmetric, *leaner = comparison.rows
    assert (asymmetric.params, asymmetric.macs) == (dense.params, dense.macs), "deployed, it is the plain network"
    assert all(row.params < dense.params and row.macs < dense.macs for row in (tied, *leaner))
    assert all(row.trainings and row.latency for row in comparison.rows)


def test_operators_that_take_nothing_are_left_out_with_a_word(quick, capfd):
    recipe = dataclasses.replace(quick, model="mobilenetv3_small_050")
    assert comparing.applicable(recipe, progress=True) == ["dense", "tied"]
    assert "split takes no layer of mobilenetv3_small_050: left out" in capfd.readouterr().err
