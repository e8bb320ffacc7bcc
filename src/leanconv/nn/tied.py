"""Tied block convolution and tied block linear layer.

Wang & Yu, "Tied Block Convolution: Leaner and Better CNNs with Shared Thinner Filters", AAAI 2021, arXiv 2009.12021.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.nn.arguments import name_of_type, of_conv, require_geometry, require_positive
from leanconv.ops import tied_conv2d, tied_linear
from leanconv.ops.tied import Size, untied


class TiedConv2d(nn.Module):
    """A convolution whose blocks of channels share one thin filter bank (TBC; with `groups` TGC).

    X̃ = ⊕_g ⊕_b X_gb ∗ W'_g: a B²G-th of the parameters and a BG-th of the multiply-accumulates of `nn.Conv2d`. The
    weight is held by the child `conv`, an `nn.Conv2d` from a block to a block. Channels are group-major: (group, block,
    channel).

    Args:
        in_channels, out_channels: C and O; blocks · groups must divide both.
        kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype: as in `nn.Conv2d`.
            The bias has O / blocks entries: blocks share it as they share the weight.
        blocks: B, blocks of channels that share each filter bank.

    Shape:
        (N, C, H, W) or (C, H, W) to (N, O, Ho, Wo) or (O, Ho, Wo), of `nn.Conv2d`'s size.

    Raises:
        ValueError: where blocks · groups doesn't divide the channels, or `nn.Conv2d` refuses the arguments.

    >>> layer = TiedConv2d(64, 128, 3, stride=2, padding=1, bias=False, blocks=4)
    >>> layer(torch.randn(1, 64, 7, 7)).shape, layer.weight.shape
    (torch.Size([1, 128, 4, 4]), torch.Size([32, 16, 3, 3]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: str | Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        blocks: int = 2,
    ) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, out_channels=out_channels, groups=groups, blocks=blocks)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % (blocks * groups):
                raise ValueError(
                    f"blocks · groups must divide {name}, got blocks={blocks}, groups={groups}, {name}={channels}"
                )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.blocks = blocks
        self.conv = nn.Conv2d(
            in_channels // blocks, out_channels // blocks, kernel_size, stride, padding, dilation,  # type: ignore[arg-type]
            groups, bias, padding_mode, device, dtype,
        )
        require_geometry(self.conv)

    @property
    def weight(self) -> Tensor:
        """The shared filters, (O / blocks, C / (blocks · groups), kh, kw)."""
        return self.conv.weight

    @property
    def bias(self) -> Tensor | None:
        """The shared bias, (O / blocks,), or None."""
        return self.conv.bias

    def forward(self, input: Tensor) -> Tensor:
        conv = self.conv
        padding: str | Size = conv.padding
        if conv.padding_mode != "zeros":
            input = F.pad(input, conv._reversed_padding_repeated_twice, mode=conv.padding_mode)
            padding = 0
        return tied_conv2d(input, conv.weight, conv.bias, conv.stride, padding, conv.dilation, conv.groups,
                           blocks=self.blocks)

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, *, blocks: int = 2) -> Self:
        """The tied layer nearest to a convolution in least squares: its weight is the mean of the diagonal blocks.

        What is preserved: the shared part of how each block maps to itself. What blocks told each other (the
        off-diagonal blocks) is lost, so train afterwards. A channel permutation could bring similar blocks together,
        but it would have to be undone in every neighbour of the layer; it is left out.

        Raises:
            TypeError: when `conv` isn't exactly an `nn.Conv2d`.
            ValueError: where blocks · conv.groups doesn't divide its channels.

        >>> conv = nn.Conv2d(4, 4, 1, bias=False)
        >>> tied = TiedConv2d.from_conv(conv, blocks=2)
        >>> torch.equal(tied.weight, (conv.weight[:2, :2] + conv.weight[2:, 2:]) / 2)
        True
        """
        layer = cls(**of_conv(conv), blocks=blocks).train(conv.training)
        if not conv.weight.is_contiguous():
            layer = layer.to(memory_format=torch.channels_last)
        with torch.no_grad():
            layer.weight.copy_(nearest_tied(conv.weight, conv.groups, blocks))
            if layer.bias is not None and conv.bias is not None:
                layer.bias.copy_(conv.bias.unflatten(0, (conv.groups, blocks, -1)).mean(1).flatten())
                layer.bias.requires_grad_(conv.bias.requires_grad)
        layer.weight.requires_grad_(conv.weight.requires_grad)
        return layer

    def fused(self) -> nn.Conv2d:
        """The same map as a plain `nn.Conv2d` with groups · blocks groups: as many MACs, each filter stored B times."""
        conv = self.conv
        plain = nn.Conv2d(
            self.in_channels, self.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,  # type: ignore[arg-type]
            conv.groups * self.blocks, conv.bias is not None, conv.padding_mode, conv.weight.device, conv.weight.dtype,
        )
        for name, parameter in conv.named_parameters(recurse=False):
            repeated = untied(parameter.detach(), conv.groups, self.blocks).clone()
            setattr(plain, name, nn.Parameter(repeated, requires_grad=parameter.requires_grad))
        return plain.train(self.training)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, blocks={self.blocks}"


