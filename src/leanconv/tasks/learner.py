"""What every training has in common: the optimiser, its schedule, and the numbers of an epoch."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import nn
from torchmetrics import MeanMetric

from leanconv.tasks.seeding import derived_seed
from leanconv.tasks.training_recipe import TrainingRecipe

SCHEDULES = {"cosine": "cosine", "steps": "multistep", "constant": "constant"}  # to timm's names


class Learner(LightningModule):
    """A network that learns as a recipe says; after each epoch, `train_loss` and `tested` hold its numbers.

    A task adds the steps; the training step updates `losses`, the end of a test sets `tested`.

    Args:
        network: that learns.
        recipe: how.
        steps: batches in an epoch.
    """

    def __init__(self, network: nn.Module, recipe: TrainingRecipe, *, steps: int) -> None:
        super().__init__()
        self.layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.layout)
        self.recipe: Any = recipe
        self.updates = math.ceil(steps / recipe.accumulate)
        self.weights = {name for name, parameter in self.named_parameters() if parameter.ndim > 1}
        self.losses = MeanMetric(nan_strategy="disable")  # a loss that is not a number shall be seen
        self.tested: dict[str, Any] = {}  # None for what can't be told

    def on_train_epoch_start(self) -> None:
        # Dropout and its like depend on the epoch alone, so that a resumed training draws what an unbroken one does.
        torch.manual_seed(derived_seed(self.recipe.seed, self.current_epoch, self.global_rank))
        self.losses.reset()

    @property
    def train_loss(self) -> float:
        """The mean over the images of the epoch."""
        return self.losses.compute().item()

    def configure_optimizers(self) -> Any:
        optimizer = create_optimizer_v2(
            self,
            self.recipe.optimizer,
            lr=self.recipe.lr,
            momentum=self.recipe.momentum,
            weight_decay=self.recipe.weight_decay,
            param_group_fn=self.parameter_groups,
        )
        scheduler, _ = create_scheduler_v2(
            optimizer,
            SCHEDULES[self.recipe.schedule],
            num_epochs=self.recipe.epochs - self.recipe.cooldown_epochs,
            min_lr=self.recipe.min_lr,
            cooldown_epochs=self.recipe.cooldown_epochs,
            decay_milestones=list(self.recipe.decay_epochs),
            decay_rate=self.recipe.decay_rate,
            warmup_epochs=self.recipe.warmup_epochs,
            warmup_lr=self.recipe.lr / 100 if self.recipe.warmup_lr is None else self.recipe.warmup_lr,
            step_on_epochs=False,
            updates_per_epoch=self.updates,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def parameter_groups(self, module: nn.Module) -> list[dict[str, Any]]:
        """Parameters with the same weight decay and the same learning rate.

        By name, not by shape as timm's own filter does it: FSDP flattens what it shards.
        """
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                decays = self.recipe.weight_decay_all or name in self.weights
                is_bias = name.rpartition(".")[2] == "bias"
                key = (self.recipe.weight_decay if decays else 0.0, self.recipe.bias_lr if is_bias else 1.0)
                groups.setdefault(key, []).append(parameter)
        # timm's schedules multiply the learning rate of a group by its lr_scale.
        return [
            {"params": parameters, "weight_decay": decay, "lr_scale": scale}
            for (decay, scale), parameters in groups.items()
        ]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.step_update(self.global_step)
