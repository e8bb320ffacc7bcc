"""Where in images a network finds the evidence for a class, and how sure of the class it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leanconv.measure.batches import Batches, Images
from leanconv.measure.cam import activation_maps, last_maps
from leanconv.measure.guided import guided_backprop
from leanconv.measure.observing import totalled
from leanconv.steps import Step


@dataclass(frozen=True)
class Evidence:
    """Where in N images a network finds the evidence for a class each.

    Args:
        layer: the path of the layer whose maps were taken.
        classes: int64 [N], the class that was looked at in each image.
        probabilities: [N], what the softmax of the output gives it.
        maps: [N, h, w], the class activation maps, of the layer's height and width.
        patterns: [N, C, H, W], the guided backpropagation of the same output; None where it wasn't wanted.
    """

    layer: str
    classes: Tensor
    probabilities: Tensor
    maps: Tensor
    patterns: Tensor | None = None


def evidence(
    model: nn.Module,
    images: Images,
    layer: str | None = None,
    target: int | None = None,
    *,
    guided: bool = False,
    batch_size: int = 8,
    progress: Step | None = None,
) -> Evidence:
    """Looks at images with Grad-CAM, and with guided backpropagation if wanted.

    Args:
        model: any module that takes images and gives a tensor (N, K, ...); an output with a map is summed over it. It
            runs in eval mode and stays as it is.
        images: (N, C, H, W); or such batches in a collection that can be gone through again, a list or a data loader,
            of tensors or of tuples that begin with one.
        layer: the path of a layer that gives maps; by default the one that `last_maps` finds.
        target: the class to look at; by default each image's highest.
        guided: whether to take the guided backpropagation too.
        batch_size: images at once, where they are one tensor.
        progress: called after each batch with how many are done and how many there are.

    Raises:
        ValueError: for no images, and as `grad_cam` and `guided_backprop` do.
        TypeError: for images that aren't floating-point numbers, or can be gone through only once.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    >>> found = evidence(model, torch.randn(2, 3, 8, 8), target=7)
    >>> found.layer, found.classes.tolist(), found.maps.shape
    ('1', [7, 7], torch.Size([2, 6, 6]))
    """
    batches = Batches(images, batch_size)
    layer = last_maps(model, batches.example()) if layer is None else layer
    parts = []
    for done, batch in enumerate(batches, start=1):
        parts.append(evidence_in(model, batch, layer, target, guided))
        if progress is not None:
            progress(done, len(batches))
    return Evidence(
        layer,
        torch.cat([part.classes for part in parts]),
        torch.cat([part.probabilities for part in parts]),
        torch.cat([part.maps for part in parts]),
        torch.cat([part.patterns for part in parts if part.patterns is not None]) if guided else None,
    )


def evidence_in(model: nn.Module, images: Tensor, layer: str, target: int | None, guided: bool) -> Evidence:
    """The evidence in one batch."""
    maps, output = activation_maps(model, images, layer, target)  # refuses a class that doesn't exist
    totals = totalled(output)
    classes = totals.argmax(1) if target is None else torch.full_like(totals[:, 0], target, dtype=torch.long)
    patterns = guided_backprop(model, images, classes) if guided else None
    probabilities = totals.softmax(1).gather(1, classes[:, None])[:, 0]
    return Evidence(layer, classes, probabilities, maps, patterns)
