"""Asymmetric convolution block (ACB): a convolution strengthened in training by a row and a column.

Ding, Guo, Ding & Han, "ACNet: Strengthening the Kernel Skeletons for Powerful CNN via Asymmetric Convolution Blocks",
ICCV 2019, arXiv 1908.03930.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import reduce
from typing import Any, Literal, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.errors import unknown
from leanconv.nn.arguments import name_of_type, of_conv, require_geometry, require_positive
from leanconv.ops.tied import Size, in_nchw, pair

BRANCHES = ("square", "horizontal", "vertical")


class Branch(nn.Module):
    """A convolution with a norm, whose kernel lies somewhere in a larger, square one.

    Args:
        conv: without a bias; it pads as far as both sides of the input need.
        norm: takes the convolution's output.
        place: empty columns left and right of the kernel in the square, and empty rows above and below it.
        margins: what is padded beyond the convolution's own padding, in the order of `place`; negative ones crop.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, place: Sequence[int], margins: Sequence[int]) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm
        self.place = tuple(place)
        self.more = tuple(max(0, margin) for margin in margins)
        self.crop = tuple(min(0, margin) for margin in margins)

    @property
    def frozen(self) -> bool:
        """Whether the norm goes by its running statistics: a scale and a shift, whatever the input."""
        return not self.norm.training and self.norm.running_mean is not None

    def forward(self, input: Tensor) -> Tensor:
        conv = self.conv
        for margins in (self.more, self.crop):  # one after the other: more may be cropped than the input has
            if any(margins):
                input = F.pad(input, margins)
        return self.norm(convolve(input, conv.weight, None, conv.padding, conv))

    def folded(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The kernel and the bias of a frozen branch: W' = s W, b' = β − s μ with s = γ / √(σ² + ε)."""
        norm = self.norm
        scale = (norm.running_var.to(dtype) + norm.eps).rsqrt()  # type: ignore[union-attr]
        if norm.weight is not None:
            scale = scale * norm.weight.to(dtype)
        bias = -scale * norm.running_mean.to(dtype)  # type: ignore[union-attr]
        if norm.bias is not None:
            bias = bias + norm.bias.to(dtype)
        return self.conv.weight.to(dtype) * scale[:, None, None, None], bias


class AsymmetricConv2d(nn.Module):
    """A k x k convolution that trains with a 1 x k and a k x 1 beside it, and deploys as the k x k alone (ACB).

    y = BN(F ∗ x) + BN(F̄ ∗ x) + BN(F̂ ∗ x), where the row F̄ and the column F̂ see the centre of F's window. In eval mode
    a norm is a scale and a shift, so all of it is one convolution whose kernel has the row and the column added to it
    (paper, equations 5 and 6): that is what it computes then, and what `fused` returns.

    The norms belong to the layer: no norm follows it. A branch whose kernel is as large as another's is left out, as
    the row is for a kernel of one row: a 1 x 1 has the square branch alone.

    Args:
        in_channels, out_channels, stride, padding, dilation, groups, padding_mode, device, dtype: as in `nn.Conv2d`.
        kernel_size: odd numbers.
        bias: False; the norms have shifts.
        gamma_init: what each norm scales by at first; the paper has 1, the authors' later CIFAR recipe 1/3.
        branches: those of "square", "horizontal" and "vertical" to train with.
        cross: the row of F in which F̄ lies and the column in which F̂ lies; the centre where it is None. The paper's
            border variant has the last of each.

    Shape:
        (N, C, H, W) or (C, H, W) to (N, O, Ho, Wo) or (O, Ho, Wo), of `nn.Conv2d`'s size.

    Raises:
        ValueError: for even kernels, a bias, unknown or no branches, a cross outside the kernel, or what `nn.Conv2d`
            refuses.

    >>> layer = AsymmetricConv2d(4, 8, 3, padding=1).eval()
    >>> input = torch.randn(1, 4, 5, 5)
    >>> torch.allclose(layer.fused()(input), layer(input), atol=1e-5)
    True
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
        bias: bool = False,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        gamma_init: float = 1.0,
        branches: Sequence[str] = BRANCHES,
        cross: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, out_channels=out_channels, groups=groups)
        if bias:
            raise ValueError(f"bias must be False, for each branch's norm has a shift, got {bias!r}")
        square = pair("kernel_size", kernel_size)
        if any(size < 1 or size % 2 == 0 for size in square):
            raise ValueError(f"kernel_size must be odd, for an even kernel has no centre, got {square}")
        plain = nn.Conv2d(in_channels, out_channels, square, stride, padding, dilation, groups, False,  # type: ignore[arg-type]
                          padding_mode, "meta", dtype)
        check(plain, branches, cross)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = square
        self.stride = plain.stride
        self.padding: Any = plain.padding
        self.dilation = pair("dilation", plain.dilation)
        self.groups = groups
        self.padding_mode = padding_mode
        self.surround = tuple(plain._reversed_padding_repeated_twice)
        self.branches = nn.ModuleDict()
        zeros = self.surround if padding_mode == "zeros" else (0, 0, 0, 0)
        for name, (kernel, place) in kernels(square, branches, cross).items():
            pads, margins = alignment(zeros, place, self.dilation)
            conv = nn.Conv2d(in_channels, out_channels, kernel, plain.stride, pads, plain.dilation, groups, False,  # type: ignore[arg-type]
                             "zeros", device, dtype)
            norm = nn.BatchNorm2d(out_channels, device=device, dtype=dtype)
            nn.init.constant_(norm.weight, gamma_init)
            self.branches[name] = Branch(conv, norm, place, margins)

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() == 3:
            return self.forward(input[None])[0]
        padding = (self.surround[2], self.surround[0])
        if self.padding_mode != "zeros":
            input, padding = padded(input, self.surround, self.padding_mode), (0, 0)
        branches = cast("list[Branch]", list(self.branches.values()))
        if not all(branch.frozen for branch in branches):
            return reduce(torch.add, (branch(input) for branch in branches))
        dtype = branches[0].conv.weight.dtype
        kernel, bias = self.folded(torch.promote_types(dtype, torch.float32))
        return convolve(input, kernel.to(dtype), bias.to(dtype), padding, self)

    def folded(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The kernel and the bias of the one convolution that frozen branches add up to, computed in `dtype`."""
        first, *others = cast("list[Branch]", list(self.branches.values()))
        kernel, bias = first.folded(dtype)
        if any(first.place):
            kernel = F.pad(kernel, first.place)
        for branch in others:
            part, shift = branch.folded(dtype)
            left, _, top, _ = branch.place
            kernel[:, :, top : top + part.shape[2], left : left + part.shape[3]] += part
            bias = bias + shift
        return kernel, bias

    @classmethod
    def from_conv(
        cls,
        conv: nn.Conv2d,
        norm: nn.BatchNorm2d,
        *,
        gamma_init: float = 0.0,
        branches: Sequence[str] = BRANCHES,
        cross: tuple[int, int] | None = None,
    ) -> Self:
        """A layer that starts as a trained convolution with its norm, in train mode too, and learns the rest.

        The square branch takes the weight and a copy of the norm, whose running mean takes the convolution's bias:
        (F ∗ x + b) − μ = F ∗ x − (μ − b). A norm that goes by its batch takes the mean off, and b with it. The row and
        the column start at random, and what comes of them is scaled by 0.

        Args:
            conv, norm: a convolution and the norm that takes its output.
            gamma_init: what the norms of the row and the column scale by at first; above 0 the start isn't equal.
            branches, cross: as for the layer.

        Raises:
            TypeError: when `conv` isn't exactly an `nn.Conv2d`, or `norm` exactly an `nn.BatchNorm2d`.
            ValueError: where their channels differ, the square branch is left out, or the layer can't be built.

        >>> conv, norm = nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)
        >>> layer, input = AsymmetricConv2d.from_conv(conv, norm), torch.randn(2, 4, 5, 5)
        >>> torch.allclose(layer(input), norm(conv(input)), atol=1e-5)
        True
        """
        arguments = of_conv(conv) | {"bias": False}
        if type(norm) is not nn.BatchNorm2d:
            raise TypeError(f"norm must be exactly an nn.BatchNorm2d, got {name_of_type(norm)}")
        if norm.num_features != conv.out_channels:
            raise ValueError(f"norm must have conv.out_channels={conv.out_channels} features, got {norm.num_features}")
        if "square" not in branches:
            raise ValueError(f"branches must have 'square', which takes the trained weight, got {tuple(branches)}")
        layer = cls(**arguments, gamma_init=gamma_init, branches=branches, cross=cross).train(conv.training)
        if not conv.weight.is_contiguous():
            layer = layer.to(memory_format=torch.channels_last)
        like = next(iter(norm.state_dict().values()), conv.weight)
        for branch in layer.branches.values():
            branch.norm = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, True,
                                         norm.running_mean is not None, like.device, like.dtype).train(norm.training)
            nn.init.constant_(branch.norm.weight, gamma_init)
            branch.requires_grad_(conv.weight.requires_grad)
        square: Any = layer.branches["square"]
        square.norm = copy.deepcopy(norm)
        with torch.no_grad():
            square.conv.weight.copy_(conv.weight)
            if conv.bias is not None and norm.running_mean is not None:
                square.norm.running_mean.sub_(conv.bias)
        return layer

    def fused(self) -> nn.Conv2d:
        """The same map as one `nn.Conv2d` with a bias, computed in float64: a plain layer's parameters and MACs.

        Raises:
            ValueError: in train mode, or where a norm keeps no running statistics: what it subtracts depends on the
                batch then.
        """
        if any(module.training for module in self.modules()):
            raise ValueError("fused() needs the layer and its norms in eval mode; call eval() first")
        untracked = [name for name, branch in self.branches.items() if not branch.frozen]
        if untracked:
            raise ValueError(f"fused() needs running statistics; the norm of {untracked[0]!r} keeps none")
        parameters = list(self.parameters())
        plain = nn.Conv2d(self.in_channels, self.out_channels, self.kernel_size, self.stride,  # type: ignore[arg-type]
                          self.padding, self.dilation, self.groups, True, self.padding_mode, parameters[0].device,
                          parameters[0].dtype).eval()
        if not all(parameter.is_contiguous() for parameter in parameters):
            plain = plain.to(memory_format=torch.channels_last)
        kernel, bias = self.folded(torch.float64)
        with torch.no_grad():
            plain.weight.copy_(kernel)
            plain.bias.copy_(bias)  # type: ignore[union-attr]
        return plain.requires_grad_(any(parameter.requires_grad for parameter in parameters))

    def extra_repr(self) -> str:
        return (f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
                f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}, "
                f"padding_mode={self.padding_mode!r}")


def check(plain: nn.Conv2d, branches: Sequence[str], cross: tuple[int, int] | None) -> None:
    """Raises ValueError for what a plain convolution would take and the asymmetric one doesn't."""
    require_geometry(plain)
    if isinstance(branches, str) or not branches:
        raise ValueError(f"branches must be some of {BRANCHES}, got {branches!r}")
    for name in branches:
        if name not in BRANCHES:
            raise unknown("branch", name, BRANCHES)
    height, width = plain.kernel_size
    places = [(row, column) for row in range(height) for column in range(width)]
    if cross is not None and (not isinstance(cross, tuple | list) or tuple(cross) not in places):
        raise ValueError(f"cross must be a row and a column of the {height} x {width} kernel, got {cross}")