def nearest_tied(weight: Tensor, groups: int, blocks: int) -> Tensor:
    """The tied weight W' whose repetition on the diagonal is nearest to a dense weight: the diagonal's mean.

    argmin_W' Σ_b ‖W_bb − W'‖² + Σ_{b≠c} ‖W_bc‖² = (1/B) Σ_b W_bb, within each of the groups.

    Args:
        weight: (O, C / groups, kh, kw).

    Returns:
        (O / blocks, C / (blocks · groups), kh, kw).

    >>> nearest_tied(torch.tensor([[1.0, 9.0], [9.0, 3.0]])[:, :, None, None], groups=1, blocks=2).item()
    2.0
    """
    banks = weight.unflatten(1, (blocks, -1)).unflatten(0, (groups, blocks, -1))
    return banks.diagonal(dim1=1, dim2=3).mean(-1).flatten(0, 1)


class TiedLinear(nn.Module):
    """A linear layer whose blocks of features share one thin matrix (TFC): y = ⊕_b W' x_b + b'.

    A B²-th of the parameters and a B-th of the multiply-accumulates of `nn.Linear`. The weight is held by the child
    `linear`, an `nn.Linear` from a block to a block.

    Args:
        in_features, out_features: blocks must divide both.
        bias, device, dtype: as in `nn.Linear`. The bias has out_features / blocks entries, shared by the blocks.
        blocks: B, blocks of features that share the matrix.

    Shape:
        (..., in_features) to (..., out_features).

    Raises:
        ValueError: where blocks doesn't divide the features.

    >>> TiedLinear(8, 4, blocks=2)(torch.randn(3, 8)).shape
    torch.Size([3, 4])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        blocks: int = 2,
    ) -> None:
        super().__init__()
        require_positive(in_features=in_features, out_features=out_features, blocks=blocks)
        for name, features in (("in_features", in_features), ("out_features", out_features)):
            if features % blocks:
                raise ValueError(f"blocks must divide {name}, got blocks={blocks}, {name}={features}")
        self.in_features = in_features
        self.out_features = out_features
        self.blocks = blocks
        self.linear = nn.Linear(in_features // blocks, out_features // blocks, bias, device, dtype)

    @property
    def weight(self) -> Tensor:
        """The shared matrix, (out_features / blocks, in_features / blocks)."""
        return self.linear.weight

    @property
    def bias(self) -> Tensor | None:
        """The shared bias, (out_features / blocks,), or None."""
        return self.linear.bias

    def forward(self, input: Tensor) -> Tensor:
        return tied_linear(input, self.linear.weight, self.linear.bias, blocks=self.blocks)

    @classmethod
    def from_linear(cls, linear: nn.Linear, *, blocks: int = 2) -> Self:
        """The tied layer nearest to a linear layer in least squares: its matrix is the mean of the diagonal blocks.

        What is preserved and what is lost: as for `TiedConv2d.from_conv`.

        Raises:
            TypeError: when `linear` isn't exactly an `nn.Linear`.
            ValueError: where blocks doesn't divide its features.
        """
        if type(linear) is not nn.Linear:
            raise TypeError(f"linear must be exactly an nn.Linear, got {name_of_type(linear)}")
        weight, bias = linear.weight, linear.bias
        layer = cls(linear.in_features, linear.out_features, bias is not None, weight.device, weight.dtype,
                    blocks=blocks).train(linear.training)
        with torch.no_grad():
            layer.weight.copy_(nearest_tied(weight[..., None, None], 1, blocks).flatten(1))
            if layer.bias is not None:
                layer.bias.copy_(bias.unflatten(0, (blocks, -1)).mean(0))
        return layer.requires_grad_(weight.requires_grad)

    def fused(self) -> nn.Linear:
        """The same map as a plain, block-diagonal `nn.Linear`, for tools that know no other: B times the MACs."""
        linear = self.linear
        plain = nn.Linear(self.in_features, self.out_features, linear.bias is not None, linear.weight.device,
                          linear.weight.dtype)
        with torch.no_grad():
            plain.weight.copy_(torch.block_diag(*[linear.weight] * self.blocks))
            if linear.bias is not None:
                plain.bias.copy_(linear.bias.repeat(self.blocks))
        return plain.train(self.training)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, blocks={self.blocks}"
