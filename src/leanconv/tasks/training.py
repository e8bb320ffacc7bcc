"""Training one network as a recipe says, into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn

from leanconv.measure import device_name
from leanconv.tasks.checkpoint import configuration, save_tensors
from leanconv.tasks.circumstances import versions
from leanconv.tasks.devices import chosen_accelerator
from leanconv.tasks.manners import ctrl_c_raises, quiet
from leanconv.tasks.progress import ProgressLine
from leanconv.tasks.recording import LAST, Recorder, WholeFiles, last_state, write_rows
from leanconv.tasks.result import Result
from leanconv.tasks.run_folder import MODEL, claim, note_unreadable
from leanconv.tasks.seeding import seeded
from leanconv.tasks.task import SCORES, task_named
from leanconv.tasks.training_recipe import TrainingRecipe

PRECISIONS: dict[str, Literal["32-true", "bf16-mixed"]] = {"fp32": "32-true", "bf16": "bf16-mixed"}


def train(recipe: TrainingRecipe, folder: str | Path, *, progress: bool = True) -> Result:
    """Trains a network and leaves everything about it in a folder; the same call again picks up where it stopped.

    A finished training is not repeated: its result is read. An interrupted one goes on after its last whole epoch and,
    on the CPU, ends with the very weights of one that was not interrupted.

    Args:
        recipe: what to train on what, and how.
        folder: made if need be. It will hold recipe.yaml, metrics.csv, metrics.json, last.ckpt, model.safetensors and
            result.json, and unreadable.txt if images had to be left out.
        progress: whether to show a progress bar, in a terminal.

    Returns:
        What the training gave.

    Raises:
        ValueError: the recipe can't be followed, or the folder holds the training of another recipe.
        OSError: the folder can't be written or the disk is full; what was written before is whole.
        KeyboardInterrupt: after Ctrl-C; the epochs that were finished are safe.

    >>> train(Recipe(epochs=5), "runs/digits")  # doctest: +SKIP
    Result(scores={'loss': 0.1, 'accuracy': 0.97, ...)
    """
    folder = Path(folder)
    accelerator = chosen_accelerator(recipe)
    if claim(folder, recipe):
        return Result.load(folder)
    task = task_named(recipe.task)
    with seeded(recipe.seed):
        data = task.open_data(recipe, progress=progress)
        note_unreadable(folder, data.unreadable)
        network = task.build_network(recipe, data.info)
        task.check_runs(network, recipe, data.info)
        params = sum(parameter.numel() for parameter in network.parameters())
        rows, _ = last_state(folder)
        if len(rows) == recipe.epochs:  # stopped between the last epoch and the result
            return finish(recipe, data, params, folder, accelerator)
        trainer = fit(recipe, data, network, folder, accelerator, progress)
        if trainer.is_global_zero:
            finish(recipe, data, params, folder, accelerator)
        trainer.strategy.barrier()
    return Result.load(folder)


def fit(
    recipe: TrainingRecipe, data: Any, network: nn.Module, folder: Path, accelerator: str, progress: bool
) -> Trainer:
    """Trains, from the last checkpoint in the folder if there is one, up to the recipe's last epoch."""
    task = task_named(recipe.task)
    feed = task.feed(data, recipe)
    module = task.learner(network, recipe, data, feed.steps)
    callbacks: list[Callback] = [Recorder(folder)]
    if recipe.ema:
        callbacks.append(EMAWeightAveraging(decay=recipe.ema))
    if progress:
        callbacks.append(ProgressLine(f"{getattr(recipe, recipe.compared)}, seed {recipe.seed}", SCORES[recipe.task]))
    with quiet():
        trainer = Trainer(
            accelerator=accelerator,
            devices=recipe.devices,
            num_nodes=recipe.num_nodes,
            strategy="ddp" if recipe.strategy == "auto" and recipe.processes > 1 else recipe.strategy,
            precision=PRECISIONS[recipe.precision],
            max_epochs=recipe.epochs,
            accumulate_grad_batches=recipe.accumulate,
            gradient_clip_val=recipe.clip_norm or None,
            callbacks=callbacks,
            plugins=[WholeFiles()],
            default_root_dir=folder,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        checkpoint = folder / LAST
        with ctrl_c_raises():
            trainer.fit(
                module, datamodule=feed, ckpt_path=checkpoint if checkpoint.exists() else None, weights_only=True
            )
    return trainer


def finish(recipe: TrainingRecipe, data: Any, params: int, folder: Path, accelerator: str) -> Result:
    """Makes the last checkpoint the model of the run folder, and writes down what came out.

    The checkpoint is the one place that has the weights whole, however many processes they were spread over, and
    averaged if an average is kept.
    """
    rows, weights = last_state(folder)
    write_rows(folder, rows)  # a kill may have come between the last checkpoint and its row
    save_tensors(folder / MODEL, weights, configuration(recipe, data.info))
    last = rows[-1]
    result = Result(
        scores={name.removeprefix("test_"): value for name, value in last.items() if name.startswith("test_")},
        seconds=sum(row["seconds"] for row in rows),
        epochs=len(rows),
        params=params,
        seed=recipe.seed,
        device=device_name(accelerator),
        threads=torch.get_num_threads(),
        versions=versions(),
    )
    result.save(folder)
    return result
