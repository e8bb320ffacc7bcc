"""What the contract test has to know of a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """A layer with arguments, its input's shape, its definition, its MACs, and arguments that it must refuse."""

    name: str
    build: Callable[..., nn.Module]
    shape: tuple[int, ...]
    reference: Callable[[Any, Tensor], Tensor]
    macs: int
    refuses: list[tuple[Callable[[], object], str]] = field(default_factory=list)

    @property
    def spatial(self) -> bool:
        """Whether the input is an image."""
        return len(self.shape) == 4

    def layer(self, **options: Any) -> nn.Module:
        """The layer with reproducible random weights, none of them zero; norms random too, and in eval mode."""
        torch.manual_seed(0)
        module = self.build(**options)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(torch.randn(parameter.shape) * 0.3)
            for norm in module.modules():
                if isinstance(norm, nn.BatchNorm2d):
                    norm.eval()
                    norm.running_mean.uniform_(-0.3, 0.3)
                    norm.running_var.uniform_(0.5, 1.5)
                    norm.weight.uniform_(0.5, 1.5)
        return module

    def input(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A reproducible random input."""
        return torch.randn(shape or self.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
