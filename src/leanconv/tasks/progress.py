"""One calm line in the terminal for a training."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from leanconv.tasks.task import Score


class ProgressLine(Callback):
    """Shows the epoch, loss and score after the one before, and the time left; nothing unless in a terminal.

    Args:
        title: what is trained.
        score: of the tests that is shown.
    """

    def __init__(self, title: str, score: Score) -> None:
        console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}", table_column=Column(min_width=24)),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=4,
        )
        self.task = self.bar.add_task(title, numbers="")
        self.score = score
        self.scores = ""

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        steps = int(trainer.num_training_batches)
        self.bar.update(self.task, total=steps * (trainer.max_epochs or 0), completed=steps * trainer.current_epoch)
        if trainer.is_global_zero:
            self.bar.start()

    def on_train_epoch_start(self, trainer: Trainer, module: Any) -> None:
        self.show(trainer)

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.bar.advance(self.task)

    def on_train_epoch_end(self, trainer: Trainer, module: Any) -> None:
        self.scores = f"  loss {module.train_loss:.3f}  {self.score.text(module.tested[self.score.key])}"
        self.show(trainer)

    def show(self, trainer: Trainer) -> None:
        self.bar.update(self.task, numbers=f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}{self.scores}")

    def teardown(self, trainer: Trainer, module: Any, stage: str) -> None:
        self.bar.stop()

    def on_exception(self, trainer: Trainer, module: Any, exception: BaseException) -> None:
        self.bar.stop()
