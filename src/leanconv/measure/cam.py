"""Grad-CAM: where in a layer's maps the evidence for a class lies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeGuard

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
    return activation_maps(model, images, layer, target)[0]


def activation_maps(
    model: nn.Module, images: Tensor, layer: str, target: int | Sequence[int] | Tensor | None
) -> tuple[Tensor, Tensor]:
    """What `grad_cam` gives, and the model's output."""
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
    return (weights * maps.detach()).sum(1).relu(), output.detach()


def last_maps(model: nn.Module, images: Tensor) -> str:
    """The path of the last layer that gives maps of more than a pixel, which is the usual choice for `grad_cam`.

    Of layers within one another that end with the same maps, it is the outermost: a stage, not its last activation.
    Layers that run more than once are left out, and those that the output doesn't depend on. Maps have the images'
    proportions, by which they are told from what transformers call heads, tokens and features.

    Args:
        model: any module that takes images; it runs in eval mode and stays as it is.
        images: (N, C, H, W).

    Raises:
        ValueError: for a model without such a layer; for images that aren't (N, C, H, W) or that it can't run on.
        TypeError: for images that aren't floating-point numbers.

    >>> import torch
    >>> body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    >>> last_maps(nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)), torch.randn(1, 3, 8, 8))
    '0'
    """
    require_images(images)
    calls: list[tuple[str, object]] = []
    handles = [module.register_forward_hook(lambda module, inputs, output, path=path: calls.append((path, output)))
               for path, module in model.named_modules() if path]
    try:
        with recording(images) as leaf:
            output, _ = observe(model, leaf)
            runs = Counter(path for path, _ in calls)
            for path, maps in reversed(calls):
                if runs[path] > 1 or not is_maps(maps, images):
                    continue
                if gradients(output.sum(), maps, retain_graph=True) is not None:
                    return path
    finally:
        for handle in handles:
            handle.remove()
    raise ValueError(f"layer must be given: {type(model).__name__} has none that gives maps of more than a pixel")


def is_maps(output: object, images: Tensor) -> TypeGuard[Tensor]:
    """Whether what a layer gave is maps (N, channels, h, w) of more than a pixel, about as wide for their height as the
    images.
    """
    if not isinstance(output, Tensor) or output.dim() != 4 or output.shape[2] * output.shape[3] <= 1:
        return False
    (height, width), (rows, columns) = images.shape[2:], output.shape[2:]
    return max(rows * width, columns * height) < 2 * min(rows * width, columns * height)
