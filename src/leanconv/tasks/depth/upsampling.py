"""Joint depth upsampling, as the parts that a training is put together from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from leanconv.models.ddf_up_net import DDFUpNet
from leanconv.models.pac_net import PACNet
from leanconv.modes import evaluating
from leanconv.tasks.depth.evaluation import evaluate
from leanconv.tasks.depth.examples import Batch, Crops, WholeImages
from leanconv.tasks.depth.images import DepthInfo, require_unit
from leanconv.tasks.depth.methods import Upsampler
from leanconv.tasks.depth.protocol import mean_square
from leanconv.tasks.depth.scores import DepthRMSE
from leanconv.tasks.depth.sources import of_recipe
from leanconv.tasks.depth_recipe import DepthRecipe
from leanconv.tasks.feeding import Feed
from leanconv.tasks.learner import Learner
from leanconv.tasks.seeding import seeded
from leanconv.tasks.task import Task

NETWORKS = {"ddf_up_net": DDFUpNet, "pac_net": PACNet}


class DepthUpsampling(Learner):
    """Trains a network to enlarge depth maps: by the squared difference, in units of the data's deviation.

    Args:
        network: an `Upsampler`.
        recipe: how to train it.
        steps: batches in an epoch.
    """

    network: Upsampler

    def __init__(self, network: nn.Module, recipe: DepthRecipe, *, steps: int) -> None:
        super().__init__(network, recipe, steps=steps)
        self.score = DepthRMSE()

    def training_step(self, batch: Batch) -> Tensor:
        low, image, depth = batch
        loss = mean_square(self.network(low, image), depth) / self.network.depth_std.square().sum()
        self.losses.update(loss.detach(), len(depth))
        return loss

    def validation_step(self, batch: Batch) -> None:
        low, image, depth = batch
        self.score.update(self.network(low, image), depth)

    def on_validation_epoch_end(self) -> None:
        self.tested = {"rmse": self.score.compute().item()}
        self.score.reset()


def build_network(recipe: DepthRecipe, info: DepthInfo) -> nn.Module:
    """Builds a recipe's network, with the weights that it starts from, and with their mean and deviation of the depth.

    Raises:
        ValueError: the weights don't fit, or have learned depth in another unit.
    """
    from leanconv.tasks.checkpoint import info_of, load_weights, read_config

    network = Upsampler(NETWORKS[recipe.model](recipe.factor), info.depth_mean, info.depth_std)
    if recipe.weights is not None:
        load_weights(recipe.weights, network)
        require_unit(info_of(read_config(recipe.weights)).unit, info.unit, recipe.data)
    return network.train()


def check_runs(network: nn.Module, recipe: DepthRecipe, info: DepthInfo) -> None:
    """Runs a network on one blank scene."""
    side, low = recipe.crop, recipe.crop // recipe.factor
    with seeded(0), torch.no_grad(), evaluating(network):
        network(torch.zeros(1, 1, low, low), torch.zeros(1, 3, side, side))


TASK = Task(
    info=DepthInfo,
    open_data=of_recipe,
    build_network=build_network,
    check_runs=check_runs,
    feed=lambda data, recipe: Feed(
        Crops(data.train, recipe.factor, sampling=recipe.sampling, size=recipe.crop, flip=recipe.augment,
              per_scene=recipe.crops),
        WholeImages(data.test, recipe.factor, sampling=recipe.sampling),
        recipe,
        test_batch_size=recipe.processes,
    ),
    learner=lambda network, recipe, data, steps: DepthUpsampling(network, recipe, steps=steps),
    evaluate=evaluate,
)
