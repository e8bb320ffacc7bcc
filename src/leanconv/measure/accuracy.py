"""The accuracy of a network on labelled images, upright or distorted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from leanconv.measure.observing import require_images, require_tensor
from leanconv.modes import evaluating

Distortion = Callable[[Tensor], Tensor]


def accuracy(model: nn.Module, batches: Iterable[Any], distort: Distortion | None = None) -> float:
    """The share of the images, 0 to 1, whose class has the network's highest score (top-1).

    The model runs in eval mode and stays as it is.

    Args:
        model: gives scores (N, K).
        batches: of images (N, C, H, W) with their labels (N,), whole numbers from 0 to K-1.
        distort: changes each batch of images first.

    Raises:
        ValueError: for no images, labels that aren't classes, or images or scores of another shape.
        TypeError: for batches without labels, or that can be gone through only once; for images that aren't
            floating-point numbers.

    >>> batch = torch.eye(4).view(4, 4, 1, 1), torch.tensor([0, 1, 2, 2])
    >>> accuracy(nn.Flatten(), [batch])
    0.75
    """
    right, count = hits(model, batches, distort)
    return right / count


def hits(
    model: nn.Module, batches: Iterable[Any], distort: Distortion | None, taken: Callable[[], object] | None = None
) -> tuple[int, int]:
    """How many images' classes the network knows, and of how many; see `accuracy`. `taken` is called after a batch."""
    if isinstance(batches, Iterator):
        raise TypeError("batches must be a collection that can be gone through again, a list or a data loader, "
                        f"got {type(batches).__name__}")
    right = count = 0
    with torch.inference_mode(), evaluating(model):
        for batch in batches:
            images, labels = labelled(batch)
            scores = require_tensor("the model", model(images if distort is None else distort(images)))
            require_classes(labels, scores)
            right += int((scores.argmax(1).cpu() == labels.cpu()).sum())
            count += len(labels)
            if taken is not None:
                taken()
    if not count:
        raise ValueError("batches must hold at least one image, got none")
    return right, count


def labelled(batch: Any) -> tuple[Tensor, Tensor]:
    """The images and the labels of a batch.

    Raises:
        TypeError: for something else.
        ValueError: for shapes that don't go together.
    """
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
        raise TypeError(f"batches must be pairs of images and labels, got {type(batch).__name__}")
    images, labels = batch
    require_images(images)
    if labels.is_floating_point() or labels.shape != images.shape[:1]:
        raise ValueError(f"labels must be one whole number for each of {len(images)} images, got {labels.dtype} "
                         f"of shape {tuple(labels.shape)}")
    return images, labels


def require_classes(labels: Tensor, scores: Tensor) -> None:
    """
    Raises:
        ValueError: for scores that aren't (N, K), or labels that aren't from 0 to K-1.
    """
    if scores.dim() != 2 or len(scores) != len(labels):
        raise ValueError(f"the model must give scores (N, K) for {len(labels)} images, got {tuple(scores.shape)}")
    kinds = scores.shape[1]
    wrong = labels[(labels < 0) | (labels >= kinds)].tolist()
    if wrong:
        hint = ": the images have no labels" if wrong[0] == -1 else ""
        raise ValueError(f"labels must be classes from 0 to {kinds - 1}, got {wrong[0]}{hint}")
