"""Swapping: what changes, what stays, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import leanconv as lc
from leanconv.nn import TiedConv2d, TiedSE


class Shared(nn.Module):
    """One convolution under two names, one block under two names, and nested containers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.again = self.first
        self.block = nn.ModuleDict({"conv": nn.Conv2d(8, 8, 1)})
        self.nested = nn.ModuleList([nn.Sequential(self.block, nn.Sequential(nn.Conv2d(8, 8, 1)))])
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = self.again(self.first(self.stem(x)))
        return self.head(self.nested[0][1](self.block["conv"](x)).mean((2, 3)))


def test_shared_layers_are_swapped_once_and_stay_shared() -> None:
    model = Shared()
    plan = lc.plan(model, "tied", blocks=2)
    assert [choice.name for choice in plan.taken] == ["first", "block.conv", "nested.0.1.0"]
    swapped = lc.swap(model, plan)
    assert isinstance(swapped.first, TiedConv2d)
    assert swapped.first is swapped.again
    assert swapped.block["conv"] is swapped.nested[0][0]["conv"]
    assert swapped(torch.randn(2, 3, 5, 5)).shape == (2, 2)


def test_the_model_stays_as_it_was() -> None:
    model = Shared()
    before, keys = copy.deepcopy(model.state_dict()), list(model.state_dict())
    swapped = lc.swap(model, lc.plan(model, "tied"))
    assert list(model.state_dict()) == keys
    assert all(torch.equal(before[key], model.state_dict()[key]) for key in keys)
    assert type(model.first) is nn.Conv2d
    assert torch.equal(swapped.stem.weight, model.stem.weight)


def test_weights_are_carried_over_and_the_rest_is_untouched() -> None:
    model = Shared().eval()
    with torch.no_grad():
        for conv in (model.first, model.block["conv"], model.nested[0][1][0]):
            half = conv.weight[:4, :4].clone()
            conv.weight.zero_()
            conv.weight[:4, :4] = conv.weight[4:, 4:] = half
            conv.bias[4:] = conv.bias[:4]
    swapped = lc.swap(model, lc.plan(model, "tied", blocks=2))
    input = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(swapped(input), model(input))
    assert not any(module.training for module in swapped.modules())


def test_tied_se_on_a_network_of_ones_own() -> None:
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
            self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
            self.shortcut = nn.Sequential(nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16))

        def forward(self, x):
            out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
            out += self.shortcut(x)
            return out.relu_()

    model = nn.Sequential(nn.Conv2d(3, 16, 1), Residual(), Residual())
    plan = lc.plan(model, "tied-se", blocks=2, reduction=2, example=torch.randn(1, 3, 6, 6))
    assert [choice.name for choice in plan.taken] == ["1.bn2", "2.bn2"]
    swapped = lc.swap(model, plan).eval()
    assert isinstance(swapped[1].bn2[1], TiedSE)
    with torch.no_grad():
        for module in swapped.modules():
            if isinstance(module, TiedSE):
                module.expand.linear.weight.zero_()
                module.expand.linear.bias.fill_(40)
    input = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(swapped(input), model.eval()(input))


def test_a_fresh_model_keeps_the_spread_of_its_outputs() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(256, 128, 3, bias=False)
    model = nn.Sequential(nn.Conv2d(3, 256, 1), conv, nn.Flatten(), nn.Linear(128, 2))
    plan = lc.plan(model, "tied", blocks=4)
    input = torch.randn(8, 256, 9, 9)
    spread = {trained: lc.swap(model, plan, trained=trained)[1](input).std().item() for trained in (True, False)}
    assert spread[False] == pytest.approx(conv(input).std().item(), rel=0.05)
    assert spread[True] == pytest.approx(conv(input).std().item() / 4, rel=0.05)


def test_swapping_twice_takes_only_what_is_left() -> None:
    model = Shared()
    once = lc.swap(model, lc.plan(model, "tied", blocks=2, where="first"))
    plan = lc.plan(once, "tied", blocks=4)
    assert [choice.name for choice in plan.taken] == ["block.conv", "nested.0.1.0"]
    assert "TiedConv2d isn't exactly an nn.Conv2d" in next(c.skipped for c in plan.choices if c.name == "first")
    twice = lc.swap(once, plan)
    assert (twice.first.blocks, twice.block["conv"].blocks) == (2, 4)
    assert twice(torch.randn(2, 3, 5, 5)).shape == (2, 2)
    with pytest.raises(ValueError, match="takes none"):
        lc.swap(twice.first, lc.plan(twice.first, "tied", scope="all"))


def test_the_memory_format_of_the_weights_stays() -> None:
    model = Shared().to(memory_format=torch.channels_last)
    swapped = lc.swap(model, lc.plan(model, "tied", where="first"))
    assert swapped.first.weight.is_contiguous(memory_format=torch.channels_last)
    assert not swapped.first.weight.is_contiguous()


def test_a_layer_itself_can_be_the_model() -> None:
    conv = nn.Conv2d(4, 4, 1)
    assert isinstance(lc.swap(conv, lc.plan(conv, "tied", scope="all")), TiedConv2d)


def test_refusals() -> None:
    model = Shared()
    plan = lc.plan(model, "tied")
    with pytest.raises(ValueError, match=r"takes none of the model's 4 layers: .*stem"):
        lc.swap(model, lc.plan(model, "tied", blocks=64))
    with pytest.raises(ValueError, match=r"unknown layer in the plan 'first'"):
        lc.swap(nn.Sequential(nn.Conv2d(3, 8, 1)), plan)
    other = Shared()
    other.first = nn.Conv2d(8, 8, 1)
    with pytest.raises(ValueError, match=r"'first' must be 3x3 8→8 as in the plan, got 1x1 8→8"):
        lc.swap(other, plan)
    edited = lc.Plan.from_yaml(plan.to_yaml().replace("blocks: 2", "blocks: 3"))
    with pytest.raises(ValueError, match=r"'first' can't be swapped: .*blocks=3"):
        lc.swap(model, edited)
