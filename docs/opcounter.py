"""Operations as pytorch-OpCounter counted them in 2019 and 2020, which the tables of the SPConv paper are in.

It counts a multiply-accumulate as one and adds what is cheap: norms, ReLUs and pooling, of modules alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.layers import SelectAdaptivePool2d
from torch import Tensor, nn

from leanconv.measure.setting import Setting
from leanconv.nn import SplitConv2d

Rule = Callable[[Any, Tensor, Tensor], int]


def legacy_operations(model: nn.Module, shape: Sequence[int], *, rectifiers: bool = True) -> int:
    """Counts the operations of a forward pass on the meta device, as pytorch-OpCounter did.

    Args:
        model: any module that takes one image tensor; it isn't changed.
        shape: (N, C, H, W) of the input.
        rectifiers: count the ReLUs. False for a network whose published code calls `F.relu`, which wasn't seen.

    Raises:
        ValueError: where the shape can't be.

    >>> legacy_operations(nn.Conv2d(3, 8, 3), (1, 3, 5, 5))  # (27 + 1 for the bias) · 8 · 3²
    2016
    """
    setting = Setting.of(shape, "meta")
    replica, counted = setting.replica(model), [0]

    def count(rule: Rule) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            counted[0] += rule(module, inputs[0], output)

        return hook

    def watch(module: nn.Module) -> None:
        rule = RULES.get(type(module))
        if rule is not None and (rectifiers or type(module) is not nn.ReLU):
            module.register_forward_hook(count(rule))
        for child in module.children() if rule is None else ():
            watch(child)

    watch(replica)
    with torch.no_grad():
        replica(setting.input())
    return counted[0]


def convolution(conv: nn.Conv2d, input: Tensor, output: Tensor) -> int:
    return output.numel() * (conv.weight[0].numel() + (conv.bias is not None))


def norm(norm: nn.BatchNorm2d, input: Tensor, output: Tensor) -> int:
    return 4 * output.numel()


def pooling(pool: nn.AvgPool2d, input: Tensor, output: Tensor) -> int:
    """A sum of k numbers and a division, for a kernel written as k: that it has k² was overlooked."""
    return output.numel() * (pool.kernel_size + 1)  # type: ignore[operator]


def global_pooling(pool: nn.Module, input: Tensor, output: Tensor) -> int:
    return input.numel() + output.numel()


def split(layer: SplitConv2d, input: Tensor, output: Tensor) -> int:
    """That of the convolutions, norms and pools that the published code has in its place."""
    parts = [part for part in (layer.grouped, layer.pointwise, layer.redundant) if part is not None]
    paths = 1 if layer.redundant is None else 2
    operations = sum(convolution(part, input, output) for part in parts) + paths * 4 * output.numel()
    if paths == 2:
        operations += 2 * (output.numel() + output.shape[0] * output.shape[1])
    stride = layer.grouped.stride[0]
    if stride > 1:
        operations += output.numel() // output.shape[1] * input.shape[1] * (stride + 1)
    return operations


RULES: dict[type[nn.Module], Rule] = {
    nn.Conv2d: convolution,
    nn.Linear: lambda layer, input, output: output.numel() * layer.in_features,
    nn.BatchNorm2d: norm,
    nn.ReLU: lambda layer, input, output: output.numel(),
    nn.MaxPool2d: lambda pool, input, output: output.numel() * pool.kernel_size,
    nn.AvgPool2d: pooling,
    nn.AdaptiveAvgPool2d: global_pooling,
    SelectAdaptivePool2d: global_pooling,
    SplitConv2d: split,
}
