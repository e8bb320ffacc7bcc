"""Parallel splits of channels, each a tied block convolution of its own: the 3x3 layers of TiedResNet.

Wang & Yu, "Tied Block Convolution: Leaner and Better CNNs with Shared Thinner Filters", AAAI 2021, arXiv 2009.12021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from leanconv.nn.arguments import require_positive
from leanconv.nn.tied import TiedConv2d
from leanconv.ops.tied import Size, untied


class TiedSplitConv2d(nn.Module):
    """A convolution in parallel splits of channels, tied in more and more blocks: y = ⊕_i TBC_i(x_i).

    With s splits x_1 ⊕ … ⊕ x_s of the input, the i-th runs through a `TiedConv2d` of its own with blocks[i] blocks.
    TiedResNet has four of them with 1, 2, 4 and 8 blocks in the place of each 3x3. The child `splits` holds them; a
    norm and an activation over all channels follow the whole as they would each split.

    Args:
        in_channels, out_channels: C and O; the number of splits must divide both.
        kernel_size, stride, padding, dilation, bias, padding_mode, device, dtype: as in `nn.Conv2d`, of each split.
        groups: in each split.
        blocks: of each split; blocks[i] · groups must divide C / s and O / s.

    Shape:
        (N, C, H, W) or (C, H, W) to (N, O, Ho, Wo) or (O, Ho, Wo), of `nn.Conv2d`'s size.

    Raises:
        ValueError: for no splits, where they don't divide the channels, or `TiedConv2d` refuses the arguments.

    >>> layer = TiedSplitConv2d(64, 64, 3, padding=1, bias=False)
    >>> layer(torch.randn(1, 64, 7, 7)).shape, [split.weight.shape[0] for split in layer.splits]
    (torch.Size([1, 64, 7, 7]), [16, 8, 4, 2])
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
        blocks: Sequence[int] = (1, 2, 4, 8),
    ) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, out_channels=out_channels)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if isinstance(blocks, int) or not blocks or channels % len(blocks):
                raise ValueError(f"blocks must be one number for each split, as many as divide {name}={channels}, "
                                 f"got {blocks}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.splits = nn.ModuleList(
            TiedConv2d(in_channels // len(blocks), out_channels // len(blocks), kernel_size, stride, padding, dilation,
                       groups, bias, padding_mode, device, dtype, blocks=each)
            for each in blocks
        )

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in (3, 4) or input.shape[-3] != self.in_channels:
            raise ValueError(f"input must be (N, C, H, W) or (C, H, W) with C = {self.in_channels} channels, "
                             f"got shape {tuple(input.shape)}")
        parts = input.chunk(len(self.splits), -3)
        return torch.cat([split(part) for split, part in zip(self.splits, parts, strict=True)], -3)

    def fused(self) -> nn.Conv2d:
        """The same map as one plain `nn.Conv2d`, grouped by split: blocks are written out, with zeros between them.

        One thin convolution does the work of s thinner ones and of putting them together. It has up to B times a
        split's multiply-accumulates, and takes less time.
        """
        splits = cast("list[TiedConv2d]", list(self.splits))
        conv = splits[0].conv
        plain = nn.Conv2d(
            self.in_channels, self.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,  # type: ignore[arg-type]
            len(splits) * conv.groups, conv.bias is not None, conv.padding_mode, conv.weight.device, conv.weight.dtype,
        )
        if not all(split.weight.is_contiguous() for split in splits):
            plain = plain.to(memory_format=torch.channels_last)
        with torch.no_grad():
            plain.weight.copy_(torch.cat([written_out(split) for split in splits]))
            if plain.bias is not None:
                biases = [untied(split.bias, conv.groups, split.blocks) for split in splits]  # type: ignore[arg-type]
                plain.bias.copy_(torch.cat(biases))
        return plain.train(self.training).requires_grad_(any(each.requires_grad for each in self.parameters()))

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}"


def written_out(layer: TiedConv2d) -> Tensor:
    """The weight of the plain convolution with the layer's groups that does as it does: blocks on the diagonal.

    >>> layer = TiedConv2d(4, 2, 1, blocks=2)
    >>> (written_out(layer).flatten(1) != 0).tolist()
    [[True, True, False, False], [False, False, True, True]]
    """
    groups, blocks = layer.conv.groups, layer.blocks
    banks = layer.weight.detach().unflatten(0, (groups, 1, -1))  # (groups, 1, filters of a block, channels of it, …)
    diagonal = torch.eye(blocks, dtype=banks.dtype, device=banks.device).view(1, blocks, 1, blocks, 1, 1, 1)
    return (diagonal * banks[:, :, :, None]).flatten(3, 4).flatten(0, 2)
