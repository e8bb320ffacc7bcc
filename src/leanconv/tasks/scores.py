"""How well a network classifies, over all batches and all processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

TOP = 5


class CrossEntropy(Metric):
    """The mean cross-entropy per image, update by update with logits [N, K] and labels [N]."""

    full_state_update = False
    total: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        self.total += F.cross_entropy(logits.float(), labels, reduction="sum")
        self.images += len(labels)

    def compute(self) -> Tensor:
        return self.total / self.images


def scores(num_classes: int, *, per_class: bool = False) -> MetricCollection:
    """Loss and accuracy, and top-5 accuracy when there are more than five classes.

    Args:
        num_classes: K, of the logits [N, K].
        per_class: whether to add the accuracy of each class.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "loss": CrossEntropy(),
        "accuracy": MulticlassAccuracy(num_classes, average="micro"),
    }
    if num_classes > TOP:
        metrics["top5"] = MulticlassAccuracy(num_classes, average="micro", top_k=TOP)
    if per_class:
        metrics["per_class"] = MulticlassAccuracy(num_classes, average="none")
    return MetricCollection(metrics)
