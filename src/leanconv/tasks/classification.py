"""What a training step and a test step are, for images with one label each."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from leanconv.tasks.learner import Learner
from leanconv.tasks.recipe import Recipe
from leanconv.tasks.scores import scores


class Classification(Learner):
    """Trains a network to classify as a recipe says.

    Args:
        network: gives logits [N, num_classes] for images [N, C, H, W].
        recipe: how to train it.
        num_classes: how many classes there are.
        steps: batches in an epoch.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, *, num_classes: int, steps: int) -> None:
        super().__init__(network, recipe, steps=steps)
        self.scores = scores(num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.contiguous(memory_format=self.layout))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, targets = batch  # after mixup, targets are the share of each class
        loss = F.cross_entropy(self(images), targets, label_smoothing=self.recipe.label_smoothing)
        self.losses.update(loss.detach(), len(images))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        self.scores.update(self(images), labels)

    def on_validation_epoch_end(self) -> None:
        self.tested = {name: value.item() for name, value in self.scores.compute().items()}
        self.scores.reset()
