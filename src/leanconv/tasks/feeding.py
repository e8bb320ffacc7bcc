"""The batches that lightning hands to each process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningDataModule

from leanconv.tasks.data.loading import Batched, Draws, Loader, loader
from leanconv.tasks.training_recipe import TrainingRecipe


class Feed(LightningDataModule):
    """Batches of a data set as a recipe wants them, each process its share.

    Args:
        train: to train on.
        test: to test on.
        recipe: says batches, workers and seed.
        mix: mixes a batch of training examples, of which each process then has an even number.
        test_batch_size: by default the recipe's.
    """

    def __init__(
        self,
        train: Batched,
        test: Batched,
        recipe: TrainingRecipe,
        *,
        mix: Callable[..., Any] | None = None,
        test_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.train, self.test = train, test
        self.recipe = recipe
        self.mix = mix
        self.test_batch_size = test_batch_size or recipe.batch_size

    @property
    def steps(self) -> int:
        """Training batches in an epoch."""
        return len(self.draws(self.train, self.recipe.batch_size, training=True))

    def draws(self, examples: Batched, batch_size: int, *, training: bool) -> Draws:
        return Draws(
            len(examples),
            batch_size,
            training=training,
            seed=self.recipe.seed,
            rank=self.trainer.global_rank if self.trainer else 0,
            processes=self.recipe.processes,
            divisor=2 if self.mix else 1,
        )

    def train_dataloader(self) -> Loader:
        draws = self.draws(self.train, self.recipe.batch_size, training=True)
        return loader(self.train, draws, workers=self.recipe.workers, mix=self.mix)

    def val_dataloader(self) -> Loader:
        draws = self.draws(self.test, self.test_batch_size, training=False)
        return loader(self.test, draws, workers=self.recipe.workers)
