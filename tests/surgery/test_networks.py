"""The whole way, plan to swap to fuse, on networks of many families."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import leanconv as lc
from leanconv.nn import TiedConv2d

timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")

# How many convolutions there are, how many the tied operator takes with two blocks, and how many norms are folded.
NETWORKS = {
    "resnet18": (20, 19, 20),
    "resnext50_32x4d": (53, 36, 53),
    "densenet121": (120, 119, 0),
    "efficientnet_b0": (81, 64, 0),
    "mobilenetv3_small_100": (53, 41, 0),
    "regnety_002": (70, 56, 0),
    "inception_v3": (94, 56, 0),
    "convnext_atto": (40, 24, 0),
    "seresnet18": (36, 35, 20),
    "hrnet_w18_small": (91, 90, 91),
    "resnest14d": (27, 20, 23),
    "tv vgg11_bn": (8, 7, 8),
    "tv googlenet": (57, 56, 57),
    "tv shufflenet_v2_x0_5": (56, 36, 56),
    "tv mobilenet_v2": (52, 34, 52),
    "tv squeezenet1_1": (26, 24, 0),
}


def network(name: str) -> nn.Module:
    if not name.startswith("tv "):
        return timm.create_model(name, num_classes=10)
    options = {"init_weights": False, "aux_logits": False} if name == "tv googlenet" else {}
    return getattr(torchvision.models, name[3:])(num_classes=10, **options)


@pytest.mark.parametrize("name", NETWORKS)
def test_plan_swap_and_fuse(name: str) -> None:
    torch.manual_seed(0)
    model = network(name).eval()
    example = torch.randn(1, 3, 96, 96)
    plan = lc.plan(model, "tied", blocks=2)
    convolutions, taken, folded = NETWORKS[name]
    assert (len(plan.choices), len(plan.taken)) == (convolutions, taken)
    assert lc.Plan.from_yaml(plan.to_yaml()) == plan
    lean = lc.swap(model, plan)
    assert sum(isinstance(module, TiedConv2d) for module in lean.modules()) == taken
    before, after = (sum(parameter.numel() for parameter in net.parameters()) for net in (model, lean))
    assert before - after == sum(choice.parameters - choice.becomes for choice in plan.taken)
    fused = lc.fuse(lean, example, tied="untie")
    assert fused.fusion.folded == folded
    assert fused.fusion.error < 1e-12
    with torch.no_grad():
        torch.testing.assert_close(fused(example), lean(example), rtol=1e-3, atol=1e-4)
