"""A disk that fills and folders that can't be written: one clear error, and what was written stays whole."""

import dataclasses
import json
import re
import sys

import pytest
import torch

from leanconv.tasks import train
from leanconv.tasks.classification import Classification

TRAIN_WITH_LITTLE_DISK = """
import resource, signal, sys
from leanconv.tasks import Recipe, train

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    train(Recipe.load(sys.argv[1]), sys.argv[2])
except OSError as error:
    print(error)
    sys.exit(9)
"""


class Stop(Exception):
    pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit for the size of files")
def test_a_disk_that_fills_leaves_what_was_written(quick, tmp_path, monkeypatch, script):
    train_step = Classification.training_step

    def failing(module, batch):
        if module.current_epoch == 2:
            raise Stop
        return train_step(module, batch)

    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(Classification, "training_step", failing)
        with pytest.raises(Stop):
            train(quick, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    ran = script(TRAIN_WITH_LITTLE_DISK, folder / "recipe.yaml", folder, "4000")
    assert ran.returncode == 9, ran.stderr
    assert re.search(r"^\[Errno \d+\] cannot write .*last.ckpt \(\d+ bytes\): File too large\n$", ran.stdout)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    torch.load(folder / "last.ckpt", weights_only=True)
    assert train(quick, folder).epochs == 3
    assert len(json.loads((folder / "metrics.json").read_text())) == 3


def test_a_folder_that_is_a_file(quick, tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(OSError, match="cannot make the folder"):
        train(dataclasses.replace(quick, epochs=1), tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"
