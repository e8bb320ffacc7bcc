"""The normalisation of dynamic filters, as a layer."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from leanconv.errors import unknown
from leanconv.nn.arguments import require_positive
from leanconv.ops.dynamic import filter_norm
from leanconv.ops.tied import Size, pair

Nonlinearity = Literal["relu", "linear"]


class FilterNorm(nn.Module):
    """Standardises each dynamic filter over its taps: y = α (x − mean) / (std + 1e-10) + β (FilterNorm).

    Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021, arXiv 2104.14107, Eq. 3. It has no running statistics.
    With gain √2 ("relu") or 1 ("linear") and a kernel of kh · kw taps, α is gain / √(kh · kw); where it is learned,
    random of that spread. The names `std` and `mean` of the parameters are those of the published checkpoints.

    Args:
        filters: F, filters in the second dimension of the input.
        kernel_size: kh and kw; at least two taps.
        nonlinearity: what follows the filtered features, "relu" or "linear".
        learn_scale: α becomes the parameter `std`, of a value for each filter and tap.
        learn_shift: β becomes the parameter `mean`, of a value for each filter and tap, at first random of spread 1;
            there is none otherwise.
        eps: None for the formula above; a number for (x − mean) / √(var + eps), which is safe for flat filters.
        device, dtype: of the parameters.

    Shape:
        (N, F · kh · kw, ...) to the same, in float32, or float64 where that comes in.

    Raises:
        ValueError: for a kernel of one tap, or an unknown nonlinearity.

    >>> FilterNorm(1, 3, nonlinearity="linear")(torch.arange(9.0)[None]).std()
    tensor(0.3333)
    """

    std: nn.Parameter | None
    mean: nn.Parameter | None

    def __init__(
        self,
        filters: int,
        kernel_size: Size,
        *,
        nonlinearity: Nonlinearity = "relu",
        learn_scale: bool = False,
        learn_shift: bool = False,
        eps: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        kernel = pair("kernel_size", kernel_size)
        require_positive(filters=filters)
        if min(kernel) < 1 or max(kernel) < 2:
            raise ValueError(f"kernel_size must have at least two taps: one has no spread to normalise, got {kernel}")
        if nonlinearity not in ("relu", "linear"):
            raise unknown("nonlinearity", nonlinearity, ("relu", "linear"))
        if eps is not None and not eps > 0:
            raise ValueError(f"eps must be None or above 0, got {eps}")
        self.filters = filters
        self.taps = kernel[0] * kernel[1]
        self.scale = nn.init.calculate_gain(nonlinearity) / math.sqrt(self.taps)
        self.eps = eps
        for name, learn in (("std", learn_scale), ("mean", learn_shift)):
            vector = nn.Parameter(torch.empty(filters * self.taps, device=device, dtype=dtype)) if learn else None
            self.register_parameter(name, vector)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.std is not None:
            nn.init.normal_(self.std, std=self.scale)
        if self.mean is not None:
            nn.init.normal_(self.mean)

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() < 2 or input.shape[1] != self.filters * self.taps:
            raise ValueError(f"input must be (N, {self.filters * self.taps}, ...), got shape {tuple(input.shape)}")
        return filter_norm(input, self.taps, self.scale if self.std is None else self.std, self.mean, eps=self.eps)

    def vectors(self, filters: Tensor) -> tuple[Tensor, Tensor | None]:
        """α and β for each row of `filters`, in the precision that they are normalised in."""
        dtype = torch.promote_types(filters.dtype, torch.float32)
        scale = filters.new_full((self.filters * self.taps,), self.scale, dtype=dtype) if self.std is None else self.std
        return scale.to(dtype), None if self.mean is None else self.mean.to(dtype)

    def extra_repr(self) -> str:
        return f"{self.filters}, taps={self.taps}, scale={self.scale:.4f}" + (f", eps={self.eps}" if self.eps else "")
