"""Residual networks small enough to run, and real ones that only count."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def small(name: str, **options: Any) -> nn.Module:
    """One block a stage, thin, in float64 and eval mode, with random norms."""
    torch.manual_seed(0)
    options = {"layers": (1, 1, 1, 1), "channels": (16, 16, 32, 32), "num_classes": 5} | options
    return randomised(timm.create_model(name, **options).double().eval())


def randomised(model: nn.Module) -> nn.Module:
    """The model with norms as training may leave them: none of them does nothing."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return model


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def real(name: str, **options: Any) -> nn.Module:
    """A network of its real size, without memory for its weights."""
    with torch.device("meta"):
        return timm.create_model(name, **options)


def costs(model: nn.Module, training: bool = False) -> tuple[int, int]:
    """Parameters and multiply-accumulates at 224 × 224."""
    model.train(training)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 224, 224, device="meta"))
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops() // 2


def block_inputs(model: nn.Module, input: Tensor) -> dict[str, tuple[nn.Module, Tensor, Tensor]]:
    """Each residual block by its path, with what goes into it and what comes out, for an input of the model."""
    seen: dict[str, tuple[nn.Module, Tensor, Tensor]] = {}
    blocks = {name: module for name, module in model.named_modules() if hasattr(module, "downsample")}
    for name, block in blocks.items():
        block.register_forward_hook(
            lambda module, args, output, name=name: seen.update({name: (module, args[0].clone(), output.clone())}))
    model(input)
    return seen


def shortcut(block: Any, input: Tensor) -> Tensor:
    return input if block.downsample is None else block.downsample(input)
