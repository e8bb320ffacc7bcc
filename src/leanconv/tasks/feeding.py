"""The batches that lightning hands to each process."""

from __future__ import annotations

from lightning.pytorch import LightningDataModule
from timm.data import Mixup

from leanconv.tasks.data import ImageData, ImageSet, loader
from leanconv.tasks.data.loading import Draws, Loader
from leanconv.tasks.recipe import Recipe


class Feed(LightningDataModule):
    """Batches of a data set as a recipe wants them, each process its share.

    Args:
        data: the images.
        recipe: says batches, workers, mixup and seed.
    """

    def __init__(self, data: ImageData, recipe: Recipe) -> None:
        super().__init__()
        self.data = data
        self.recipe = recipe
        self.mixup = None
        if recipe.mixup or recipe.cutmix:
            # Without smoothing, which is the loss's: smoothing the labels before or after mixing them is the same.
            self.mixup = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=0.0, num_classes=data.num_classes)

    @property
    def steps(self) -> int:
        """Training batches in an epoch."""
        return len(self.draws(self.data.train, training=True))

    def draws(self, images: ImageSet, *, training: bool) -> Draws:
        return Draws(
            len(images),
            self.recipe.batch_size,
            training=training,
            seed=self.recipe.seed,
            rank=self.trainer.global_rank if self.trainer else 0,
            processes=self.recipe.processes,
            divisor=2 if self.mixup else 1,
        )

    def train_dataloader(self) -> Loader:
        draws = self.draws(self.data.train, training=True)
        return loader(self.data.train, draws, workers=self.recipe.workers, mix=self.mixup)

    def val_dataloader(self) -> Loader:
        draws = self.draws(self.data.test, training=False)
        return loader(self.data.test, draws, workers=self.recipe.workers)
