"""Split convolution (SPConv): rich filters for some of the input channels, 1x1 filters for the redundant rest.

Zhang et al., "Split to Be Slim: An Overlooked Redundancy in Vanilla Convolution", IJCAI 2020, arXiv 2006.12085.
"""

from __future__ import annotations

import copy
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from leanconv.nn.arguments import of_conv, require_geometry, require_positive
from leanconv.ops.split import fuse_by_means, pointwise, window_centres
from leanconv.ops.tied import Size, pair


class SplitConv2d(nn.Module):
    """A convolution split by input channels: n = α·C representative ones and the redundant rest (SPConv).

        y₁ = BN₁(GWC(x₁) + PWC(P x₁)),  y₂ = BN₂(W₂ P x₂),  y = β·y₁ + (1 − β)·y₂,  β = σ(mean y₁ − mean y₂)

    for each image and channel, where x₁ is the first n channels, GWC a grouped k x k convolution, PWC and W₂ are 1x1,
    and both paths make all output channels. P is what the windows' centres see, averaged over the stride
    (`leanconv.ops.split.window_centres`). With α = 1 nothing is redundant and y = y₁.

    It takes (α·k²/group_count + 1)·C·O multiply-accumulates a pixel instead of k²·C·O. The norms are its own: the
    network's norm still follows.

    Args:
        in_channels, out_channels: C and O.
        kernel_size: odd, as windows need a centre.
        stride, padding, dilation, padding_mode, device, dtype: as in `nn.Conv2d`.
        groups: 1 only: the split is along all input channels.
        bias: whether the redundant 1x1 has a bias, as published. BN₂ takes it out again; with α = 1 there is none.
        alpha: α in (0, 1], the share of channels that are representative, rounded down to whole channels.
        group_count: the groups of GWC; must divide n and out_channels. The paper has 2.

    Shape:
        (N, C, H, W) or (C, H, W) to (N, O, Ho, Wo) or (O, Ho, Wo), of `nn.Conv2d`'s size.

    Raises:
        ValueError: for α outside (0, 1], an even kernel, groups, group_count not dividing the channels, no channel
            left for the representative part, or what `nn.Conv2d` refuses.

    >>> layer = SplitConv2d(16, 32, 3, stride=2, padding=1, alpha=0.25)
    >>> layer(torch.randn(2, 16, 7, 7)).shape, layer.representative_channels
    (torch.Size([2, 32, 4, 4]), 4)
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
        alpha: float = 0.5,
        group_count: int = 2,
    ) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, out_channels=out_channels, group_count=group_count)
        representative = representative_share(in_channels, alpha)
        check(out_channels, pair("kernel_size", kernel_size), groups, alpha, group_count, representative)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.alpha = alpha
        self.group_count = group_count
        self.representative_channels = representative
        where = {"device": device, "dtype": dtype}
        self.grouped = nn.Conv2d(
            representative, out_channels, kernel_size, stride, padding, dilation,  # type: ignore[arg-type]
            group_count, False, padding_mode, **where,
        )
        require_geometry(self.grouped)
        self.pointwise = nn.Conv2d(representative, out_channels, 1, bias=False, **where)
        redundant = in_channels - representative
        self.redundant: nn.Conv2d | None = None
        if redundant:
            self.redundant = nn.Conv2d(redundant, out_channels, 1, bias=bias, **where)
        self.representative_norm: Any = nn.BatchNorm2d(out_channels, **where)
        self.redundant_norm: Any = nn.BatchNorm2d(out_channels, **where) if redundant else None

    @property
    def folded(self) -> bool:
        """Whether this is what `fused()` gave: its norms are in its convolutions."""
        return isinstance(self.representative_norm, nn.Identity)

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in (3, 4) or input.shape[-3] != self.in_channels:
            raise ValueError(
                f"input must be (N, C, H, W) or (C, H, W) with C = {self.in_channels}, got shape {tuple(input.shape)}"
            )
        if input.dim() == 3:
            return self.forward(input[None])[0]
        size, conv = self.representative_channels, self.grouped
        wide, _, high, _ = conv._reversed_padding_repeated_twice
        chosen = input[:, :size]
        # In channels_last, oneDNN may read past the end of a single channel (5x5 kernels with a stride).
        grouped = conv(chosen.contiguous() if size == 1 else chosen)
        centres = window_centres(input, conv.kernel_size, conv.stride, (high, wide), conv.dilation, conv.padding_mode)
        representative = pointwise(centres[:, :size], self.pointwise.weight).add_(grouped)
        if self.redundant is None:
            return self.representative_norm(representative)
        redundant = pointwise(centres[:, size:], self.redundant.weight, self.redundant.bias)
        if self.folded:
            return fuse_by_means(representative, redundant, inplace=True)
        return fuse_by_means(self.representative_norm(representative), self.redundant_norm(redundant))

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, *, alpha: float = 0.5, group_count: int = 2) -> Self:
        """The layer nearest to a convolution that can be told without data; train it afterwards.

        What is preserved: the bias, exactly, as the shift of both norms (their shares sum to 1); the filters within the
        groups of the representative channels, exactly. All other filters become 1x1: by least squares for maps whose
        neighbouring pixels correlate by 1/2 (see `nearest_pointwise`). Both norms double their path in eval mode, for
        a share is about 1/2, and keep the strengths of its channels in training as they'd be for white inputs.
        What is lost: the shape of those other filters, and equal shares where the paths' means differ.

        Raises:
            TypeError: when `conv` isn't exactly an `nn.Conv2d`.
            ValueError: what the constructor refuses.

        >>> conv, input = nn.Conv2d(4, 6, 3).eval(), torch.randn(1, 4, 5, 5)
        >>> layer = SplitConv2d.from_conv(conv, alpha=1, group_count=1)
        >>> torch.allclose(layer(input), conv(input), atol=1e-6)
        True
        """
        layer = cls(**of_conv(conv) | {"bias": True}, alpha=alpha, group_count=group_count).train(conv.training)
        if not conv.weight.is_contiguous():
            layer = layer.to(memory_format=torch.channels_last)
        size = layer.representative_channels
        with torch.no_grad():
            light = nearest_pointwise(conv.weight, pair("stride", conv.stride), pair("dilation", conv.dilation))
            layer.grouped.weight.copy_(within_groups(conv.weight[:, :size], group_count).movedim(-1, 0).flatten(0, 1))
            layer.pointwise.weight.copy_(light[:, :size])
            within_groups(layer.pointwise.weight, group_count).zero_()
            paths = [(layer.representative_norm, [layer.grouped, layer.pointwise])]
            if layer.redundant is not None:
                layer.redundant.weight.copy_(light[:, size:])
                nn.init.zeros_(layer.redundant.bias)  # type: ignore[arg-type]
                paths.append((layer.redundant_norm, [layer.redundant]))
            for norm, parts in paths:
                norm.running_var.copy_(sum(part.weight.square().sum((1, 2, 3)) for part in parts))
                norm.weight.copy_(len(paths) * (norm.running_var + norm.eps).sqrt())
                if conv.bias is not None:
                    norm.bias.copy_(conv.bias)
        return layer.requires_grad_(conv.weight.requires_grad)

    def fused(self) -> Self:
        """A copy for inference whose norms are folded, in float64, into its convolutions.

        BN₁ scales the grouped and the 1x1 filters, its shift becomes the bias of the grouped convolution alone; BN₂
        goes into the redundant 1x1. The fusion depends on the image and stays, but needs no maps of its own any more.

        Raises:
            ValueError: in training mode or for a norm without running statistics: both go by the batch's.
        """
        if any(module.training for module in self.modules()):
            raise ValueError("fused() needs the layer and its norms in eval mode; call eval() first")
        layer = copy.deepcopy(self)
        if self.folded:
            return layer
        fold(layer.representative_norm, layer.grouped, layer.pointwise)
        layer.representative_norm = nn.Identity()
        if layer.redundant is not None:
            fold(layer.redundant_norm, layer.redundant)
            layer.redundant_norm = nn.Identity()
        return layer.eval()

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, alpha={self.alpha}, group_count={self.group_count}"


def representative_share(channels: int, alpha: float) -> int:
    """How many channels are representative: ⌊α·C⌋, of the exact product, not of 0.29 · 100 = 28.999999999999996.

    >>> representative_share(100, 0.29)
    29
    """
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha <= 1:
        raise ValueError(f"alpha must be a number above 0 and at most 1, got {alpha!r}")
    return int(round(alpha * channels, 6))


def check(
    out_channels: int, kernel_size: tuple[int, int], groups: int, alpha: float, group_count: int, representative: int
) -> None:
    """Raises ValueError for what the layer can't be built of."""
    if groups != 1:
        raise ValueError(f"groups must be 1, for the split is along all input channels, got {groups}")
    if kernel_size[0] % 2 == 0 or kernel_size[1] % 2 == 0:
        raise ValueError(f"kernel_size must be odd, for windows need a centre, got {kernel_size}")
    if representative < 1 or representative % group_count:
        raise ValueError(f"group_count must divide the α·in_channels representative channels, of which there must be "
                         f"one at least; got group_count={group_count}, {representative} channels by alpha={alpha}")
    if out_channels % group_count:
        raise ValueError(
            f"group_count must divide out_channels, got group_count={group_count}, out_channels={out_channels}"
        )


