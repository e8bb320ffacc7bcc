"""Ghost module: a few ordinary feature maps, and cheap depthwise copies of them for the rest.

Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020, arXiv 1911.11907.
"""

from __future__ import annotations

import copy
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from leanconv.nn.arguments import name_of_type, of_conv, require_geometry, require_positive
from leanconv.ops.ghost import ghost_tail
from leanconv.ops.ghost_fit import ghost_kernels
from leanconv.ops.tied import Size


class GhostConv2d(nn.Module):
    """A convolution with norm and activation that computes a ratio-th of its maps, and the others from those.

    With m = ⌈O / s⌉ intrinsic maps and a depthwise convolution Φ from each of them to s − 1 ghosts:

        Y' = φ(BN(X ∗ W'))          Y = (Y' ⊕ φ(BN(Φ(Y'))))[: O]            (⊕ concatenates channels)

    about an s-th of the parameters and multiply-accumulates. All intrinsic maps come first, then the ghosts, source by
    source; where s doesn't divide O, the last ghosts are cut. Weights are held by the children `primary`,
    `primary_norm`, `cheap` and `cheap_norm`, in the order and shapes of the published code, whose checkpoints load by
    position. `cheap` has the (fewer than s) filters of the ghosts that are cut, too: leaving them out would cost a copy
    of the intrinsic maps.

    Args:
        in_channels, out_channels: C and O.
        kernel_size, stride, padding, dilation, groups, padding_mode: as in `nn.Conv2d`, of the primary convolution;
            groups must divide m. The cheap one has stride 1 and pads with zeros.
        bias: False; the norms shift.
        device, dtype: as in `nn.Conv2d`.
        ratio: s; 1 is a plain convolution with norm and activation.
        cheap_kernel_size: d, odd.
        activation: φ, the class of a module, applied to both parts; None for none.

    Shape:
        (N, C, H, W) or (C, H, W) to (N, O, Ho, Wo) or (O, Ho, Wo), of `nn.Conv2d`'s size.

    Raises:
        ValueError: for a bias, an even cheap kernel, groups that don't divide m, or what `nn.Conv2d` refuses.
        TypeError: where `activation` isn't the class of a module.

    >>> layer = GhostConv2d(16, 32, 3, stride=2, padding=1)
    >>> layer(torch.randn(1, 16, 7, 7)).shape, layer.primary.weight.shape, layer.cheap.weight.shape
    (torch.Size([1, 32, 4, 4]), torch.Size([16, 16, 3, 3]), torch.Size([16, 1, 3, 3]))
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
        ratio: int = 2,
        cheap_kernel_size: int = 3,
        activation: type[nn.Module] | None = nn.ReLU,
    ) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, out_channels=out_channels, groups=groups, ratio=ratio,
                         cheap_kernel_size=cheap_kernel_size)
        intrinsic = -(-out_channels // ratio)
        if bias:
            raise ValueError(f"bias must be False, for the norms shift the output, got bias={bias!r}")
        if cheap_kernel_size % 2 == 0:
            raise ValueError(f"cheap_kernel_size must be odd, got {cheap_kernel_size}")
        if intrinsic % groups:
            raise ValueError(
                f"groups must divide the intrinsic maps ⌈out_channels / ratio⌉ = ⌈{out_channels} / {ratio}⌉ = "
                f"{intrinsic}, got groups={groups}"
            )
        if activation is not None and not (isinstance(activation, type) and issubclass(activation, nn.Module)):
            raise TypeError(f"activation must be the class of a module or None, got {activation!r}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.ratio = ratio
        self.primary = nn.Conv2d(
            in_channels, intrinsic, kernel_size, stride, padding, dilation,  # type: ignore[arg-type]
            groups, False, padding_mode, device, dtype,
        )
        require_geometry(self.primary)
        self.primary_norm: Any = nn.BatchNorm2d(intrinsic, device=device, dtype=dtype)
        ghosts = intrinsic * (ratio - 1)
        self.cheap: Any = None
        self.cheap_norm: Any = None
        if ghosts:
            self.cheap = nn.Conv2d(
                intrinsic, ghosts, cheap_kernel_size, 1, cheap_kernel_size // 2, groups=intrinsic, bias=False,
                device=device, dtype=dtype,
            )
            self.cheap_norm = nn.BatchNorm2d(ghosts, device=device, dtype=dtype)
        self.activation = (nn.Identity() if activation is None else activation()).to(device=device, dtype=dtype)

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in (3, 4) or input.shape[-3] != self.in_channels:
            raise ValueError(
                f"input must be (N, C, H, W) or (C, H, W) with C = {self.in_channels}, got shape {tuple(input.shape)}"
            )
        if input.dim() == 3:
            return self.forward(input[None])[0]
        layout = torch.channels_last if input.stride(1) == 1 else torch.contiguous_format
        return self.tail(self.primary_norm(self.primary(input))).contiguous(memory_format=layout)

    def tail(self, maps: Tensor) -> Tensor:
        """What follows the primary convolution and its norm."""
        if self.cheap is None:
            return self.activation(maps)
        if self.tail_is_plain:
            return ghost_tail(maps, self.cheap.weight, self.cheap.bias, self.out_channels,
                              relu=type(self.activation) is nn.ReLU)
        intrinsic = self.activation(maps)
        ghosts = self.activation(self.cheap_norm(self.cheap(intrinsic)))
        return torch.cat([intrinsic, ghosts[:, : self.out_channels - intrinsic.shape[1]]], 1)

    @property
    def tail_is_plain(self) -> bool:
        """Whether the tail is what `ghost_tail` knows: without a norm, and with ReLU or nothing."""
        return (type(self.cheap_norm) is nn.Identity and type(self.cheap) is nn.Conv2d
                and type(self.activation) in (nn.ReLU, nn.Identity))

    @classmethod
    def from_conv(
        cls,
        conv: nn.Conv2d,
        norm: nn.BatchNorm2d,
        *,
        ratio: int = 2,
        cheap_kernel_size: int = 3,
        activation: type[nn.Module] | None = nn.ReLU,
    ) -> Self:
        """The Ghost module nearest to activation(norm(conv(x))), without data.

        What is preserved: the first m output channels, exactly. Each ghost stands for the channel in its place: its
        cheap kernel is the least-squares fit of that channel's filter by its source's (`leanconv.ops.ghost_fit`), and
        it has that channel's mean and variance, as far as filters and norms tell. What the source doesn't know of the
        channel is lost. Between trained filters that is nearly all (docs/ghost.md has figures), so train afterwards.

        Raises:
            TypeError: when `conv` isn't exactly an `nn.Conv2d`, or `norm` an `nn.BatchNorm2d`.
            ValueError: for a convolution with groups (its first m filters see only the first groups), a norm of
                another width or without running statistics, or what the constructor refuses.

        >>> conv, norm, input = nn.Conv2d(4, 6, 3).eval(), nn.BatchNorm2d(6).eval(), torch.randn(1, 4, 5, 5)
        >>> layer = GhostConv2d.from_conv(conv, norm)
        >>> torch.allclose(layer(input)[:, :3], norm(conv(input)).relu()[:, :3], atol=1e-6)
        True
        """
        arguments = of_conv(conv) | {"bias": False}
        if type(norm) is not nn.BatchNorm2d:
            raise TypeError(f"norm must be exactly an nn.BatchNorm2d, got {name_of_type(norm)}")
        if norm.num_features != conv.out_channels or norm.running_mean is None:
            raise ValueError(f"norm must keep running statistics of the convolution's {conv.out_channels} channels, "
                             f"got {norm}")
        if conv.groups > 1:
            raise ValueError(f"groups must be 1: the first filters see only the first groups, got {conv.groups}")
        layer = cls(**arguments, ratio=ratio, cheap_kernel_size=cheap_kernel_size, activation=activation)
        layer.train(conv.training)
        if not conv.weight.is_contiguous():
            layer = layer.to(memory_format=torch.channels_last)
        with torch.no_grad():
            intrinsic = torch.arange(layer.primary.out_channels, device=conv.weight.device)
            layer.primary.weight.copy_(conv.weight[intrinsic])
            layer.primary_norm = channels_of(norm, intrinsic)
            if conv.bias is not None:
                layer.primary_norm.running_mean -= conv.bias[intrinsic]
            if layer.cheap is not None:
                replaced = len(intrinsic) + torch.arange(layer.cheap.out_channels, device=conv.weight.device)
                replaced = replaced.clamp(max=conv.out_channels - 1)  # for ghosts that are cut, any channel will do
                layer.cheap_norm = channels_of(norm, replaced)
                fit(layer, conv, norm, replaced)
        for part in (layer.primary, layer.cheap):
            if part is not None:
                part.weight.requires_grad_(conv.weight.requires_grad)
        return layer

    def fused(self) -> Self:
        """A copy for inference whose norms are folded into its convolutions, which get biases for it.

        Raises:
            ValueError: in training mode or for a norm without running statistics: both go by the batch's.
        """
        if any(module.training for module in self.modules()):
            raise ValueError("fused() needs the layer and its norms in eval mode; call eval() first")
        layer = copy.deepcopy(self)
        for conv, name in (("primary", "primary_norm"), ("cheap", "cheap_norm")):
            norm = getattr(layer, name)
            if norm is None or isinstance(norm, nn.Identity):
                continue
            if norm.running_mean is None:
                raise ValueError(f"fused() needs running statistics; {name} keeps none")
            setattr(layer, conv, folded(getattr(layer, conv), norm))
            setattr(layer, name, nn.Identity())
        return layer.eval()

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, ratio={self.ratio}"


def channels_of(norm: nn.BatchNorm2d, channels: Tensor) -> nn.BatchNorm2d:
    """A copy of a norm with only some of its channels."""
    part = copy.deepcopy(norm)
    part.num_features = len(channels)
    for tensor in (part.weight, part.bias, part.running_mean, part.running_var):
        if tensor is not None:
            tensor.data = tensor.data[channels]
    return part


def folded(conv: nn.Conv2d, norm: Any) -> nn.Conv2d:
    """A convolution with the norm after it folded in, computed in float64."""
    double = fuse_conv_bn_eval(copy.deepcopy(conv).double().eval(), copy.deepcopy(norm).double().eval())
    return double.to(conv.weight.dtype).requires_grad_(conv.weight.requires_grad)


def fit(layer: GhostConv2d, conv: nn.Conv2d, norm: Any, replaced: Tensor) -> None:
    """Sets the cheap kernels and the means of their norm, for ghosts in place of the channels `replaced`.

    A kernel is scaled to give the variance that the norm has for its channel. Where the source tells less than a
    hundredth of that, scaling would only make noise: the ghost stays near its mean.
    """
    mean, spread = norm_output(norm)
    source = torch.arange(len(replaced), device=replaced.device) // (layer.ratio - 1)
    kernels, means, correlation = ghost_kernels(
        conv.weight.double(), mean, spread, source, replaced, layer.cheap.kernel_size[0],
        conv.stride, conv.dilation,  # type: ignore[arg-type]
        copy.deepcopy(layer.activation).double(),
    )
    scale = (norm.running_var[replaced].double() + norm.eps).sqrt() / correlation.clamp(min=0.01)
    layer.cheap.weight.copy_((kernels * scale[:, None, None])[:, None])
    layer.cheap_norm.running_mean.copy_(means * scale)


def norm_output(norm: Any) -> tuple[Tensor, Tensor]:
    """The mean, and the standard deviation with the sign of the scale, of each channel that a norm puts out."""
    spread = (norm.running_var.double() / (norm.running_var.double() + norm.eps)).sqrt()
    if not norm.affine:
        return torch.zeros_like(spread), spread
    return norm.bias.double(), norm.weight.double() * spread
