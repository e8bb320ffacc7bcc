"""The folder of one training: whose it is, and what it must hold."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from leanconv.files import make_folder, write
from leanconv.tasks.recording import LAST
from leanconv.tasks.result import FILE
from leanconv.tasks.training_recipe import TrainingRecipe

RECIPE = "recipe.yaml"
MODEL = "model.safetensors"

# Where and how fast a training runs may change when it is resumed; what it trains may not.
CIRCUMSTANCES = {"data_root", "workers", "accelerator", "devices", "strategy", "num_nodes"}

log = logging.getLogger(__name__)


def claim(folder: Path, recipe: TrainingRecipe) -> bool:
    """Makes a folder the one of a recipe, and says whether the training in it is finished.

    Until the first epoch is kept or the training is finished, another recipe may take it over.

    Raises:
        ValueError: it holds a training of another recipe; the message names the keys that differ.
        OSError: it can't be made or written.
    """
    make_folder(folder)
    path = folder / RECIPE
    if not path.exists() or not ((folder / LAST).exists() or is_finished(folder)):
        recipe.save(path)
    ours, theirs = recipe.plain(), type(recipe).load(path).plain()
    differing = [key for key in ours if ours[key] != theirs[key] and key not in CIRCUMSTANCES]
    if differing:
        differences = ", ".join(f"{key} ({theirs[key]!r} there, {ours[key]!r} here)" for key in differing)
        raise ValueError(
            f"{folder} must be new or hold a training of the same recipe, got another {differences}: "
            "choose another --out"
        )
    return is_finished(folder)


def is_finished(folder: Path) -> bool:
    """Whether the training of a run folder is finished: its result is written last."""
    return (folder / FILE).exists()


@rank_zero_only
def note_unreadable(folder: Path, unreadable: Sequence[tuple[Path, str]]) -> None:
    """Warns of images that were left out, and lists them in unreadable.txt."""
    if unreadable:
        path = folder / "unreadable.txt"
        write(path, "".join(f"{image}: {reason}\n" for image, reason in unreadable))
        log.warning("files that can't be used and are left out: %d; %s lists them", len(unreadable), path)
