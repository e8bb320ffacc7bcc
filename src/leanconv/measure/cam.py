"""Grad-CAM: where in a layer's maps the evidence for a class lies."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from leanconv.measure.observing import gradients, observe, recording, require_images, require_layer, score


def grad_cam(
    model: nn.Module, images: Tensor, layer: str, target: int | Sequence[int] | Tensor | None = None
) -> Tensor:
    """The class activation maps of a layer, its channels weighted by the gradients of the class.

    R. R. Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization*, ICCV
    2017. With the maps A_k of the layer and the output y of the class,

        L = max(Σ_k α_k A_k, 0),  α_k = mean over the map of ∂y/∂A_k.

    The model runs in eval mode and stays as it is.

    Args:
        model: any module that takes images and gives a tensor (N, K, ...); an output with a map is summed over it.
        images: (N, C, H, W).
        layer: the path of a layer that runs once and gives maps (N, channels, h, w).
        target: the class, for all images or one an image; by default each image's highest.

    Returns:
        (N, h, w), of the layer's height and width. `torch.nn.functional.interpolate` gives it the images' size.

    Raises:
        ValueError: for a layer that doesn't exist, runs more or less than once, gives no maps, or that the class
            doesn't depend on; for images that aren't (N, C, H, W) or that the model can't run on; for a class out of
            range.
        TypeError: for images that aren't floating-point numbers.

    >>> import torch
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    >>> grad_cam(model, torch.randn(2, 3, 8, 8), "1", target=7).shape
    torch.Size([2, 6, 6])
    """
    require_images(images)
    path = require_layer(model, layer)
    with recording(images) as leaf:
        output, kept = observe(model, leaf, [path])
        if len(kept[path]) > 1:
            raise ValueError(f"layer must run once, {path!r} runs {len(kept[path])} times")
        (maps,) = kept[path]
        if maps.dim() != 4:
            raise ValueError(f"layer must give maps (N, channels, h, w), {path!r} gives {tuple(maps.shape)}")
        slopes = gradients(score(output, target), maps)
    if slopes is None:
        raise ValueError(f"layer must bear on the output, {path!r} doesn't")
    weights = slopes.mean((2, 3), keepdim=True)
    return (weights * maps.detach()).sum(1).relu()
