"""How well depth maps are upsampled, over all batches and all processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from leanconv.tasks.depth.protocol import BORDER, counted, rmse


class DepthRMSE(Metric):
    """The mean over the images of `rmse`, update by update; images without a depth don't count, NaN without any.

    Args:
        border: pixels at each side that don't count.
    """

    full_state_update = False
    total: Tensor
    images: Tensor

    def __init__(self, *, border: int = BORDER) -> None:
        super().__init__()
        self.border = border
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, depth: Tensor) -> None:
        errors = rmse(prediction, depth, border=self.border)[counted(depth, self.border).flatten(1).any(1)]
        self.total += errors.sum()
        self.images += len(errors)

    def compute(self) -> Tensor:
        return self.total / self.images
