"""What the CIFAR networks share: timm's interface, what timm knows of them, and the operator in their convolutions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import SelectAdaptivePool2d
from timm.models import build_model_with_cfg, checkpoint_seq
from torch import Tensor, nn

from leanconv import surgery
from leanconv.models.resnet import imagenet
from leanconv.surgery.sites import Where


class CifarNetwork(nn.Module):
    """A stem, blocks one after the other and a head, for images of any size, made for 32 × 32.

    A network registers its layers in the order in which they run, calls `add_head` at the end of its constructor, and
    says what its `stem`, its `blocks` and, where something follows those, its `tail` are.

    Args:
        num_classes: 0 leaves the classifier out.
        in_chans: channels of the images.
        drop_rate: dropout before the classifier.
    """

    global_pool: Any

    def __init__(self, num_classes: int, in_chans: int, drop_rate: float) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.grad_checkpointing = False
        self.feature_info: list[dict[str, Any]] = []

    def stem(self, images: Tensor) -> Tensor:
        """What reads the images."""
        raise NotImplementedError

    def blocks(self) -> list[nn.Module]:
        """What follows the stem."""
        raise NotImplementedError

    def tail(self, maps: Tensor) -> Tensor:
        """What follows the blocks."""
        return maps

    def add_head(
        self, channels: int, global_pool: str, pooled_size: int = 1, hidden_size: int | None = None
    ) -> None:
        """Adds pooling to a square of `pooled_size`, a hidden layer if it has a size, and the classifier."""
        self.num_features = channels
        self.head_hidden_size = hidden_size or channels
        self.pooled_size = pooled_size
        self.hidden: nn.Module = nn.Identity()
        if hidden_size:
            self.hidden = nn.Sequential(nn.Linear(channels * pooled_size**2, hidden_size), nn.ReLU())
        self.reset_classifier(self.num_classes, global_pool)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, images: Tensor) -> Tensor:
        """Images (N, in_chans, H, W) to the last maps (N, num_features, H', W')."""
        maps = self.stem(images)
        if self.grad_checkpointing and self.training:
            return self.tail(checkpoint_seq(self.blocks(), maps))
        for block in self.blocks():
            maps = block(maps)
        return self.tail(maps)

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        """Maps to class scores (N, num_classes), or to what the classifier reads; to maps where nothing is pooled."""
        features = self.global_pool(maps)
        if not self.global_pool.is_identity():
            features = self.hidden(features)
        features = F.dropout(features, self.drop_rate, self.training)
        return features if pre_logits else self.fc(features)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Puts in a new classifier, and another pooling when one is named.

        Raises:
            ValueError: for a pooling that changes the channels, where a hidden layer reads them.
        """
        pool = self.global_pool.pool_type if global_pool is None else global_pool
        pooling = SelectAdaptivePool2d(self.pooled_size, pool, flatten=bool(pool))
        if not isinstance(self.hidden, nn.Identity) and pooling.feat_mult() != 1:
            raise ValueError(f"global_pool must keep the number of channels, got {pool!r}")
        weight = next(self.parameters())
        self.num_classes = num_classes
        self.global_pool = pooling
        self.fc: nn.Module = nn.Identity()
        if num_classes:
            width = self.head_hidden_size * pooling.feat_mult()
            self.fc = nn.Linear(width, num_classes, device=weight.device, dtype=weight.dtype)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trades time for memory in training: keeps what goes into each block and computes the rest again."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Which parameters lie at which depth, for layer-wise learning rates in timm."""
        return {"stem": r"^conv1|bn1", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}


class PreActivationNetwork(CifarNetwork):
    """A 3x3 stem, three stages of ever smaller maps, a norm and a ReLU: for blocks that begin with a norm.

    Args:
        stages: each takes half the height and width of the one before it.
        widths: channels of the stem and of each stage.
        num_classes, in_chans, drop_rate: as for `CifarNetwork`.
        global_pool: how the last maps are pooled, a name of timm's: "avg", "max", "" (not at all) and others.
    """

    def __init__(
        self, stages: Sequence[nn.Sequential], widths: Sequence[int], num_classes: int, in_chans: int, global_pool: str,
        drop_rate: float,
    ) -> None:
        super().__init__(num_classes, in_chans, drop_rate)
        self.conv1 = nn.Conv2d(in_chans, widths[0], 3, padding=1, bias=False)
        self.layer1, self.layer2, self.layer3 = stages  # H × W, ⌈H/2⌉ × ⌈W/2⌉, ⌈H/4⌉ × ⌈W/4⌉
        self.norm = nn.Sequential(OrderedDict(bn=nn.BatchNorm2d(widths[3]), act=nn.ReLU(inplace=True)))
        self.feature_info = [
            {"num_chs": widths[1], "reduction": 1, "module": "layer1"},
            {"num_chs": widths[2], "reduction": 2, "module": "layer2"},
            {"num_chs": widths[3], "reduction": 4, "module": "norm"},
        ]
        self.add_head(widths[3], global_pool)

    def stem(self, images: Tensor) -> Tensor:
        return self.conv1(images)

    def blocks(self) -> list[nn.Module]:
        return [*self.layer1, *self.layer2, *self.layer3]

    def tail(self, maps: Tensor) -> Tensor:
        return self.norm(maps)


def unit(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    """ReLU(BN(conv(x))), of x's size."""
    return nn.Sequential(OrderedDict(
        conv=nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
        bn=nn.BatchNorm2d(out_channels),
        act=nn.ReLU(inplace=True),
    ))


def with_operator(network: CifarNetwork, operator: str, where: Where, scope: str) -> nn.Module:
    """The network with an operator in the layers that a plan takes, as papers train it: from scratch."""
    weight = next(network.parameters())
    example = torch.zeros(1, network.in_chans, 32, 32, device=weight.device, dtype=weight.dtype)
    plan = surgery.plan(network, operator, where=where, scope=scope, example=example)
    return surgery.swap(network, plan, trained=False)


def build(
    network: Callable[..., CifarNetwork],
    name: str,
    pretrained: bool,
    options: dict[str, Any],
    *,
    taps: int = 3,
    renamed: Callable[..., dict[str, Tensor]] | None = None,
) -> nn.Module:
    """Builds a registered network, as timm does, and with the operator that its options ask for.

    Args:
        network: builds the plain network of the other options.
        name: its name in timm.
        pretrained: load published weights.
        options: those of the network, of timm, and `operator`, `where` and `scope` as in `leanconv.plan`.
        taps: how many maps `features_only` gives.
        renamed: published weights under this network's names.

    Raises:
        ValueError: for an operator that doesn't exist or takes none of the layers, or what says where, without one.
    """

    def construct(
        operator: str | None = None, where: Where = None, scope: str = "published", **rest: Any
    ) -> nn.Module:
        if operator is not None:
            return with_operator(network(**rest), operator, where, scope)
        if where is not None or scope != "published":
            raise ValueError(f"where={where!r} and scope={scope!r} say where an operator goes, but operator is None")
        return network(**rest)

    return build_model_with_cfg(
        construct,
        name,
        pretrained,
        pretrained_filter_fn=renamed,
        feature_cfg={"out_indices": tuple(range(taps))},
        **options,
    )


def configuration(first_conv: str = "conv1", **others: Any) -> dict[str, Any]:
    """What timm knows of a network and, in `others`, of its weights."""
    ours = {"num_classes": 10, "input_size": (3, 32, 32), "pool_size": (8, 8), "crop_pct": 1.0,
            "interpolation": "bicubic", "first_conv": first_conv}
    return imagenet(**ours | others)
