"""Classification, as the parts that a training is put together from."""

from __future__ import annotations

from timm.data import Mixup

from leanconv.surgery import fuse
from leanconv.tasks.classification import Classification
from leanconv.tasks.data import ImageInfo, open_data
from leanconv.tasks.evaluation import evaluate_checkpoint
from leanconv.tasks.feeding import Feed
from leanconv.tasks.networks import build_network
from leanconv.tasks.recipe import Recipe
from leanconv.tasks.task import Task
from leanconv.tasks.trial import check_runs


def mixing(recipe: Recipe, num_classes: int) -> Mixup | None:
    """What mixes the images and labels of a batch, where a recipe wants it."""
    if not (recipe.mixup or recipe.cutmix):
        return None
    # Without smoothing, which is the loss's: smoothing the labels before or after mixing them is the same.
    return Mixup(recipe.mixup, recipe.cutmix, label_smoothing=0.0, num_classes=num_classes)


TASK = Task(
    info=ImageInfo,
    open_data=open_data,
    build_network=build_network,
    check_runs=lambda network, recipe, info: check_runs(network, recipe.model, info),
    feed=lambda data, recipe: Feed(data.train, data.test, recipe, mix=mixing(recipe, data.num_classes)),
    learner=lambda network, recipe, data, steps: Classification(
        network, recipe, num_classes=data.num_classes, steps=steps
    ),
    shape=lambda recipe, info: (1, info.in_chans, info.image_size, info.image_size),
    fuse=fuse,
    evaluate=evaluate_checkpoint,
)
