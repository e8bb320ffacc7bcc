"""Two processes on the CPU."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

from leanconv.tasks import Result, evaluate, train

TRAIN = """
import sys
from leanconv.tasks import Recipe, train

for recipe, folder in zip(sys.argv[1::2], sys.argv[2::2]):
    print(train(Recipe.load(recipe), folder).scores['accuracy'], flush=True)
"""


def test_two_processes_train_what_one_trains(quick, tmp_path, script):
    """One training after another in the same processes; without BatchNorm the weights are those of one process."""
    alone = dataclasses.replace(quick, model=quick.model.replace("Tiny", "Plain"), augment=False, workers=1)
    arguments = []
    for name, seed in (("a", 0), ("b", 1)):
        pair = dataclasses.replace(alone, devices=2, strategy="ddp", seed=seed)
        pair.save(tmp_path / f"{name}.yaml")
        arguments += [tmp_path / f"{name}.yaml", tmp_path / name]
    ran = script(TRAIN, *arguments)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    for name, seed in (("a", 0), ("b", 1)):
        result = Result.load(tmp_path / name)
        assert ran.stdout.count(str(result.scores["accuracy"])) >= 2  # each process has it
        evaluation = evaluate(tmp_path / name)  # over all test images, in one process
        assert evaluation.accuracy == pytest.approx(result.scores["accuracy"])
        assert evaluation.loss == pytest.approx(result.scores["loss"], rel=1e-4)
        train(dataclasses.replace(alone, seed=seed), tmp_path / f"{name} alone")
        ours, theirs = (load_file(tmp_path / folder / "model.safetensors") for folder in (name, f"{name} alone"))
        for key, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[key], atol=1e-4, rtol=1e-3)
        rows, expected = (
            json.loads((tmp_path / folder / "metrics.json").read_text()) for folder in (name, f"{name} alone")
        )
        assert [row["train_loss"] for row in rows] == pytest.approx([row["train_loss"] for row in expected], rel=1e-3)

    # Where a training runs isn't what it trains: one process finishes what two began.
    (tmp_path / "a" / "result.json").unlink()
    assert train(alone, tmp_path / "a").scores["accuracy"] == Result.load(tmp_path / "a alone").scores["accuracy"]
