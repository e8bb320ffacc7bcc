"""Tied block convolution (TBC): one thin filter shared by all blocks of channels.

Wang & Yu, "Tied Block Convolution: Leaner and Better CNNs with Shared Thinner Filters", AAAI 2021, arXiv 2009.12021.

With X cut along its channels into G groups of B blocks, and one filter bank W'_g a group, of co/(BG) filters:

    X̃ = ⊕_g ⊕_b  X_gb ∗ W'_g                    (⊕ concatenates channels; G = 1 is TBC, G > 1 is TGC)

so parameters fall by B²G and multiply-accumulates by BG against a standard convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Size = int | Sequence[int]


def tied_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: str | Size = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    blocks: int = 1,
) -> Tensor:
    """Convolves each of the blocks of channels with the same thin filters (TBC; with `groups` TGC).

    Channels are group-major, as in the paper's equation: channel = (group, block, channel within the block).
    The memory format of the input is kept, without a copy where the input is dense in it.

    Args:
        input: (N, C, H, W) or (C, H, W).
        weight: (O / blocks, C / (blocks · groups), kh, kw) for O output channels.
        bias: (O / blocks,), shared by the blocks as the weight is.
        stride, padding, dilation: as in `torch.nn.functional.conv2d`; padding may be "valid" or "same".
        groups: G, filter banks; each serves its own C / G channels.
        blocks: B, blocks of channels a filter bank is shared by; 1 is the standard convolution.

    Returns:
        (N, O, Ho, Wo) or (O, Ho, Wo), of `conv2d`'s size for the same arguments.

    Raises:
        ValueError: where blocks and groups don't divide the channels, or a shape doesn't fit.

    >>> input, weight = torch.randn(2, 8, 5, 5), torch.randn(6, 4, 3, 3)
    >>> output = tied_conv2d(input, weight, padding=1, blocks=2)
    >>> halves = [F.conv2d(half, weight, padding=1) for half in input.chunk(2, dim=1)]
    >>> torch.allclose(output, torch.cat(halves, dim=1), atol=1e-5)
    True
    """
    check(input, weight, bias, groups, blocks)
    if input.dim() == 3:
        return tied_conv2d(input[None], weight, bias, stride, padding, dilation, groups, blocks=blocks)[0]
    stride, dilation = pair("stride", stride), pair("dilation", dilation)
    if blocks == 1:
        return F.conv2d(input, weight, bias, stride, padding if isinstance(padding, str) else pair("padding", padding),
                        dilation, groups)
    if isinstance(padding, str):
        input, padding = explicit_padding(input, padding, weight, stride, dilation)
    padding = pair("padding", padding)
    if groups == 1 and weight.shape[2:] == (1, 1) and padding == (0, 0):
        if input.stride(1) == 1:
            return pointwise_rows(input, weight, bias, stride, blocks)
        if product_pays(input, weight, stride):
            return pointwise_columns(input, weight, bias, stride, blocks)
    if groups == 1 and input.is_contiguous():
        return blocks_as_batch(input, weight, bias, stride, padding, dilation, blocks)
    if groups == 1 and stride[1] == 1 and input.is_contiguous(memory_format=torch.channels_last):
        return blocks_as_columns(input, weight, bias, stride[0], padding, dilation, blocks)
    return reference(input, weight, bias, stride, padding, dilation, groups, blocks)


def reference(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    blocks: int,
) -> Tensor:
    """The definition: a grouped convolution whose filters are repeated for each block."""
    filters = untied(weight, groups, blocks)
    if input.stride(1) != 1:
        filters = in_nchw(filters)
    return F.conv2d(input, filters, None if bias is None else untied(bias, groups, blocks), stride, padding, dilation,
                    groups * blocks)


def untied(parameter: Tensor, groups: int, blocks: int) -> Tensor:
    """Repeats a tied weight or bias for each block: what a convolution with groups · blocks groups takes.

    A weight stays in its memory format, in which the convolution reads it fastest.

    >>> untied(torch.tensor([1, 2, 3, 4]), groups=2, blocks=2)
    tensor([1, 2, 1, 2, 3, 4, 3, 4])
    """
    channels_last = (
        parameter.dim() == 4
        and parameter.is_contiguous(memory_format=torch.channels_last)
        and not parameter.is_contiguous()
    )
    rows = parameter.permute(0, 2, 3, 1) if channels_last else parameter
    banks = rows.unflatten(0, (groups, 1, rows.shape[0] // groups))
    repeated = banks.expand(-1, blocks, *banks.shape[2:]).flatten(0, 2)
    return repeated.permute(0, 3, 1, 2) if channels_last else repeated


def pointwise_rows(input: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], blocks: int) -> Tensor:
    """In channels_last a 1x1 convolution is one matrix product, with a row of C/B values for each block of a pixel."""
    pixels = input.permute(0, 2, 3, 1)[:, :: stride[0], :: stride[1]]
    rows = pixels.unflatten(3, (blocks, weight.shape[1]))
    return F.linear(rows, weight.flatten(1), bias).flatten(3).permute(0, 3, 1, 2)


def pointwise_columns(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], blocks: int
) -> Tensor:
    """In NCHW a 1x1 convolution is a matrix product for each block of each image, with a column for each pixel."""
    pixels = input[:, :, :: stride[0], :: stride[1]]
    batch, _, height, width = pixels.shape
    columns = pixels.reshape(batch * blocks, weight.shape[1], height * width)
    matrices = weight.flatten(1).expand(batch * blocks, -1, -1)
    output = torch.bmm(matrices, columns) if bias is None else torch.baddbmm(bias[:, None], matrices, columns)
    return output.view(batch, blocks * weight.shape[0], height, width)


def product_pays(input: Tensor, weight: Tensor, stride: Sequence[int]) -> bool:
    """Whether `pointwise_columns` beats a convolution of the blocks as a batch, as measured.

    Its gradient makes a matrix for each block of each image: with large matrices and small maps that costs more than
    the convolution's own copies. In training, those matrices may be a quarter of the maps.
    """
    if torch.compiler.is_exporting():
        return True
    pixels = -(-input.shape[2] // stride[0]) * -(-input.shape[3] // stride[1])
    if torch.is_grad_enabled():
        return 4 * weight.shape[0] <= pixels
    return input.shape[0] == 1 or weight.shape[0] <= 4 * pixels


def blocks_as_batch(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    blocks: int,
) -> Tensor:
    """In NCHW a block is a run of memory, as an image is: B · N images of C/B channels are a view."""
    batch, channels, height, width = input.shape
    images = input.view(batch * blocks, channels // blocks, height, width)
    output = F.conv2d(images, in_nchw(weight), bias, stride, padding, dilation)
    return output.reshape(batch, blocks * output.shape[1], *output.shape[2:])


def in_nchw(weight: Tensor) -> Tensor:
    """The weight in NCHW, by its strides too, which kernels of one pixel leave open.

    A convolution takes the memory format of its weight as well: one in channels_last would have the whole input and
    output copied.
    """
    return weight.contiguous().flatten(1).view(weight.shape)


def blocks_as_columns(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: Sequence[int],
    dilation: Sequence[int],
    blocks: int,
) -> Tensor:
    """In channels_last, memory is (N, H, W, B, C/B): an image of W·B columns whose neighbours are B columns away."""
    batch, channels, height, width = input.shape
    wide = input.permute(0, 2, 3, 1).view(batch, height, width * blocks, channels // blocks).permute(0, 3, 1, 2)
    output = F.conv2d(wide, weight, bias, (stride, 1), (padding[0], padding[1] * blocks),
                      (dilation[0], dilation[1] * blocks))
    rows = output.permute(0, 2, 3, 1)
    return rows.reshape(batch, rows.shape[1], rows.shape[2] // blocks, blocks * rows.shape[3]).permute(0, 3, 1, 2)


def tied_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None, *, blocks: int = 1) -> Tensor:
    """Maps each of the blocks of features by the same thin matrix (TFC): y = ⊕_b W' x_b + b'.

    Parameters fall by B², multiply-accumulates by B against `torch.nn.functional.linear`.

    Args:
        input: (..., C).
        weight: (O / blocks, C / blocks) for O output features.
        bias: (O / blocks,), shared by the blocks.
        blocks: B, blocks of features that share the weight; 1 is the standard linear map.

    Returns:
        (..., O).

    Raises:
        ValueError: where the features of the input aren't blocks times the weight's.

    >>> input, weight = torch.randn(2, 6), torch.randn(5, 3)
    >>> tied_linear(input, weight, blocks=2).shape
    torch.Size([2, 10])
    """
    if blocks < 1:
        raise ValueError(f"blocks must be at least 1, got {blocks}")
    if weight.dim() != 2:
        raise ValueError(f"weight must have 2 dimensions (features / blocks each), got shape {tuple(weight.shape)}")
    if input.dim() < 1 or input.shape[-1] != blocks * weight.shape[1]:
        raise ValueError(
            f"input must have blocks · weight.shape[1] = {blocks} · {weight.shape[1]} = {blocks * weight.shape[1]} "
            f"features in its last dimension, got shape {tuple(input.shape)}"
        )
    return F.linear(input.unflatten(-1, (blocks, weight.shape[1])), weight, bias).flatten(-2)


def check(input: Tensor, weight: Tensor, bias: Tensor | None, groups: int, blocks: int) -> None:
    """Raises ValueError where the arguments of `tied_conv2d` don't fit together."""
    if blocks < 1 or groups < 1:
        raise ValueError(f"blocks and groups must be at least 1, got blocks={blocks}, groups={groups}")
    if input.dim() not in (3, 4):
        raise ValueError(f"input must be (N, C, H, W) or (C, H, W), got shape {tuple(input.shape)}")
    if weight.dim() != 4:
        raise ValueError(f"weight must be (O / blocks, C / (blocks · groups), kh, kw), got shape {tuple(weight.shape)}")
    if weight.shape[0] % groups:
        raise ValueError(f"groups must divide weight.shape[0] = {weight.shape[0]}, got groups={groups}")
    if input.shape[-3] != weight.shape[1] * blocks * groups:
        raise ValueError(
            f"input must have weight.shape[1] · blocks · groups = {weight.shape[1]} · {blocks} · {groups} = "
            f"{weight.shape[1] * blocks * groups} channels, got {input.shape[-3]} in shape {tuple(input.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must have shape ({weight.shape[0]},), shared by the blocks, got {tuple(bias.shape)}")


def pair(name: str, size: Size) -> tuple[int, int]:
    """A height and a width from one number or two."""
    if isinstance(size, int):
        return size, size
    if len(size) == 1:
        return size[0], size[0]
    if len(size) != 2:
        raise ValueError(f"{name} must be one number or two, got {tuple(size)}")
    return size[0], size[1]


def explicit_padding(
    input: Tensor, padding: str, weight: Tensor, stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[Tensor, tuple[int, int]]:
    """Turns "valid" and "same" into numbers; pads the input itself where "same" needs one more behind than before."""
    if padding == "valid":
        return input, (0, 0)
    if padding != "same":
        raise ValueError(f"padding must be numbers, 'valid' or 'same', got {padding!r}")
    if stride != (1, 1):
        raise ValueError(f"padding='same' needs stride 1, got stride={stride}")
    total = [step * (size - 1) for step, size in zip(dilation, weight.shape[2:], strict=True)]
    if total[0] % 2 or total[1] % 2:
        input = F.pad(input, (0, total[1] % 2, 0, total[0] % 2))
    return input, (total[0] // 2, total[1] // 2)
