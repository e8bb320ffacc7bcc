"""Keeping what each epoch gave: the checkpoint to resume from, and the numbers for people and programs."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint

from leanconv.files import write

LAST = "last.ckpt"

Row = dict[str, Any]


class Recorder(Checkpoint):
    """After each epoch of a `Learner`, writes last.ckpt, then metrics.csv and metrics.json with all rows so far.

    The rows are part of the checkpoint: whatever moment a training is killed at, a resumed one has them all.

    Args:
        folder: to write into.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[Row] = []
        self.begin = 0.0
        self.learning_rate = 0.0

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        if trainer.is_global_zero and self.rows:
            write_rows(self.folder, self.rows)

    def on_train_epoch_start(self, trainer: Trainer, module: Any) -> None:
        self.begin = time.perf_counter()
        self.learning_rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer: Trainer, module: Any) -> None:
        losses = {"training": module.train_loss}
        if "loss" in module.tested:
            losses["testing"] = module.tested["loss"]
        if not all(map(math.isfinite, losses.values())):
            came = " and ".join(f"{loss} in {where}" for where, loss in losses.items())
            raise ValueError(
                f"the loss must stay finite, got {came} in epoch {trainer.current_epoch + 1}: "
                f"lower lr ({module.recipe.lr}) or raise warmup_epochs"
            )
        self.rows.append({
            "epoch": trainer.current_epoch + 1,
            "train_loss": losses["training"],
            **{f"test_{name}": value for name, value in module.tested.items()},
            "learning_rate": self.learning_rate,
            "seconds": time.perf_counter() - self.begin,
        })
        trainer.save_checkpoint(self.folder / LAST)
        if trainer.is_global_zero:
            write_rows(self.folder, self.rows)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]


class WholeFiles(TorchCheckpointIO):
    """Lets lightning write checkpoints whole or not at all, with one clear error when it can't."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write(Path(path), buffer.getvalue())


def write_rows(folder: Path, rows: list[Row]) -> None:
    """Writes the epochs' numbers as metrics.csv and metrics.json."""
    table = io.StringIO()
    writer = csv.DictWriter(table, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write(folder / "metrics.csv", table.getvalue())
    write(folder / "metrics.json", json.dumps(rows, indent=1))


def last_state(folder: Path) -> tuple[list[Row], dict[str, torch.Tensor]]:
    """The rows so far and the network's weights (their average, if one is kept) in a folder's last checkpoint.

    Raises:
        ValueError: the checkpoint is damaged or of another program.
    """
    path = folder / LAST
    if not path.exists():
        return [], {}
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        rows = checkpoint["callbacks"][Recorder.__name__]["rows"]
        weights = {
            name.removeprefix("network."): tensor
            for name, tensor in checkpoint["state_dict"].items()
            if name.startswith("network.")
        }
    except Exception as error:  # torch.load raises anything on a file that it did not write
        raise ValueError(f"cannot resume from {path}, remove it to start over: {error!s:.200}") from error
    return rows, weights
