"""The decoupled dynamic filter and its upsampling form: arguments checked, the fastest way chosen."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from leanconv.errors import unknown
from leanconv.ops.dynamic import reference
from leanconv.ops.dynamic.autograd import DynamicFilter
from leanconv.ops.dynamic.gathering import gathered_sum
from leanconv.ops.dynamic.geometry import Geometry
from leanconv.ops.dynamic.norms import Norms
from leanconv.ops.tied import Size, pair
from leanconv.ops.transforms import transformed

COMBINATIONS = ("mul", "add")


def ddf(
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    kernel_size: Size = 3,
    stride: Size = 1,
    dilation: Size = 1,
    *,
    combine: Literal["mul", "add"] = "mul",
) -> Tensor:
    """Filters each channel and pixel by a kernel of its own, combined from a channel's and a pixel's (DDF).

    y[b,c,i,j] = Σ_{u,v} K · x[b, c, i·s + (u−r)·d, j·s + (v−r)·d] with K = S[b,g(c),u,v,i,j] · C[b,c,u,v], or their sum
    (combine="add"); x is 0 outside. Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021, arXiv 2104.14107,
    Eq. 2. With a spatial filter of ones it is a depthwise convolution of each sample's own. The memory format of the
    input is kept.

    Args:
        input: (B, C, H, W) or (C, H, W).
        channel_filter: C, (B, C, kh, kw), or (1, C, kh, kw) for all samples; None leaves it out.
        spatial_filter: S, (B, G · kh · kw, Ho, Wo), or with batch 1; None leaves it out. The G heads are runs of C / G
            channels; a head's taps are in the kernel's row-major order.
        kernel_size: odd.
        stride, dilation: as in `torch.nn.functional.conv2d`; the padding is that which centres the kernel.
        combine: "mul" (the paper's) or "add".

    The filters are of the input's dtype, or float32. Sums are taken in float32, or float64 for that input.

    Returns:
        (B, C, Ho, Wo) or (C, Ho, Wo), with Ho = ceil(H / stride).

    Raises:
        ValueError: for even kernels, heads that don't divide the channels, or filters of another shape.
        TypeError: for filters of another dtype.

    >>> input = torch.randn(2, 8, 7, 7)
    >>> channel, spatial = torch.randn(2, 8, 3, 3), torch.randn(2, 2 * 9, 4, 4)
    >>> ddf(input, channel, spatial, stride=2).shape
    torch.Size([2, 8, 4, 4])
    """
    return dynamic_filter(input, channel_filter, spatial_filter, kernel_size, stride, dilation, combine=combine)


def ddf_up(
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    scale: int = 2,
    kernel_size: Size = 3,
    dilation: Size = 1,
    *,
    combine: Literal["mul", "add"] = "mul",
) -> Tensor:
    """Upsamples by scale² decoupled dynamic filters, one for each sub-pixel of the output (DDF-Up).

    Output pixel (i · scale + p, j · scale + q) is `ddf` of branch p · scale + q at (i, j). Zhou et al., "Decoupled
    Dynamic Filter Networks", CVPR 2021, arXiv 2104.14107, Fig. 5.

    Args:
        input: (B, C, H, W) or (C, H, W).
        channel_filter: (B, scale² · C, kh, kw), branch-major, or with batch 1; None leaves it out.
        spatial_filter: (B, scale² · G · kh · kw, H, W), branch-major, or with batch 1; None leaves it out.
        scale: sub-pixels along each side, at least 1.
        kernel_size, dilation, combine: as in `ddf`.

    Returns:
        (B, C, H · scale, W · scale) or (C, H · scale, W · scale).

    Raises:
        ValueError, TypeError: as `ddf` does.

    >>> input = torch.randn(2, 8, 5, 6)
    >>> ddf_up(input, torch.randn(2, 4 * 8, 3, 3), torch.randn(2, 4 * 9, 5, 6)).shape
    torch.Size([2, 8, 10, 12])
    """
    return dynamic_filter(input, channel_filter, spatial_filter, kernel_size, 1, dilation, combine=combine, scale=scale)


def dynamic_filter(
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    kernel_size: Size,
    stride: Size,
    dilation: Size,
    *,
    combine: str = "mul",
    scale: int = 1,
    norms: Norms | None = None,
) -> Tensor:
    """What `ddf` and `ddf_up` have in common. With `norms`, raw filters are normalised on the way, for inference."""
    if combine not in COMBINATIONS:
        raise unknown("combine", combine, COMBINATIONS)
    geometry = Geometry(pair("kernel_size", kernel_size), pair("stride", stride), pair("dilation", dilation),
                        combine == "add", scale)
    lower = autocast_dtype(input)
    check(input, channel_filter, spatial_filter, geometry, any_dtype=lower is not None)
    if input.dim() == 3:
        return dynamic_filter(input[None], channel_filter, spatial_filter, kernel_size, stride, dilation,
                              combine=combine, scale=scale, norms=norms)[0]
    if lower is not None and input.dtype != torch.float64:
        input = input.to(lower)
    channel_filter, spatial_filter = (
        filter if filter is None or filter.shape[0] == input.shape[0] else filter.expand(input.shape[0], -1, -1, -1)
        for filter in (channel_filter, spatial_filter)
    )
    if not torch.compiler.is_compiling():
        geometry = within(geometry, input)
    if decomposes(input):
        if norms is not None:
            channel_filter, spatial_filter = norms.apply(channel_filter, spatial_filter, geometry.taps())
        summed = gathered_sum if torch.onnx.is_in_onnx_export() else None
        return reference.ddf(input, channel_filter, spatial_filter, geometry, summed)
    tensors = (input, channel_filter, spatial_filter)
    if norms is not None:
        return torch.ops.leanconv.ddf(*tensors, *geometry, *norms)
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        return DynamicFilter.apply(*tensors, *geometry)
    return torch.ops.leanconv.ddf(*tensors, *geometry)


def within(geometry: Geometry, input: Tensor) -> Geometry:
    """The same sums, with steps that end at the map: taps further off than it is large meet nothing but zeros."""
    kernel_size, stride, dilation, add, scale = geometry
    if max(*stride, *dilation) == 1:
        return geometry
    height, width = (max(size, 1) for size in input.shape[2:])
    return Geometry(kernel_size, (min(stride[0], height), min(stride[1], width)),
                    (min(dilation[0], height), min(dilation[1], width)), add, scale)


def autocast_dtype(input: Tensor) -> torch.dtype | None:
    """The dtype that a convolution of the input would be computed in under autocast, or None outside of it."""
    kind = input.device.type
    return torch.get_autocast_dtype(kind) if kind != "meta" and torch.is_autocast_enabled(kind) else None


def decomposes(input: Tensor) -> bool:
    """Whether the slices themselves run: for export, transforms, and in a compiled model where no kernel is faster."""
    if torch.compiler.is_exporting():
        return True
    if not torch.compiler.is_compiling():
        return transformed()
    from leanconv.ops.dynamic.tracing import has_kernel

    return not has_kernel(input.device.type, input.dtype)


def check(
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    geometry: Geometry,
    *,
    any_dtype: bool,
) -> None:
    """Raises ValueError or TypeError where the arguments don't fit together."""
    kernel_size, stride, dilation, _, scale = geometry
    if input.dim() not in (3, 4):
        raise ValueError(f"input must be (B, C, H, W) or (C, H, W), got shape {tuple(input.shape)}")
    if min(kernel_size) < 1 or not all(size % 2 for size in kernel_size):
        raise ValueError(f"kernel_size must be odd: an even kernel has no centre, got {kernel_size}")
    if min(*stride, *dilation, scale) < 1:
        raise ValueError(f"stride, dilation and scale must be at least 1, got {stride}, {dilation} and {scale}")
    if channel_filter is None and spatial_filter is None:
        raise ValueError("channel_filter or spatial_filter must be given, got None for both")
    batch = 1 if input.dim() == 3 else input.shape[0]
    channels, *size = input.shape[-3:]
    branches = scale * scale
    if channel_filter is not None:
        expected = (branches * channels, *kernel_size)
        fits = channel_filter.dim() == 4 and channel_filter.shape[1:] == expected
        if not fits or channel_filter.shape[0] not in (1, batch):
            raise ValueError(
                f"channel_filter must have shape {(batch, *expected)}, or batch 1, got {tuple(channel_filter.shape)}")
    if spatial_filter is not None:
        height, width = geometry.output_size(size)
        taps = branches * geometry.taps()
        filters = spatial_filter.shape[1] if spatial_filter.dim() == 4 else 0
        if (not filters or filters % taps or spatial_filter.shape[2:] != (height, width)
                or spatial_filter.shape[0] not in (1, batch)):
            raise ValueError(
                f"spatial_filter must have shape {(batch, f'{taps} · heads', height, width)}, or batch 1, "
                f"got {tuple(spatial_filter.shape)}".replace("'", ""))
        heads = filters // taps
        if channels % heads:
            raise ValueError(f"spatial_filter's heads must divide the channels, got {heads} heads, {channels} channels")
    if not input.is_floating_point():
        raise TypeError(f"input must hold real numbers, got {input.dtype}")
    wide = torch.promote_types(input.dtype, torch.float32)
    for name, filter in (("channel_filter", channel_filter), ("spatial_filter", spatial_filter)):
        if filter is None:
            continue
        if filter.dtype not in (input.dtype, wide) and not (any_dtype and filter.is_floating_point()):
            raise TypeError(f"{name} must be {input.dtype} as the input, or {wide}, got {filter.dtype}")
        if filter.device != input.device:
            raise ValueError(f"{name} must be on {input.device} as the input, got {filter.device}")
