"""ResNets with asymmetric convolution blocks (ACNet), which may start as timm's pretrained ResNets.

Ding, Guo, Ding & Han, "ACNet: Strengthening the Kernel Skeletons for Powerful CNN via Asymmetric Convolution Blocks",
ICCV 2019, arXiv 1908.03930, section 4.2.

Every 3x3 convolution of the residual blocks is an `AsymmetricConv2d`; the 7x7 stem and the 1x1 projections are plain.
All take `gamma_init` and `branches` as `AsymmetricConv2d` does. The multiply-accumulates named are those of training;
with the blocks fused, the networks cost what the plain ones do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from timm.models.resnet import default_cfgs as plain_cfgs
from torch import Tensor, nn

from leanconv.models.resnet import build_resnet, take_over
from leanconv.nn import AsymmetricConv2d
from leanconv.nn.arguments import of_conv
from leanconv.nn.asymmetric import BRANCHES

__all__ = ["AsymmetricBasicBlock", "AsymmetricBottleneck", "AsymmetricResNet"]


class AsymmetricBasicBlock(BasicBlock):
    """y = ReLU(x + acb(ReLU(acb(x)))): timm's basic block, both 3x3 and their norms an `AsymmetricConv2d`.

    Args:
        arguments, options: as timm's `BasicBlock` takes them.
        gamma_init, branches: as `AsymmetricConv2d` takes them.

    Raises:
        ValueError: for norms other than `nn.BatchNorm2d`, and where `AsymmetricConv2d` refuses its arguments.

    >>> list(AsymmetricBasicBlock(64, 64, branches=("square", "vertical")).conv1.branches)
    ['square', 'vertical']
    """

    conv1: Any
    conv2: Any
    bn1: Any
    bn2: Any

    def __init__(
        self, *arguments: Any, gamma_init: float = 1.0, branches: Sequence[str] = BRANCHES, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.conv1 = strengthened(self.conv1, self.bn1, gamma_init, branches)
        self.conv2 = strengthened(self.conv2, self.bn2, gamma_init, branches)
        self.bn1 = nn.Identity()
        self.bn2 = nn.Identity()

    def zero_init_last(self) -> None:
        """The block starts as its shortcut: the last norms, one of each branch, scale by 0."""
        for branch in self.conv2.branches.values():
            nn.init.zeros_(branch.norm.weight)


class AsymmetricBottleneck(Bottleneck):
    """y = ReLU(x + BN(conv₁(ReLU(acb(ReLU(BN(conv₁(x)))))))): timm's bottleneck, its 3x3 an `AsymmetricConv2d`.

    conv₁ is 1x1.

    Args and Raises: as for `AsymmetricBasicBlock`.
    """

    conv2: Any
    bn2: Any

    def __init__(
        self, *arguments: Any, gamma_init: float = 1.0, branches: Sequence[str] = BRANCHES, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.conv2 = strengthened(self.conv2, self.bn2, gamma_init, branches)
        self.bn2 = nn.Identity()


class AsymmetricResNet(ResNet):
    """timm's ResNet, of blocks that plain weights fit as well: see `checkpoint_filter_fn`."""


def strengthened(conv: nn.Conv2d, norm: nn.Module, gamma_init: float, branches: Sequence[str]) -> nn.Module:
    """The untrained layer in the place of a convolution and its norm."""
    return take_over(AsymmetricConv2d(**of_conv(conv), gamma_init=gamma_init, branches=branches), norm)


def checkpoint_filter_fn(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Weights for an asymmetric ResNet: its own, or those of timm's or torchvision's plain one.

    A plain convolution and its norm become the square branch. The row and the column keep the model's random weights,
    and their norms scale by 0: in eval mode and in train mode the network starts as the plain one, and learns the rest.

    Args:
        state: weights by name.
        model: the network that they are for.

    Raises:
        ValueError: for plain weights where the square branch is left out.
    """
    state = dict(state)
    if any(".branches." in name for name in state):
        return state
    for path, layer in model.named_modules():
        if isinstance(layer, AsymmetricConv2d):
            if "square" not in layer.branches:
                raise ValueError(f"branches must have 'square', which takes the trained weight, "
                                 f"got {tuple(layer.branches)}")
            move_to_branches(state, path, layer)
    return state


def move_to_branches(state: dict[str, Tensor], path: str, layer: AsymmetricConv2d) -> None:
    """Gives the weights of a plain convolution and its norm to the branches of the layer that replaces both.

    Args:
        state: a plain network's weights; those concerned get the names that the layer has for them.
        path: the layer's, and the plain convolution's: "layer1.0.conv2", whose norm is "layer1.0.bn2".
        layer: says what the row and the column start with.
    """
    block, _, number = path.rpartition("conv")
    plain = {"conv": path, "norm": f"{block}bn{number}"}
    for name, value in layer.state_dict().items():
        _, branch, part, entry = name.split(".")
        if branch != "square":
            state[f"{path}.{name}"] = (
                torch.zeros_like(value) if part == "norm" and entry in ("weight", "bias") else value
            )
        elif f"{plain[part]}.{entry}" in state:
            state[f"{path}.{name}"] = state.pop(f"{plain[part]}.{entry}")


def weights_of(name: str) -> dict[str, dict[str, Any]]:
    """What timm knows of each of the published weights of a plain ResNet, for the asymmetric one.

    >>> weights_of("resnet50")["ac_resnet50.tv_in1k"]["hf_hub_id"]
    'timm/resnet50.tv_in1k'
    """
    known = {}
    for tag in plain_cfgs[name].tags:
        fields = dataclasses.asdict(plain_cfgs[name].cfgs[tag])
        if fields["hf_hub_id"] == "timm/":  # timm would fill in the asymmetric network's name
            fields["hf_hub_id"] += f"{name}.{tag}"
        known[f"ac_{name}.{tag}"] = fields
    return known


default_cfgs = generate_default_cfgs(weights_of("resnet18") | weights_of("resnet50"))


@register_model
def ac_resnet18(pretrained: bool = False, **options: Any) -> nn.Module:
    """ACNet's ResNet-18: 19,028,520 parameters, 2.932 G multiply-accumulates; fused, 11,685,672 and 1.814 G."""
    return build_resnet("ac_resnet18", pretrained, options, AsymmetricBasicBlock, (2, 2, 2, 2), kind=AsymmetricResNet,
                        pretrained_filter_fn=checkpoint_filter_fn)


@register_model
def ac_resnet50(pretrained: bool = False, **options: Any) -> nn.Module:
    """ACNet's ResNet-50: 33,116,968 parameters, 5.322 G multiply-accumulates; fused, 25,553,256 and 4.089 G."""
    return build_resnet("ac_resnet50", pretrained, options, AsymmetricBottleneck, (3, 4, 6, 3), kind=AsymmetricResNet,
                        pretrained_filter_fn=checkpoint_filter_fn)
