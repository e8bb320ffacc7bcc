"""Every layer once: how to build it, what goes in, and its definition in the plainest form. A new one adds a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.nn import GlobalContext, SqueezeExcite, TiedConv2d, TiedGlobalContext, TiedLinear, TiedSE


@dataclass(frozen=True)
class Case:
    """A layer with arguments, its input's shape, its definition, its MACs, and arguments that it must refuse."""

    name: str
    build: Callable[..., nn.Module]
    shape: tuple[int, ...]
    reference: Callable[[Any, Tensor], Tensor]
    macs: int
    refuses: list[tuple[Callable[[], object], str]] = field(default_factory=list)

    @property
    def spatial(self) -> bool:
        """Whether the input is an image."""
        return len(self.shape) == 4

    def layer(self, **options: Any) -> nn.Module:
        """The layer with reproducible random weights, none of them zero."""
        torch.manual_seed(0)
        module = self.build(**options)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(torch.randn(parameter.shape) * 0.3)
        return module

    def input(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A reproducible random input."""
        return torch.randn(shape or self.shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def tied_conv(layer: TiedConv2d, input: Tensor) -> Tensor:
    conv, mode = layer.conv, layer.conv.padding_mode
    padding = conv.padding if mode == "zeros" else 0
    if mode != "zeros":
        input = F.pad(input, conv._reversed_padding_repeated_twice, mode=mode)
    outputs = []
    for group, filters in zip(input.chunk(conv.groups, -3), conv.weight.chunk(conv.groups), strict=True):
        index = len(outputs) // layer.blocks
        bias = None if conv.bias is None else conv.bias.chunk(conv.groups)[index]
        outputs += [F.conv2d(block, filters, bias, conv.stride, padding, conv.dilation)
                    for block in group.chunk(layer.blocks, -3)]
    return torch.cat(outputs, -3)


def tied_linear(layer: TiedLinear, input: Tensor) -> Tensor:
    return torch.cat([block @ layer.weight.T + layer.bias for block in input.chunk(layer.blocks, -1)], -1)


def squeeze_excite(layer: TiedSE, input: Tensor) -> Tensor:
    pooled = input.sum((-2, -1)) / (input.shape[-2] * input.shape[-1])
    hidden = tied_linear(layer.reduce, pooled).clamp(min=0)
    return input * (1 / (1 + torch.exp(-tied_linear(layer.expand, hidden))))[..., None, None]


def global_context(layer: TiedGlobalContext, input: Tensor) -> Tensor:
    scores = (input * layer.mask.weight[0]).sum(-3) + layer.mask.bias
    attention = scores.exp() / scores.exp().sum((-2, -1), keepdim=True)
    hidden = tied_linear(layer.reduce, (input * attention.unsqueeze(-3)).sum((-2, -1)))
    centred = hidden - hidden.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.norm.weight + layer.norm.bias
    return input + tied_linear(layer.expand, normed.clamp(min=0))[..., None, None]


def tied(*arguments: Any, **options: Any) -> partial[TiedConv2d]:
    return partial(TiedConv2d, *arguments, **options)


CASES = [
    Case("tied 3x3", tied(8, 12, 3, padding=1, blocks=2), (2, 8, 6, 7), tied_conv, 2 * 6 * 7 * 12 * 4 * 9, [
        (tied(8, 12, 3, blocks=3), r"blocks=3, groups=1, in_channels=8"),
        (tied(8, 12, 3, groups=4, blocks=2), r"blocks=2, groups=4, out_channels=12"),
        (tied(8, 12, 3, blocks=0), r"blocks .* got 0"),
        (tied(8, 12, 3, padding="half", blocks=2), r"half"),
        (tied(8, 12, 3, padding_mode="mirror", blocks=2), r"mirror"),
        (lambda: TiedConv2d(8, 12, 3, blocks=2)(torch.randn(2, 6, 5, 5)), r"= 8 channels, got 6 .*\(2, 6, 5, 5\)"),
        (lambda: TiedConv2d(8, 12, 3, blocks=2)(torch.randn(8, 5)), r"got shape \(8, 5\)"),
    ]),
    Case("tied 1x1", tied(8, 16, 1, blocks=4), (2, 8, 5, 6), tied_conv, 2 * 5 * 6 * 16 * 2),
    Case("tied strided", tied(8, 8, 3, 2, 1, bias=False, blocks=2), (2, 8, 7, 9), tied_conv, 2 * 4 * 5 * 8 * 4 * 9),
    Case("tied 1x1 strided", tied(8, 8, 1, 2, blocks=2), (2, 8, 7, 9), tied_conv, 2 * 4 * 5 * 8 * 4),
    Case("tied dilated", tied(6, 6, (3, 1), padding=(2, 0), dilation=(2, 3), blocks=3), (2, 6, 6, 5), tied_conv,
         2 * 6 * 5 * 6 * 2 * 3),
    Case("tied grouped", tied(16, 8, 3, padding=1, groups=2, blocks=2), (2, 16, 5, 5), tied_conv, 2 * 25 * 8 * 4 * 9),
    Case("tied grouped 1x1", tied(16, 8, 1, groups=2, blocks=2), (2, 16, 5, 5), tied_conv, 2 * 25 * 8 * 4),
    Case("tied reflect", tied(8, 8, 3, padding=1, padding_mode="reflect", blocks=2), (2, 8, 6, 5), tied_conv,
         2 * 6 * 5 * 8 * 4 * 9),
    Case("tied linear", partial(TiedLinear, 12, 8, blocks=2), (3, 12), tied_linear, 3 * 8 * 6, [
        (lambda: TiedLinear(12, 7, blocks=2), r"blocks=2, out_features=7"),
        (lambda: TiedLinear(12, 8, blocks=2)(torch.randn(3, 10)), r"= 12 features .* \(3, 10\)"),
    ]),
    Case("tied se", partial(TiedSE, 16, blocks=2, reduction=4), (2, 16, 5, 6), squeeze_excite, 2 * 2 * 4 * 8, [
        (lambda: TiedSE(16, blocks=3), r"blocks=3, in_features=16"),
        (lambda: TiedSE(16, reduction=0), r"reduction .* got 0"),
    ]),
    Case("se", partial(SqueezeExcite, 16, reduction=4), (2, 16, 5, 6), squeeze_excite, 2 * 2 * 4 * 16),
    Case("tied gcb", partial(TiedGlobalContext, 16, blocks=2), (2, 16, 5, 6), global_context,
         2 * (16 * 30 + 16 * 30 + 2 * 4 * 8), [
             (lambda: TiedGlobalContext(16, blocks=8), r"= 4, got blocks=8"),
             (lambda: TiedGlobalContext(16, ratio=0.01), r"ratio=0.01 of channels=16"),
    ]),
    Case("gcb", partial(GlobalContext, 16), (2, 16, 5, 6), global_context, 2 * (16 * 30 + 16 * 30 + 2 * 4 * 16)),
]


def gradients_of_one_process(name: str, rank: int, world: int) -> list[Tensor]:
    """The mean gradients of all processes' shares of a batch, computed in one process or by DDP over `world`."""
    case = next(case for case in CASES if case.name == name)
    layer = case.layer()
    shares = case.input(2 * world, *case.shape[1:]).chunk(world)
    if world > 1 and torch.distributed.is_initialized():
        parallel = nn.parallel.DistributedDataParallel(layer)
        parallel(shares[rank]).square().mean().backward()
    else:
        torch.stack([layer(share).square().mean() for share in shares]).mean().backward()
    return [parameter.grad for parameter in layer.parameters()]


def distributed_worker(rank: int, world: int, rendezvous: str, names: list[str], folder: str) -> None:
    """What each of the processes of the DDP test runs."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
    gradients = {name: gradients_of_one_process(name, rank, world) for name in names}
    torch.save(gradients, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
