import csv
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from leanconv.tasks import Recipe, Result, evaluate, train
from leanconv.tasks.classification import Classification
from leanconv.tasks.recording import write_rows


def test_a_training_learns_and_leaves_everything_in_its_folder(quick, tmp_path):
    recipe = dataclasses.replace(quick, epochs=8)
    result = train(recipe, tmp_path)
    assert result.scores["accuracy"] > 0.6
    assert result.epochs == 8
    assert result.params == sum(tensor.numel() for name, tensor in load_file(tmp_path / "model.safetensors").items()
                                if "running" not in name and "tracked" not in name)
    assert set(result.versions) >= {"python", "torch", "leanconv", "timm", "lightning"}
    assert {path.name for path in tmp_path.iterdir()} == {
        "recipe.yaml", "metrics.csv", "metrics.json", "last.ckpt", "model.safetensors", "result.json"
    }
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe
    assert Result.load(tmp_path) == result
    rows = json.loads((tmp_path / "metrics.json").read_text())
    assert [row["epoch"] for row in rows] == list(range(1, 9))
    assert rows[-1]["test_accuracy"] == result.scores["accuracy"]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert sum(row["seconds"] for row in rows) == pytest.approx(result.seconds)
    with open(tmp_path / "metrics.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [{key: float(value) for key, value in row.items()} for row in table] == rows


def test_the_same_call_again_only_reads_the_result(quick, tmp_path, monkeypatch):
    first = train(quick, tmp_path)
    monkeypatch.setattr("leanconv.tasks.training.task_named", lambda *call, **named: pytest.fail("opened the data"))
    assert train(quick, tmp_path) == first
    assert train(dataclasses.replace(quick, workers=2), tmp_path) == first


def test_a_folder_of_another_recipe_is_refused(quick, tmp_path):
    train(dataclasses.replace(quick, epochs=1), tmp_path)
    before = (tmp_path / "recipe.yaml").read_text()
    message = r"another epochs \(1 there, 4 here\), lr \(0.2 there, 0.3 here\): choose another --out$"
    for kept in ("result.json", "last.ckpt"):
        with pytest.raises(ValueError, match=message):
            train(dataclasses.replace(quick, epochs=4, lr=0.3), tmp_path)
        (tmp_path / kept).unlink()
    assert (tmp_path / "recipe.yaml").read_text() == before


def test_a_folder_where_no_epoch_was_kept_takes_another_recipe(quick, tmp_path):
    with pytest.raises(ValueError, match="unknown model"):
        train(dataclasses.replace(quick, model="cifar_resnet21"), tmp_path)
    train(dataclasses.replace(quick, epochs=1), tmp_path)
    assert Recipe.load(tmp_path / "recipe.yaml").model == quick.model


def test_training_leaves_the_callers_generators_alone(quick, tmp_path):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    train(dataclasses.replace(quick, epochs=1), tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_images_that_the_network_cannot_take_are_refused(tmp_path):
    recipe = Recipe(model="vit_tiny_patch16_224", limit=20, epochs=1, accelerator="cpu")
    with pytest.raises(ValueError, match=r"^model 'vit_tiny_patch16_224' can't run on images of 1×16×16: Input height"):
        train(recipe, tmp_path)


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_seed_decides_the_weights(quick, tmp_path):
    for name, seed, workers in (("a", 0, 0), ("b", 0, 2), ("c", 1, 0)):
        train(dataclasses.replace(quick, seed=seed, workers=workers), tmp_path / name)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


class Stop(Exception):
    pass


def stop_in(epoch: int, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the training step of this epoch, counted from 0, fail."""
    train_step = Classification.training_step
    seen = []

    def failing(module, batch):
        if module.current_epoch == epoch:
            seen.append(None)
        if len(seen) > step:
            raise Stop
        return train_step(module, batch)

    monkeypatch.setattr(Classification, "training_step", failing)


def stop_before_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*call):
        raise Stop

    monkeypatch.setattr("leanconv.tasks.training.save_tensors", failing)


@pytest.mark.parametrize("values", [
    {},
    {"ema": 0.9},
    {"mixup": 0.4, "cutmix": 1.0, "label_smoothing": 0.1, "accumulate": 2, "workers": 1},
    {"optimizer": "adamw", "lr": 0.01, "precision": "bf16", "operator": "tied:blocks=2"},
], ids=lambda values: "-".join(values) or "plain")
@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_a_resumed_training_ends_with_the_same_weights(quick, tmp_path, monkeypatch, values, done):
    recipe = dataclasses.replace(quick, **values)
    whole = train(recipe, tmp_path / "whole")
    with monkeypatch.context() as patched:
        if done < recipe.epochs:
            stop_in(done, 3, patched)
        else:
            stop_before_the_result(patched)
        with pytest.raises(Stop):
            train(recipe, tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "result.json").exists()
    metrics = tmp_path / "stopped" / "metrics.json"
    before = json.loads(metrics.read_text()) if done else []
    assert len(before) == done
    resumed = train(recipe, tmp_path / "stopped")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "stopped"))
    assert resumed.scores == whole.scores
    rows = json.loads(metrics.read_text())
    assert rows[:done] == before
    for row, other in zip(rows, json.loads((tmp_path / "whole" / "metrics.json").read_text()), strict=True):
        assert {**row, "seconds": 0} == {**other, "seconds": 0}


@pytest.mark.parametrize("killed", [1, 3])
def test_a_kill_between_checkpoint_and_metrics_loses_no_row(quick, tmp_path, monkeypatch, killed):
    def failing(folder, rows):
        if len(rows) == killed:
            raise Stop
        write_rows(folder, rows)

    with monkeypatch.context() as patched:
        patched.setattr("leanconv.tasks.recording.write_rows", failing)
        with pytest.raises(Stop):
            train(quick, tmp_path)
    train(quick, tmp_path)
    rows = json.loads((tmp_path / "metrics.json").read_text())
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows == torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]["Recorder"]["rows"]


def test_checkpoints_hold_nothing_but_tensors_and_primitives(quick, tmp_path):
    train(dataclasses.replace(quick, ema=0.9), tmp_path)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 2


def test_the_average_is_what_is_tested_and_kept(quick, tmp_path):
    train(dataclasses.replace(quick, ema=0.9), tmp_path)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    kept, last = weights(tmp_path), checkpoint["current_model_state"]
    assert not torch.equal(kept["head.3.weight"], last["network.head.3.weight"])
    assert evaluate(tmp_path).loss == pytest.approx(Result.load(tmp_path).scores["loss"], rel=1e-5)


def test_a_damaged_last_checkpoint_is_named(quick, tmp_path):
    quick.save(tmp_path / "recipe.yaml")
    (tmp_path / "last.ckpt").write_bytes(b"cut short")
    with pytest.raises(ValueError, match=r"cannot resume from .*last.ckpt, remove it to start over"):
        train(quick, tmp_path)


def test_a_loss_that_is_not_finite_ends_the_training(quick, tmp_path):
    with pytest.raises(ValueError, match=r"the loss must stay finite, got nan .*lower lr \(1e\+30\)"):
        train(dataclasses.replace(quick, lr=1e30, warmup_epochs=0), tmp_path)


def test_a_gpu_that_is_not_there_is_refused(quick, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(ValueError, match=r"accelerator 'gpu' with devices 1 needs as many CUDA GPUs .*got 0"):
        train(dataclasses.replace(quick, accelerator="gpu"), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def pictures(tmp_path) -> Path:
    for name in ("ant", "bee"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for index in range(10):
            Image.new("RGB", (20, 20)).save(tmp_path / "pictures" / name / f"{index}.png")
    return tmp_path / "pictures"


def test_an_unreadable_image_in_training_is_one_line(quick, tmp_path, pictures):
    for path in (pictures / "ant").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    recipe = dataclasses.replace(
        quick, data=f"imagefolder:{pictures}", image_size=16, bad_images="unchecked", workers=1
    )
    with pytest.raises(ValueError, match=r"^cannot read the image .*ant/\d.png: [^\n]*$"):
        train(recipe, tmp_path / "run")


def test_left_out_images_are_listed(quick, tmp_path, pictures, caplog):
    (pictures / "bee" / "3.png").write_bytes(b"")
    recipe = dataclasses.replace(
        quick, data=f"imagefolder:{pictures}", image_size=16, epochs=1, batch_size=8
    )
    train(recipe, tmp_path / "run")
    assert (tmp_path / "run" / "unreadable.txt").read_text().endswith("bee/3.png: the file is empty\n")
    assert "files that can't be used and are left out: 1; " in caplog.text
