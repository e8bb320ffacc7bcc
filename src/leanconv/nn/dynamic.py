"""Decoupled dynamic filters: a convolution whose filters are made from its input, for each channel and each pixel.

Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021, arXiv 2104.14107.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.errors import unknown
from leanconv.nn.arguments import of_conv, require_positive
from leanconv.nn.filter_norm import FilterNorm, Nonlinearity
from leanconv.ops.dynamic import library
from leanconv.ops.dynamic.ddf import COMBINATIONS, dynamic_filter
from leanconv.ops.dynamic.norms import Norms
from leanconv.ops.tied import Size, pair


class DDF(nn.Module):
    """A convolution of a channel's filter and a pixel's, both made from the input: it replaces a C-to-C `nn.Conv2d`.

    y = ddf(x, FN(W2 ReLU(W1 GAP(x))), FN(W3 x)): the first filter is a channel's, the second a pixel's (a 1x1
    convolution). It takes O(C k² + C²) operations a pixel, where a convolution takes O(C² k²).
    Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021, arXiv 2104.14107, Eq. 2 and Fig. 3; the parameters'
    names are those of the published checkpoints. Mixing channels is left to 1x1 convolutions around it.

    Args:
        channels: C, of input and output.
        kernel_size: odd, at least two taps.
        stride, dilation: as in `nn.Conv2d`; the padding is that which centres the kernel.
        heads: G, spatial filters a pixel; each serves a run of C / G channels.
        squeeze_ratio: σ; W1 leaves max(1, int(σ · C)) values.
        combine: "mul" (the paper's) or "add".
        nonlinearity: what follows, "relu" or "linear": it sets the scale of the filters.
        eps: of `FilterNorm`; None for the published formula, a number such as 1e-5 for the safe one.
        device, dtype: as in `nn.Conv2d`.

    Shape:
        (N, C, H, W) or (C, H, W) to the same with ceil(H / stride), ceil(W / stride), in the input's memory format.

    Raises:
        ValueError: for even kernels and kernels of one tap, and where heads doesn't divide the channels.

    >>> DDF(64, stride=2)(torch.randn(1, 64, 7, 7)).shape
    torch.Size([1, 64, 4, 4])
    """

    def __init__(
        self,
        channels: int,
        kernel_size: Size = 3,
        stride: Size = 1,
        dilation: Size = 1,
        *,
        heads: int = 1,
        squeeze_ratio: float = 0.2,
        combine: Literal["mul", "add"] = "mul",
        nonlinearity: Nonlinearity = "relu",
        eps: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.channels, self.heads, self.combine = channels, heads, combine
        self.kernel_size = pair("kernel_size", kernel_size)
        self.stride, self.dilation = pair("stride", stride), pair("dilation", dilation)
        check_filters(channels, self.kernel_size, heads, squeeze_ratio, combine)
        require_positive(stride=min(self.stride), dilation=min(self.dilation))
        where = {"device": device, "dtype": dtype}
        self.spatial_branch = SpatialBranch(channels, self.kernel_size, heads, self.stride, 1, nonlinearity, eps, where)
        self.channel_branch = ChannelBranch(channels, self.kernel_size, 1, squeeze_ratio, nonlinearity, eps, where)
        library.count_operations()

    def forward(self, input: Tensor) -> Tensor:
        check_input(input, self.channels)
        if input.dim() == 3:
            return self(input[None])[0]
        return normed_filter(input, self.channel_branch, self.spatial_branch.raw(input), self.spatial_branch,
                             self.kernel_size, self.stride, self.dilation, self.combine)

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, **options: Any) -> Self:
        """A layer in the place of a convolution: of its channels, kernel, stride, dilation, device, dtype and mode.

        Nothing of the weight or bias is preserved: the layer's filters come from its input, and its own weights are
        random. Train afterwards.

        Args:
            conv: with as many output as input channels, padded by zeros so that its kernel is centred.
            options: heads, squeeze_ratio, combine, nonlinearity and eps.

        Raises:
            TypeError: when `conv` isn't exactly an `nn.Conv2d`.
            ValueError: for other channels or padding than those, and where `DDF` refuses the arguments.

        >>> DDF.from_conv(nn.Conv2d(8, 8, 3, 2, 1)).stride
        (2, 2)
        """
        of = of_conv(conv)
        if of["in_channels"] != of["out_channels"]:
            raise ValueError(f"conv must have as many output as input channels, got {conv}")
        centred = tuple(step * (size - 1) // 2 for step, size in zip(conv.dilation, conv.kernel_size, strict=True))
        if of["padding_mode"] != "zeros" or of["padding"] not in (centred, "same"):
            raise ValueError(f"conv must have padding={centred}, which centres its kernel, of zeros, got {conv}")
        names = ("kernel_size", "stride", "dilation", "device", "dtype")
        return cls(of["in_channels"], **{name: of[name] for name in names}, **options).train(conv.training)

    def extra_repr(self) -> str:
        return (f"{self.channels}, kernel_size={self.kernel_size}, stride={self.stride}, dilation={self.dilation}, "
                f"heads={self.heads}, combine={self.combine!r}")


class DDFUp(nn.Module):
    """Upsampling by scale² decoupled dynamic filters, each with weights of its own, one for each sub-pixel (DDF-Up).

    Branch p · scale + q is a `DDF` that gives the output pixels (i · scale + p, j · scale + q). Its spatial filters are
    made from a guidance: one that is given (joint), or a depthwise convolution of the input, another for each branch.
    Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021, arXiv 2104.14107, Fig. 5. All branches run as one.

    Args:
        channels: C, of input and output.
        scale: sub-pixels along each side, at least 2.
        kernel_size: odd, at least two taps.
        guide_channels: channels of the guidance at the input's size; each branch sees all of them. A guidance of the
            output's size is folded to the input's (`pixel_unshuffle`): it has guide_channels / scale² channels. None
            where no guidance is given.
        heads, squeeze_ratio, combine, eps: as in `DDF`.
        depthwise_kernel_size: odd; of the convolutions that take the place of a guidance.
        device, dtype: as in `nn.Conv2d`.

    Shape:
        (N, C, H, W) and (N, guide_channels, H, W), or (N, guide_channels / scale², H · scale, W · scale), to
        (N, C, H · scale, W · scale). All of them may come without N.

    Raises:
        ValueError: as `DDF` does; in `forward`, for a missing, superfluous or wrongly shaped guidance.

    >>> DDFUp(16)(torch.randn(1, 16, 5, 6)).shape
    torch.Size([1, 16, 10, 12])
    >>> DDFUp(16, guide_channels=12)(torch.randn(1, 16, 5, 6), torch.randn(1, 3, 10, 12)).shape
    torch.Size([1, 16, 10, 12])
    """

    def __init__(
        self,
        channels: int,
        scale: int = 2,
        kernel_size: Size = 3,
        *,
        guide_channels: int | None = None,
        heads: int = 1,
        squeeze_ratio: float = 0.2,
        combine: Literal["mul", "add"] = "mul",
        depthwise_kernel_size: Size = 3,
        eps: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.channels, self.scale, self.guide_channels = channels, scale, guide_channels
        self.heads, self.combine = heads, combine
        self.kernel_size = pair("kernel_size", kernel_size)
        check_filters(channels, self.kernel_size, heads, squeeze_ratio, combine)
        require_positive(scale=scale, guide_channels=1 if guide_channels is None else guide_channels)
        if scale < 2:
            raise ValueError(f"scale must be at least 2, got {scale}")
        depthwise_kernel = pair("depthwise_kernel_size", depthwise_kernel_size)
        if not all(size > 0 and size % 2 for size in depthwise_kernel):
            raise ValueError(f"depthwise_kernel_size must be odd: an even kernel has no centre, got {depthwise_kernel}")
        where = {"device": device, "dtype": dtype}
        branches, repeated = scale * scale, scale * scale * channels
        self.depthwise = None
        if guide_channels is None:
            padding = (depthwise_kernel[0] // 2, depthwise_kernel[1] // 2)
            self.depthwise = nn.Conv2d(repeated, repeated, depthwise_kernel, padding=padding, groups=repeated, **where)
        self.spatial_branch = SpatialBranch(
            guide_channels or repeated, self.kernel_size, branches * heads, (1, 1), 1 if guide_channels else branches,
            "linear", eps, where)
        self.channel_branch = ChannelBranch(channels, self.kernel_size, branches, squeeze_ratio, "linear", eps, where)
        library.count_operations()

    def forward(self, input: Tensor, guidance: Tensor | None = None) -> Tensor:
        check_input(input, self.channels)
        if input.dim() == 3:
            return self(input[None], None if guidance is None else guidance[None])[0]
        if self.guide_channels is None and guidance is not None:
            raise ValueError("guidance was given to a layer without guide_channels: give that to the constructor")
        if self.depthwise is not None:
            spatial = self.spatial_branch.raw_by_branch(input, self.depthwise)
        else:
            spatial = self.spatial_branch.raw(self.folded(guidance, input))
        return normed_filter(input, self.channel_branch, spatial, self.spatial_branch, self.kernel_size, (1, 1), (1, 1),
                             self.combine, self.scale)

    def folded(self, guidance: Tensor | None, input: Tensor) -> Tensor:
        """The guidance at the input's size."""
        batch, _, height, width = input.shape
        channels, scale = self.guide_channels or 0, self.scale
        small = (batch, channels, height, width)
        large = (batch, channels // scale**2, height * scale, width * scale) if channels % scale**2 == 0 else None
        if guidance is not None and guidance.shape == small:
            return guidance
        if guidance is not None and guidance.shape == large:
            return F.pixel_unshuffle(guidance, scale).reshape(small)  # the former leaves an empty batch as it is
        got = None if guidance is None else tuple(guidance.shape)
        raise ValueError(f"guidance must have shape {small}" + (f" or {large}" if large else "") + f", got {got}")

    def extra_repr(self) -> str:
        guide = "" if self.guide_channels is None else f", guide_channels={self.guide_channels}"
        return (f"{self.channels}, scale={self.scale}, kernel_size={self.kernel_size}{guide}, heads={self.heads}, "
                f"combine={self.combine!r}")


def check_filters(channels: int, kernel_size: tuple[int, int], heads: int, squeeze_ratio: float, combine: str) -> None:
    """Raises ValueError for what neither layer takes."""
    require_positive(channels=channels, heads=heads)
    if channels % heads:
        raise ValueError(f"heads must divide channels, got heads={heads}, channels={channels}")
    if not all(size > 0 and size % 2 for size in kernel_size):
        raise ValueError(f"kernel_size must be odd: an even kernel has no centre, got {kernel_size}")
    if not 0 < squeeze_ratio < math.inf:
        raise ValueError(f"squeeze_ratio must be above 0, got {squeeze_ratio}")
    if combine not in COMBINATIONS:
        raise unknown("combine", combine, COMBINATIONS)


def check_input(input: Tensor, channels: int) -> None:
    if input.dim() not in (3, 4) or input.shape[-3] != channels:
        shape = tuple(input.shape)
        raise ValueError(f"input must be (N, C, H, W) or (C, H, W) with {channels} channels, got shape {shape}")


class ChannelBranch(nn.Sequential):
    """What makes the channels' filters from the whole image, branch-major: FN(W2 ReLU(W1 GAP(x)))."""

    def __init__(
        self, channels: int, kernel_size: tuple[int, int], branches: int, squeeze_ratio: float,
        nonlinearity: Nonlinearity, eps: float | None, where: dict[str, Any],
    ) -> None:
        hidden = max(1, int(squeeze_ratio * channels))
        outputs = branches * channels * kernel_size[0] * kernel_size[1]
        super().__init__(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, branches * hidden, 1, **where),
            nn.ReLU(),
            nn.Conv2d(branches * hidden, outputs, 1, groups=branches, **where),
            FilterNorm(branches * channels, kernel_size, nonlinearity=nonlinearity, learn_scale=True, eps=eps, **where),
        )

    def raw(self, input: Tensor) -> Tensor:
        """The filters before their norm. On maps of one pixel, convolutions take several times as long as products."""
        squeeze, expand = cast(nn.Conv2d, self[1]), cast(nn.Conv2d, self[3])
        hidden = F.relu(F.linear(input.mean((-2, -1)), squeeze.weight.flatten(1), squeeze.bias))
        matrix, bias, branches = expand.weight.flatten(1), cast(Tensor, expand.bias), expand.groups
        if branches == 1:
            return F.linear(hidden, matrix, bias)
        by_branch = hidden.unflatten(1, (branches, -1)).transpose(0, 1)
        matrices = matrix.unflatten(0, (branches, -1)).mT
        return torch.baddbmm(bias.view(branches, 1, -1), by_branch, matrices).transpose(0, 1).flatten(1)


class SpatialBranch(nn.Sequential):
    """What makes the pixels' filters from the pixel itself, or from its guidance: FN(W3 x)."""

    def __init__(
        self, channels: int, kernel_size: tuple[int, int], heads: int, stride: tuple[int, int], groups: int,
        nonlinearity: Nonlinearity, eps: float | None, where: dict[str, Any],
    ) -> None:
        super().__init__(
            nn.Conv2d(channels, heads * kernel_size[0] * kernel_size[1], 1, stride, groups=groups, **where),
            FilterNorm(heads, kernel_size, nonlinearity=nonlinearity, eps=eps),
        )

    def raw(self, input: Tensor) -> Tensor:
        """The filters before their norm."""
        conv = cast(nn.Conv2d, self[0])
        return pointwise(input, conv.weight, cast(Tensor, conv.bias), cast(tuple[int, int], conv.stride))

    def raw_by_branch(self, input: Tensor, depthwise: nn.Conv2d) -> Tensor:
        """The same, with a depthwise convolution of the input as the guidance of each branch."""
        conv, channels = cast(nn.Conv2d, self[0]), input.shape[1]
        tensors = (depthwise.weight, depthwise.bias, conv.weight, conv.bias)
        return torch.cat([
            pointwise(F.conv2d(input, deep, deep_bias, padding=depthwise.padding, groups=channels), weight, bias)
            for deep, deep_bias, weight, bias in zip(
                *(cast(Tensor, tensor).chunk(conv.groups) for tensor in tensors), strict=True)
        ], 1)


def normed_filter(
    input: Tensor, channel_branch: ChannelBranch, spatial: Tensor, spatial_branch: SpatialBranch,
    kernel_size: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], combine: str, scale: int = 1,
) -> Tensor:
    """The input filtered by both filters, normalised: on the way, where no gradient is recorded."""
    channel = channel_branch.raw(input)
    channel_norm, spatial_norm = cast(FilterNorm, channel_branch[-1]), cast(FilterNorm, spatial_branch[-1])
    norms = None
    if torch.is_grad_enabled() and (input.requires_grad or channel.requires_grad or spatial.requires_grad):
        channel, spatial = channel_norm(channel), spatial_norm(spatial)
    else:
        norms = Norms(*channel_norm.vectors(channel), *spatial_norm.vectors(spatial), eps=spatial_norm.eps)
    channel = channel.unflatten(1, (-1, *kernel_size))
    return dynamic_filter(input, channel, spatial, kernel_size, stride, dilation, combine=combine, scale=scale,
                          norms=norms)


def pointwise(input: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, int] = (1, 1)) -> Tensor:
    """A 1x1 convolution, as a matrix product of the input where it lies: with few filters that is faster."""
    channels_last = input.stride(1) == 1
    if torch.compiler.is_exporting() or (channels_last and max(stride) > 1):
        return F.conv2d(input, weight, bias, stride)
    matrix = weight.flatten(1)
    if channels_last:
        return F.linear(input.permute(0, 2, 3, 1), matrix, bias).permute(0, 3, 1, 2)
    pixels = input[:, :, :: stride[0], :: stride[1]]
    columns = pixels.flatten(2)
    matrices = matrix.expand(input.shape[0], -1, -1)
    return torch.baddbmm(bias[:, None], matrices, columns).unflatten(2, pixels.shape[2:])
