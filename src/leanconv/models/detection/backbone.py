"""A network of feature maps and a feature pyramid on it, as torchvision's detectors want their backbone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, Self

from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from leanconv.errors import unknown
from leanconv.models.detection.feature_pyramid import Extra, FeaturePyramid, Upsample
from leanconv.models.detection.features import find_levels, listed
from leanconv.nn.arguments import require_positive

STRIDES = (4, 8, 16, 32)
NORMS = ("frozen", "batch", "sync")
Norms = Literal["frozen", "batch", "sync"]


class Backbone(nn.Module):
    """A network's feature maps, C2 to C5, through a `FeaturePyramid`.

    Stages are counted from the end: the last one is what C5 is made from besides C4, the fourth from the end all that
    C2 is made from, the stem included. A stage that isn't trained gets no gradients and its norms keep their
    statistics. Norms stay the modules they are, so `leanconv.swap` and `leanconv.fuse` work on `body` as on any other
    network.

    Args:
        body: returns feature maps at strides 4, 8, 16 and 32 (`feature_network`, or timm's `features_only=True`),
            swapped or not. It becomes a part of this module.
        strides: of the maps that the pyramid takes.
        channels, upsample, extra: as in `FeaturePyramid`.
        norms: "frozen": batch norms use their statistics, and neither these nor the weights ever change; "batch": they
            are trained as they are; "sync": they are made `nn.SyncBatchNorm`, whose batch is that of all processes.
        trainable_stages: how many stages are trained, from 0 to 4.

    Raises:
        ValueError: for unknown norms, a number of stages that can't be, or a network without maps at these strides.

    >>> import torch
    >>> from leanconv.models.detection import feature_network
    >>> backbone = Backbone(feature_network("resnet10t"), channels=16, norms="frozen", trainable_stages=3)
    >>> {name: tuple(map.shape) for name, map in backbone(torch.randn(1, 3, 64, 96)).items()}
    {'0': (1, 16, 16, 24), '1': (1, 16, 8, 12), '2': (1, 16, 4, 6), '3': (1, 16, 2, 3), 'pool': (1, 16, 1, 2)}
    """

    def __init__(
        self,
        body: nn.Module,
        *,
        strides: Sequence[int] = STRIDES,
        channels: int = 256,
        upsample: Upsample = "nearest",
        extra: Extra = "pool",
        norms: Norms = "batch",
        trainable_stages: int = len(STRIDES),
    ) -> None:
        super().__init__()
        if norms not in NORMS:
            raise unknown("norms", norms, NORMS)
        if trainable_stages not in range(len(STRIDES) + 1):
            raise ValueError(f"trainable_stages must be a whole number from 0 to 4, got {trainable_stages!r}")
        require_positive(channels=channels)
        levels = find_levels(body, STRIDES)
        taken = [level for level in levels if level.stride in strides]
        self.places = [level.index for level in taken]
        self.norms = norms
        self.body = convert_sync_batchnorm(body) if norms == "sync" else body
        self.fpn = FeaturePyramid([level.channels for level in taken], channels, upsample=upsample, extra=extra)
        self.out_channels = channels

        trained = frozenset[str]().union(*(level.weights for level in levels[len(STRIDES) - trainable_stages :]))
        for name, weight in self.body.named_parameters():
            if name not in trained:
                weight.requires_grad_(False)
        if norms == "frozen":
            for norm in batch_norms(self.body):
                norm.requires_grad_(False)
        self.train(self.training)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = listed(self.body(images))
        return self.fpn(OrderedDict((str(number), maps[place]) for number, place in enumerate(self.places)))

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`, but norms that aren't trained stay in evaluation mode."""
        super().train(mode)
        for norm in batch_norms(self.body):
            if self.norms == "frozen" or (norm.affine and not norm.weight.requires_grad):
                norm.eval()
        return self


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]