def within_groups(weight: Tensor, groups: int) -> Tensor:
    """A view of the filters from each group of input channels to the same group of output channels, the groups last.

    >>> within_groups(torch.arange(8).view(4, 2), 2).movedim(-1, 0).flatten().tolist()
    [0, 2, 5, 7]
    """
    return weight.unflatten(1, (groups, -1)).unflatten(0, (groups, -1)).diagonal(dim1=0, dim2=2)


def nearest_pointwise(weight: Tensor, stride: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
    """The 1x1 filters whose outputs are nearest to a convolution's in the mean square.

    They read P x, x averaged over the stride from the windows' centres on. For maps whose pixels correlate by
    ρ^(rows + columns between them), ρ = 1/2: Σ_t W_t E[x_t·Px] / E[(Px)²], a product over the two axes. ρ = 0 would be
    the centre tap, ρ = 1 the sum of the taps; trained networks' maps lie between (docs/split.md).

    Args:
        weight: (O, C, kh, kw).
        stride, dilation: the convolution's.

    Returns:
        (O, C, 1, 1).

    >>> nearest_pointwise(torch.ones(1, 1, 1, 3), (1, 1), (1, 1)).item()
    2.0
    """
    axes = []
    for size, step, far in zip(weight.shape[2:], stride, dilation, strict=True):
        read = torch.arange(step, dtype=weight.dtype, device=weight.device)
        taps = far * (torch.arange(size, dtype=weight.dtype, device=weight.device) - size // 2)
        itself = 0.5 ** (read[:, None] - read).abs()
        axes.append((0.5 ** (taps[:, None] - read).abs()).mean(1) / itself.mean())
    return (weight * axes[0][:, None] * axes[1]).sum((2, 3), keepdim=True)


def fold(norm: nn.BatchNorm2d, *convolutions: nn.Conv2d) -> None:
    """Folds a norm into the convolutions whose sum it norms, in float64; the first one takes the shift."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError(f"fused() needs running statistics, got {norm}")
    double: Any = copy.deepcopy(norm).double()
    for conv in convolutions:
        weight, bias = fuse_conv_bn_weights(
            conv.weight.double(), None if conv.bias is None else conv.bias.double(), double.running_mean,
            double.running_var, double.eps, double.weight, double.bias,
        )
        dtype, trained = conv.weight.dtype, conv.weight.requires_grad
        conv.weight = nn.Parameter(weight.detach().to(dtype), trained)
        if conv is convolutions[0]:
            conv.bias = nn.Parameter(bias.detach().to(dtype), trained)
