import dataclasses
import logging
import signal
import warnings

import pytest
import torch
from safetensors.torch import load_file

from leanconv.tasks import train
from leanconv.tasks.classification import Classification
from leanconv.tasks.manners import ctrl_c_raises, quiet


@pytest.mark.parametrize("workers", [0, 1])
def test_ctrl_c_raises_keeps_the_finished_epochs_and_works_again(quick, tmp_path, monkeypatch, workers):
    recipe = dataclasses.replace(quick, workers=workers)
    train(recipe, tmp_path / "whole")
    train_step = Classification.training_step

    def interrupted(module, batch):
        if module.current_epoch == 1:
            signal.raise_signal(signal.SIGINT)
        return train_step(module, batch)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patched:
        patched.setattr(Classification, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "stopped")
    assert signal.getsignal(signal.SIGINT) is handler
    assert {path.name for path in (tmp_path / "stopped").iterdir()} == {
        "recipe.yaml", "metrics.csv", "metrics.json", "last.ckpt"
    }
    assert train(recipe, tmp_path / "stopped").epochs == 3
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_other_exits_go_through():
    with pytest.raises(SystemExit, match="3"), ctrl_c_raises():
        raise SystemExit(3)


def test_only_chatter_is_silenced(caplog):
    caplog.set_level(logging.INFO)
    with quiet():
        logging.getLogger("lightning.pytorch").info("a tip")
        logging.getLogger("lightning.pytorch").warning("a warning")
        warnings.warn("GPU available but not used", UserWarning, stacklevel=1)
        with pytest.warns(UserWarning, match="something else"):
            warnings.warn("something else", UserWarning, stacklevel=1)
    assert caplog.messages == ["a warning"]


def test_a_training_prints_nothing_outside_a_terminal(quick, tmp_path, capfd):
    train(quick, tmp_path)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