def kernels(
    size: tuple[int, int], branches: Sequence[str], cross: tuple[int, int] | None
) -> dict[str, tuple[tuple[int, int], tuple[int, int, int, int]]]:
    """By branch, the size of its kernel and its place in the square; of two alike in size the first stays.

    >>> kernels((5, 3), ("horizontal", "vertical"), None)
    {'horizontal': ((1, 3), (0, 0, 2, 2)), 'vertical': ((5, 1), (1, 1, 0, 0))}
    >>> list(kernels((1, 3), BRANCHES, None)), list(kernels((1, 1), BRANCHES, None))
    (['square', 'vertical'], ['square'])
    """
    height, width = size
    row, column = (height // 2, width // 2) if cross is None else cross
    above_and_below, left_and_right = (row, height - 1 - row), (column, width - 1 - column)
    every = {
        "square": (size, (0, 0, 0, 0)),
        "horizontal": ((1, width), (0, 0, *above_and_below)),
        "vertical": ((height, 1), (*left_and_right, 0, 0)),
    }
    first: dict[tuple[int, int], str] = {}
    for name in BRANCHES:
        if name in branches:
            first.setdefault(every[name][0], name)
    return {name: every[name] for name in first.values()}


def alignment(
    surround: Sequence[int], place: Sequence[int], dilation: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """How a kernel's input is padded so that it stands at its place in the square's windows.

    A square pads by p; a kernel d rows into it needs d fewer. What both sides need, the convolution pads; the margins
    are the rest, below 0 where the kernel doesn't reach so far.

    Args:
        surround: the square's padding: left, right, top, bottom.
        place: what is empty of the square around the kernel, in the same order.

    >>> alignment((1, 1, 1, 1), (0, 0, 1, 1), (1, 1)), alignment((1, 1, 1, 1), (2, 0, 0, 0), (1, 1))
    (((0, 1), (0, 0, 0, 0)), ((1, 0), (-1, 1, 0, 0)))
    """
    left, right = (surround[side] - dilation[1] * place[side] for side in (0, 1))
    top, bottom = (surround[side] - dilation[0] * place[side] for side in (2, 3))
    rows, columns = max(0, min(top, bottom)), max(0, min(left, right))
    return (rows, columns), (left - columns, right - columns, top - rows, bottom - rows)


def padded(input: Tensor, surround: tuple[int, ...], mode: str) -> Tensor:
    """The input padded by its own values, in its memory format, which circular padding alone would lose."""
    output = F.pad(input, surround, mode=mode)
    return output.contiguous(memory_format=torch.channels_last) if input.stride(1) == 1 else output


def convolve(input: Tensor, weight: Tensor, bias: Tensor | None, padding: Any, conv: Any) -> Tensor:
    """A convolution whose output has the memory format of its input, whatever that of the weight."""
    if input.stride(1) != 1 and weight.stride(1) == 1:
        weight = in_nchw(weight)
    return F.conv2d(input, weight, bias, conv.stride, padding, conv.dilation, conv.groups)
