"""Channel attention with tied weights: TiedSE and TiedGCB, and the untied modules they come from.

Wang & Yu, "Tied Block Convolution: Leaner and Better CNNs with Shared Thinner Filters", AAAI 2021, arXiv 2009.12021;
Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018; Cao et al., "GCNet: Non-local Networks Meet
Squeeze-Excitation Networks and Beyond", ICCVW 2019.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.nn.arguments import require_positive
from leanconv.nn.tied import TiedLinear


class TiedSE(nn.Module):
    """Squeeze-and-excitation whose two matrices are shared by blocks of channels (TiedSE).

    y = x · σ(TFC_2(ReLU(TFC_1(GAP(x))))), each TFC with B blocks: B² times fewer weights than `SqueezeExcite`, 64 times
    at B = 8. In a residual network it stands after the last norm of a block, before the addition.

    Args:
        channels: C; blocks must divide it.
        blocks: B, blocks of channels that share the weights.
        reduction: r; each block is squeezed to max(2, C / B // r) values.
        device, dtype: as in `nn.Linear`.

    Shape:
        (N, C, H, W) or (C, H, W) to the same.

    Raises:
        ValueError: where blocks doesn't divide the channels.

    >>> [sum(p.numel() for p in layer.parameters()) for layer in (TiedSE(2048, blocks=8), SqueezeExcite(2048))]
    [8464, 526464]
    """

    def __init__(
        self, channels: int, *, blocks: int = 8, reduction: int = 16, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        require_positive(channels=channels, blocks=blocks, reduction=reduction)
        hidden = blocks * max(2, channels // blocks // reduction)
        self.reduce = TiedLinear(channels, hidden, device=device, dtype=dtype, blocks=blocks)
        self.expand = TiedLinear(hidden, channels, device=device, dtype=dtype, blocks=blocks)

    def forward(self, input: Tensor) -> Tensor:
        scale = self.expand(F.relu(self.reduce(input.mean((-2, -1))))).sigmoid()
        return input * scale[..., None, None]


class SqueezeExcite(TiedSE):
    """Squeeze-and-excitation, y = x · σ(W_2 ReLU(W_1 GAP(x))): `TiedSE` of one block.

    Args:
        channels: C.
        reduction: r; the channels are squeezed to max(2, C // r) values.
        device, dtype: as in `nn.Linear`.

    >>> SqueezeExcite(64)(torch.randn(2, 64, 7, 7)).shape
    torch.Size([2, 64, 7, 7])
    """

    def __init__(self, channels: int, *, reduction: int = 16, device: Any = None, dtype: Any = None) -> None:
        super().__init__(channels, blocks=1, reduction=reduction, device=device, dtype=dtype)


class TiedGlobalContext(nn.Module):
    """Global context block whose transform is shared by blocks of channels (TiedGCB).

    With attention a = softmax_HW(mask(x)) and context c = Σ_HW a · x, y = x + TFC_2(ReLU(LN(TFC_1(c)))): B² times fewer
    weights in the transform than `GlobalContext`. The norm spans all hidden channels. The last matrix starts at zero,
    so that a block put into a trained network changes nothing at first.

    Args:
        channels: C; blocks must divide it.
        blocks: B, blocks of channels that share the weights.
        ratio: hidden channels over C; blocks must divide int(C · ratio).
        device, dtype: as in `nn.Linear`.

    Shape:
        (N, C, H, W) or (C, H, W) to the same.

    Raises:
        ValueError: where blocks doesn't divide the channels or the hidden channels.

    >>> TiedGlobalContext(64, blocks=2)(torch.randn(2, 64, 7, 7)).shape
    torch.Size([2, 64, 7, 7])
    """

    def __init__(
        self, channels: int, *, blocks: int = 2, ratio: float = 1 / 4, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        require_positive(channels=channels, blocks=blocks)
        hidden = int(channels * ratio)
        if hidden < 1:
            raise ValueError(f"ratio must leave at least one hidden channel, got ratio={ratio} of channels={channels}")
        if hidden % blocks:
            raise ValueError(f"blocks must divide int(channels · ratio) = {hidden}, got blocks={blocks}")
        self.mask = nn.Conv2d(channels, 1, 1, device=device, dtype=dtype)
        self.reduce = TiedLinear(channels, hidden, device=device, dtype=dtype, blocks=blocks)
        self.norm = nn.LayerNorm(hidden, device=device, dtype=dtype)
        self.expand = TiedLinear(hidden, channels, device=device, dtype=dtype, blocks=blocks)
        nn.init.zeros_(self.expand.linear.weight)
        nn.init.zeros_(self.expand.linear.bias)

    def forward(self, input: Tensor) -> Tensor:
        attention = self.mask(input).flatten(-2).softmax(-1)
        context = torch.matmul(input.flatten(-2), attention.mT).squeeze(-1)
        term = self.expand(F.relu(self.norm(self.reduce(context))))
        return input + term[..., None, None]


class GlobalContext(TiedGlobalContext):
    """Global context block (GCB of GCNet, attention pooling and addition): `TiedGlobalContext` of one block.

    Args:
        channels: C.
        ratio: hidden channels over C.
        device, dtype: as in `nn.Linear`.

    >>> GlobalContext(64)(torch.randn(2, 64, 7, 7)).shape
    torch.Size([2, 64, 7, 7])
    """

    def __init__(self, channels: int, *, ratio: float = 1 / 4, device: Any = None, dtype: Any = None) -> None:
        super().__init__(channels, blocks=1, ratio=ratio, device=device, dtype=dtype)
