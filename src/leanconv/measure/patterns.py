"""Guided backpropagation of many filters from one forward pass, in a fraction of the time of as many of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.measure.guided import GuidedGradients, require_activations
from leanconv.measure.observing import observe, recording

Call = tuple[Tensor, Sequence[Any], Mapping[str, Any]]  # what a function gave, and what it was given

CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
NORM = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
CLONES = (torch.clone, Tensor.clone)
RELUS = (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)


def add_patterns(
    model: nn.Module,
    images: Tensor,
    chosen: Mapping[str, Sequence[int]],
    sums: Mapping[str, Tensor],
    step: Callable[[], None],
) -> None:
    """Adds the guided backpropagation of a batch to the sums, (F, C, H, W) a layer, of the F filters chosen."""
    # In channels_last, whatever the weights are in, the backward passes on a CPU take a fraction of the time.
    images = images.to(memory_format=torch.channels_last)
    with recording(images[:1]) as first, QuickGuidance(first, whole=True) as stem:
        observe(model, first, chosen)
    with recording(images) as leaf:
        with QuickGuidance(leaf) as guided:
            _, kept = observe(model, leaf, chosen)
        require_activations(model, guided)
        for name, channels in chosen.items():
            for channel, total in zip(channels, sums[name], strict=True):
                score = torch.stack([call[:, channel].sum() for call in kept[name]]).sum()
                pattern = stem.through(guided.behind(score)) if score.requires_grad else None
                if pattern is None:
                    raise ValueError(f"layer {name!r} must depend on the images, but it doesn't")
                total += pattern
                step()


class QuickGuidance(GuidedGradients):
    """Guided gradients, with three shortcuts that change nothing but the rounding.

    * A norm with fixed statistics becomes part of the convolution before it, w ↦ s·w, or else s·x + t.
    * A ReLU takes one pass over its gradient and saves a mask, where PyTorch's own and the guidance take two.
    * The stem, the convolutions and norms before the first activation, is linear and the same for all images: a
      batch's gradients are summed behind it, and go back through it as one image's.

    Args:
        images: that the model runs on.
        whole: whether gradients go through the stem, to `images`; else they end behind it.
    """

    def __init__(self, images: Tensor, *, whole: bool = False) -> None:
        super().__init__()
        self.whole = whole
        self.stem = [images]
        self.end = images
        self.conv: Call | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        source = args[0] if args else None
        normed = self.normed(*args, **kwargs) if func is F.batch_norm else None
        if normed is not None:
            result = normed
        elif func in RELUS and isinstance(source, Tensor):
            self.activations += 1
            result = GuidedReLU.apply(source, kwargs.get("inplace", args[1:] == (True,) or func.__name__[-1] == "_"))
        else:
            result = super().__torch_function__(func, types, args, kwargs)
        conv = self.conv if self.conv and func in CLONES and source is self.conv[0] else None
        linear = func is F.conv2d or func in CLONES or normed is not None
        if linear and source is self.end and all(map(is_constant, [*args[1:], *kwargs.values()])):
            self.stem.append(result if self.whole else result.detach().requires_grad_())
            result = self.end = self.stem[-1].clone()  # it may be changed in place
        if func is F.conv2d:
            self.conv = (result, args, kwargs)
        elif conv:
            self.conv = (result, *conv[1:])
        return result

    def normed(self, *args: Any, **kwargs: Any) -> Tensor | None:
        """What a norm gives; None where its statistics are the images'."""
        given = dict(zip(NORM, args, strict=False)) | kwargs
        input, variance = given["input"], given["running_var"]
        if given.get("training") or variance is None:
            return None
        exact = torch.promote_types(variance.dtype, torch.float32)
        scale = (variance.to(exact) + given.get("eps", 1e-5)).rsqrt()
        scale = scale if given.get("weight") is None else scale * given["weight"]
        shift = -scale * given["running_mean"]
        shift = shift if given.get("bias") is None else shift + given["bias"]
        if self.conv is None or self.conv[0] is not input or input._version:
            view = (-1, *[1] * (input.dim() - 2))
            return torch.addcmul(shift.to(input.dtype).view(view), input, scale.to(input.dtype).view(view))
        conv = {**dict(zip(CONV, self.conv[1], strict=False)), **self.conv[2]}
        if conv.get("bias") is not None:
            shift = shift + scale * conv["bias"]
        weight = conv["weight"] * scale[:, None, None, None]
        return F.conv2d(**{**conv, "weight": weight.to(conv["weight"].dtype), "bias": shift.to(conv["weight"].dtype)})

    def behind(self, score: Tensor) -> list[Tensor | None]:
        """The gradients of a score behind the stem, and at the images for what goes around it."""
        return list(torch.autograd.grad(score, self.stem, retain_graph=True, allow_unused=True))

    def through(self, gradients: Sequence[Tensor | None]) -> Tensor | None:
        """Brings a batch's gradients, as `behind` gives them, back to the images, summed; None where there are none."""
        # Added up one by one: on a CPU, Tensor.sum over the batch of a channels_last tensor takes eight times as long.
        ends = [(end, sum(gradient.split(1))) for end, gradient in zip(self.stem, gradients, strict=True)
                if gradient is not None]
        if not ends:
            return None
        outputs, totals = zip(*ends, strict=True)
        return torch.autograd.grad(outputs, self.stem[0], totals, retain_graph=True)[0][0]


class GuidedReLU(torch.autograd.Function):
    """A ReLU whose gradient is that of guided backpropagation: [x > 0] · max(∂/∂y, 0)."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, inplace: bool) -> Tensor:
        result = input.relu_() if inplace else input.relu()
        if inplace:
            ctx.mark_dirty(input)
        ctx.save_for_backward((result > 0).to(result.dtype))
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (open,) = ctx.saved_tensors
        return (gradient * open).relu_(), None


def is_constant(argument: object) -> bool:
    """Whether a function's argument can't depend on the images."""
    return not isinstance(argument, Tensor) or argument.grad_fn is None
