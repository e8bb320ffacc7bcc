"""Reading the arguments of a trained convolution, and refusing numbers that can't be."""

from __future__ import annotations

from typing import Any

from torch import nn


def of_conv(conv: nn.Conv2d) -> dict[str, Any]:
    """The arguments that built a convolution, under the names of `nn.Conv2d`'s constructor.

    Raises:
        TypeError: for anything but an `nn.Conv2d` itself: a subclass may compute something else.

    >>> of_conv(nn.Conv2d(4, 8, 3, padding="same"))["padding"]
    'same'
    """
    if type(conv) is not nn.Conv2d:
        raise TypeError(f"conv must be exactly an nn.Conv2d, got {name_of_type(conv)}")
    return {
        "in_channels": conv.in_channels,
        "out_channels": conv.out_channels,
        "kernel_size": conv.kernel_size,
        "stride": conv.stride,
        "padding": conv.padding,
        "dilation": conv.dilation,
        "groups": conv.groups,
        "bias": conv.bias is not None,
        "padding_mode": conv.padding_mode,
        "device": conv.weight.device,
        "dtype": conv.weight.dtype,
    }


def require_geometry(conv: nn.Conv2d) -> None:
    """Raises ValueError for a convolution that PyTorch builds but can't run.

    >>> require_geometry(nn.Conv2d(4, 8, 3, stride=0))
    Traceback (most recent call last):
    ValueError: stride must be at least 1, got (0, 0)
    """
    for name, least in (("kernel_size", 1), ("stride", 1), ("dilation", 1), ("padding", 0)):
        sizes = getattr(conv, name)
        if not isinstance(sizes, str) and min(sizes) < least:
            raise ValueError(f"{name} must be at least {least}, got {sizes}")


def require_positive(**numbers: int) -> None:
    """Raises ValueError for the first number that isn't a whole number of at least 1.

    >>> require_positive(blocks=0)
    Traceback (most recent call last):
    ValueError: blocks must be a whole number of at least 1, got 0
    """
    for name, number in numbers.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {number!r}")


def name_of_type(value: object) -> str:
    """The full name of a value's type.

    >>> name_of_type(nn.ReLU())
    'torch.nn.modules.activation.ReLU'
    """
    return f"{type(value).__module__}.{type(value).__qualname__}"
