"""Guided backpropagation: what in an image speaks for an output, seen through positive gradients alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from leanconv.measure.observing import gradients, observe, recording, require_images, require_layer, score

ACTIVATIONS = {
    "celu", "elu", "gelu", "hardswish", "hardtanh", "leaky_relu", "mish", "prelu", "relu", "relu6", "rrelu", "selu",
    "silu", "softplus", "threshold",
}
CLAMPS = {"clamp", "clamp_min", "clip"}


class GuidedGradients(TorchFunctionMode):
    """While it is active, each activation of the ReLU family lets only positive gradients back in.

    The function is intercepted, wherever it is called from, so that no module needs to be touched. The hook is on the
    activation's result and goes with the graph.

    Attributes:
        activations: how many have been seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.activations = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if is_activation(func, args, kwargs or {}):
            self.activations += 1
            if result.requires_grad:
                result.register_hook(lambda gradient: gradient.clamp_min(0))
        return result


def is_activation(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call is an activation of the ReLU family; a clamp is one when it cuts at 0 from below.

    >>> is_activation(torch.relu_, (), {}), is_activation(torch.sigmoid, (), {})
    (True, False)
    >>> is_activation(torch.clamp, (torch.ones(1), 0, 6), {}), is_activation(torch.clamp, (torch.ones(1), 1e-6), {})
    (True, False)
    """
    name = getattr(func, "__name__", "").strip("_")
    if name in CLAMPS:
        low = kwargs.get("min", args[1] if len(args) > 1 else None)
        return isinstance(low, int | float) and low == 0
    return name in ACTIVATIONS


def guided_backprop(
    model: nn.Module,
    images: Tensor,
    target: int | Sequence[int] | Tensor | None = None,
    *,
    layer: str | None = None,
) -> Tensor:
    """The gradient of an output with respect to the images in which ReLUs pass only positive gradients.

    J. T. Springenberg et al., *Striving for Simplicity: The All Convolutional Net*, 2014. Where y = f(x) is a ReLU,

        ∂/∂x = f'(x) · max(∂/∂y, 0) = [x > 0] · [∂/∂y > 0] · ∂/∂y.

    The same holds for every activation of its family, with its own f': ReLU6, Hardtanh, Threshold, LeakyReLU, PReLU,
    RReLU, ELU, CELU, SELU, GELU, SiLU, Hardswish, Mish and Softplus, as modules or functions, in place or not, and for
    a clamp from 0. The f' of GELU, SiLU, Hardswish and Mish is negative for some x, and so is what they pass there.
    The model runs in eval mode and stays as it is.

    Args:
        model: any module that takes images and gives a tensor (N, K, ...).
        images: (N, C, H, W).
        target: the class whose output is taken, for all images or one an image; by default each image's highest. An
            output with a map is summed over it.
        layer: the path of a layer whose channel is taken instead: `target` is then the channel.

    Returns:
        A tensor of the images' shape.

    Raises:
        ValueError: for a model that runs without any such activation; for images that aren't (N, C, H, W) or that the
            model can't run on; for a layer that doesn't exist, doesn't run or doesn't depend on the images; for a
            class or channel out of range.
        TypeError: for images that aren't floating-point numbers.

    >>> model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(2, 1, bias=False))
    >>> _ = model[0].weight.data.fill_(1), model[3].weight.data.copy_(torch.tensor([[2.0, -3.0]]))
    >>> guided_backprop(model, torch.tensor([[[[1.0, 1.0]]]]))
    tensor([[[[2., 0.]]]])
    """
    require_images(images)
    layers = [] if layer is None else [require_layer(model, layer)]
    with recording(images) as leaf:
        with GuidedGradients() as guided:
            output, kept = observe(model, leaf, layers)
        require_activations(model, guided)
        calls = [output] if layer is None else kept[layer]
        total = torch.stack([score(call, target, "class" if layer is None else "channel") for call in calls]).sum()
        pattern = gradients(total, leaf)
    if pattern is None:
        raise ValueError("the output must depend on the images through functions with gradients, but it doesn't")
    return pattern


def require_activations(model: nn.Module, guided: GuidedGradients) -> None:
    """
    Raises:
        ValueError: when none has been seen.
    """
    if not guided.activations:
        raise ValueError(f"model must have a ReLU or another activation of its family, "
                         f"{type(model).__name__} runs none: guided backpropagation would be the plain gradient")
