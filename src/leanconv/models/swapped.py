"""A network after surgery, as timm builds it again: the network's name, its options, and the plans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
from timm.models import build_model_with_cfg, register_model
from torch import nn

from leanconv.models.create import SWAPPED
from leanconv.surgery import Plan, swap


@register_model
def leanconv_swapped(pretrained: bool = False, *, network: str, plans: Sequence[str], **options: Any) -> nn.Module:
    """A network whose convolutions were swapped: the architecture of a folder that `save` wrote with plans.

    Args:
        pretrained: load the weights of the folder.
        network: a name that timm knows.
        plans: what was swapped, one after the other, as YAML.
        options: further arguments of the network.
    """
    return build_model_with_cfg(build, SWAPPED, pretrained, network=network, plans=plans, **options)


def build(network: str, plans: Sequence[str], **options: Any) -> nn.Module:
    model = timm.create_model(network, **options)
    for plan in plans:
        model = swap(model, Plan.from_yaml(plan), trained=False)
    return model
