"""Each operator in its published scope: the layers that it takes, and the parameters that the papers' networks have."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import leanconv as lc
from leanconv.nn import DDF, AsymmetricConv2d, GhostConv2d, SplitConv2d
from leanconv.surgery import OPERATORS, parse_operator

timm = pytest.importorskip("timm")

IMAGE = torch.zeros(1, 3, 64, 64)
# Operator, network, layers taken, parameters after swapping; as published, or counted for the published definition.
PUBLISHED = [
    ("asymmetric", "resnet18", 16, 19_028_520),
    ("asymmetric", "resnet50", 16, 33_116_968),
    ("ghost:ratio=2", "resnet50", 52, None),
    ("ghost:ratio=4", "resnet50", 52, None),
    ("split:alpha=0.5", "resnet50", 16, 18_345_448),
    ("split:alpha=0.25", "resnet50", 16, None),
    ("split:alpha=0.125", "resnet50", 16, None),
    ("ddf", "resnet50", 16, 16_843_748),
    ("ddf", "resnet101", 33, 28_146_912),
    ("ddf:squeeze_ratio=0.5", "resnet18", 16, 7_691_032),
]
MILLIONS = {
    "ghost:ratio=2": 13.9535, "ghost:ratio=4": 8.1518, "split:alpha=0.25": 16.9308, "split:alpha=0.125": 16.2235,
}


@pytest.mark.parametrize(("operator", "name", "taken", "parameters"), PUBLISHED)
def test_published_scope(operator, name, taken, parameters) -> None:
    model = timm.create_model(name)
    plan = lc.plan(model, operator, example=IMAGE)
    assert len(plan.taken) == taken
    assert lc.Plan.from_yaml(plan.to_yaml()) == plan
    count = sum(parameter.numel() for parameter in lc.swap(model, plan).parameters())
    if parameters is None:
        assert round(count / 1e6, 4) == MILLIONS[operator]
    else:
        assert count == parameters


class Block(nn.Module):
    """A bottleneck or a basic block, with a norm after each convolution."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(8, 8, size, padding=size // 2, bias=False) for size in sizes])
        self.norms = nn.ModuleList([nn.BatchNorm2d(8) for _ in sizes])

    def forward(self, x):
        y = x
        for conv, norm in zip(self.convs[:-1], self.norms[:-1], strict=True):
            y = norm(conv(y)).relu()
        return (self.norms[-1](self.convs[-1](y)) + x).relu()


def small() -> nn.Sequential:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    model = nn.Sequential(stem, Block(1, 3, 1), Block(3, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 3), head)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return model.eval()


INPUT = torch.randn(2, 3, 9, 10, generator=torch.Generator().manual_seed(0))


def plan_of(operator: str, **options):
    return lc.plan(small(), operator, example=INPUT, **options)


def test_reasons() -> None:
    reasons = {name: {choice.name: choice.skipped for choice in plan_of(name).choices} for name in
               ("asymmetric", "ghost", "split", "ddf")}
    assert reasons["asymmetric"]["0.0"] is None, "a 3x3 stem is published as a block"
    assert reasons["asymmetric"]["1.convs.0"] == "its kernel is 1x1, not 3x3 or 5x5"
    assert reasons["asymmetric"]["4"] == "no norm alone takes its output, or it doesn't run just once"
    assert reasons["ghost"]["0.0"] is None
    assert reasons["ghost"]["3"] == "not dense: it has 8 groups"
    assert reasons["split"]["0.0"] == reasons["ddf"]["0.0"] == "stem: it reads the image"
    assert reasons["split"]["1.convs.1"] is None
    assert reasons["ddf"]["4"] == "a DDF pads by (1, 1) zeros, got padding=(0, 0), padding_mode='zeros'"
    assert {choice.name for choice in plan_of("ddf").taken} == {"1.convs.1", "2.convs.0", "2.convs.1"}


def test_an_asymmetric_block_starts_as_the_trained_pair_and_takes_the_place_of_its_norm() -> None:
    model, plan = small(), plan_of("asymmetric")
    swapped = lc.swap(model, plan)
    assert [choice.norm for choice in plan.taken] == ["0.1", "1.norms.1", "2.norms.0", "2.norms.1"]
    assert type(swapped[1].convs[1]) is AsymmetricConv2d
    assert type(swapped[1].norms[1]) is nn.Identity
    torch.testing.assert_close(swapped(INPUT), model(INPUT), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        swapped[1].convs[1].branches["horizontal"].conv.weight.normal_()
    torch.testing.assert_close(swapped(INPUT), model(INPUT), rtol=1e-4, atol=1e-5)


def test_ghosts_are_rectified_where_the_network_rectifies() -> None:
    plan = plan_of("ghost")
    assert {choice.name: choice.settings["activation"] for choice in plan.taken} == {
        "0.0": "relu", "1.convs.0": "relu", "1.convs.1": "relu", "1.convs.2": "none", "2.convs.0": "relu",
        "2.convs.1": "none"}
    swapped, model = lc.swap(small(), plan), small()
    assert type(swapped[0][0]) is GhostConv2d
    torch.testing.assert_close(swapped[0](INPUT)[:, :4], model[0](INPUT)[:, :4])
    assert "with 0.1 (activation=relu)" in str(plan)
    forced = lc.swap(small(), plan_of("ghost", activation="none"))
    assert (forced[0][0](INPUT) < 0).any()


def test_a_filter_without_a_1x1_after_it_gets_its_own() -> None:
    plan = plan_of("ddf")
    assert {choice.name: choice.settings["pointwise"] for choice in plan.taken} == {
        "1.convs.1": "never", "2.convs.0": "always", "2.convs.1": "always"}
    swapped = lc.swap(small(), plan)
    assert type(swapped[1].convs[1]) is DDF
    assert [type(layer) for layer in swapped[2].convs[0]] == [DDF, nn.Conv2d]
    assert swapped(INPUT).shape == (2, 2)
    widening = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3, 2, 1), nn.Conv2d(16, 16, 1), nn.Flatten(),
                             nn.Linear(16, 2))
    never = lc.plan(widening, "ddf:pointwise=never", example=torch.zeros(1, 3, 4, 4))
    assert "a DDF alone keeps the channels, got 8 in and 16 out" in {choice.skipped for choice in never.choices}
    always = lc.plan(widening, "ddf", example=torch.zeros(1, 3, 4, 4))
    assert lc.swap(widening, always)(torch.zeros(1, 3, 4, 4)).shape == (1, 2)


@pytest.mark.parametrize("operator", ["asymmetric", "ghost", "ghost:ratio=3", "split", "split:alpha=0.25", "ddf",
                                      "ddf:combine=add,heads=2", "tied"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("trained", [False, True])
def test_swap_train_and_fuse(operator, channels_last, trained) -> None:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    model, input = small().to(memory_format=memory_format), INPUT.contiguous(memory_format=memory_format)
    swapped = lc.swap(model, plan_of(operator), trained=trained).train()
    before = copy.deepcopy(swapped.state_dict())
    optimiser = torch.optim.SGD(swapped.parameters(), 0.05)
    for _ in range(3):
        optimiser.zero_grad()
        swapped(input).square().mean().backward()
        optimiser.step()
    assert all(parameter.grad is not None for parameter in swapped.parameters())
    moved = [name for name, parameter in swapped.named_parameters() if not torch.equal(parameter, before[name])]
    assert len(moved) > 0.8 * len(list(swapped.parameters()))
    fused = lc.fuse(swapped, input)
    assert fused.fusion.error < 1e-12
    swapped.eval()
    torch.testing.assert_close(fused(input), swapped(input), rtol=1e-4, atol=1e-5)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    if operator != "tied":  # what stays: the norm after a layer whose output no fixed factor can be folded into
        assert norms == {"split": 3, "ddf": 1}.get(operator.partition(":")[0], 0)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in swapped.modules()) == norms + fused.fusion.folded


UNPAIRED = "no norm alone takes its output, or it doesn't run just once"


@pytest.mark.parametrize(("operator", "reason"), [
    ("tied", "blocks · groups must divide in_channels, got blocks=2, groups=8, in_channels=8"),
    ("asymmetric", UNPAIRED), ("ghost", UNPAIRED),
    ("split", "groups must be 1, for the split is along all input channels, got 8"),
    ("ddf", "a DDF pads by (1, 1) zeros, got padding=(0, 0), padding_mode='zeros'"),
])
def test_scope_all_takes_what_it_can_build(operator, reason) -> None:
    plan = plan_of(operator, scope="all")
    assert lc.swap(small(), plan)(INPUT).shape == (2, 2)
    assert next(choice.skipped for choice in plan.choices if choice.name == "3") == reason
    assert next(choice.skipped for choice in plan.choices if choice.name == "1.convs.1") is None


@pytest.mark.parametrize("operator", ["asymmetric:gamma_init=0.5", "ghost", "split"])
def test_a_fresh_layer_has_the_manners_of_those_it_replaces(operator) -> None:
    model = small().to(memory_format=torch.channels_last)
    conv, norm = model[1].convs[1], model[1].norms[1]
    norm.eps, norm.momentum = 1e-3, 0.01
    torch.nn.init.constant_(norm.weight, 0.25)
    conv.weight.requires_grad_(False)
    layer = lc.swap(model, lc.plan(model, operator, example=INPUT, where="1.convs.1"), trained=False)[1].convs[1]
    norms = [part for part in layer.modules() if isinstance(part, nn.BatchNorm2d)]
    assert norms
    assert all(torch.equal(part.running_var, torch.ones(part.num_features)) for part in norms)
    assert not any(part.training for part in layer.modules())
    convolutions = [part for part in layer.modules() if isinstance(part, nn.Conv2d)]
    assert not any(part.weight.requires_grad for part in convolutions)
    assert any(part.weight.is_contiguous(memory_format=torch.channels_last) for part in convolutions)
    if operator != "split":  # its norms are inside of it, the network's own stays
        scale = 0.125 if "gamma_init" in operator else 0.25
        assert all((part.eps, part.momentum) == (1e-3, 0.01) for part in norms)
        assert all(torch.equal(part.weight, torch.full_like(part.weight, scale)) for part in norms)
    if operator == "ghost":
        assert layer.cheap.weight.std() > 0.1


def test_a_trained_pair_is_kept_whatever_the_scale_of_fresh_ones() -> None:
    model = small()
    swapped = lc.swap(model, plan_of("asymmetric", gamma_init=0.3))
    torch.testing.assert_close(swapped(INPUT), model(INPUT), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("operator", ["asymmetric", "ghost"])
def test_added_norms_stand_beside_those_that_follow(operator: str) -> None:
    model = small()
    plan = plan_of(operator, norms="add", scope="all")
    assert {choice.norm for choice in plan.choices} == {None}
    assert "3" in [choice.name for choice in plan.taken] or operator == "ghost", "no norm follows it"
    assert "4" in [choice.name for choice in plan.taken], "no norm follows it"
    swapped = lc.swap(model, lc.Plan.from_yaml(plan.to_yaml()))
    assert sum(type(module) is nn.BatchNorm2d for module in swapped.modules()) > 2 * len(plan.taken)
    assert type(swapped[0][1]) is nn.BatchNorm2d
    if operator == "asymmetric":
        torch.testing.assert_close(swapped(INPUT), model(INPUT), rtol=1e-4, atol=1e-5)
    fused = lc.fuse(swapped, INPUT)
    torch.testing.assert_close(fused(INPUT), swapped(INPUT), rtol=1e-3, atol=1e-4)


def test_planning_uses_no_random_numbers() -> None:
    model = small()
    for operator in OPERATORS:
        torch.manual_seed(5)
        lc.plan(model, operator, example=INPUT)
        number = torch.rand(())
        torch.manual_seed(5)
        assert number == torch.rand(()), operator


def test_a_convolution_with_hooks_is_left_alone() -> None:
    for operator in ("tied", "asymmetric", "ghost", "split", "ddf"):
        model = small()
        model[1].convs[1].register_forward_hook(lambda module, inputs, output: 2 * output)
        plan = lc.plan(model, operator, example=INPUT)
        assert "it has hooks" in next(choice.skipped for choice in plan.choices if choice.name == "1.convs.1")


def test_a_single_block_is_fused_too() -> None:
    layer = AsymmetricConv2d(4, 6, 3, padding=1).eval()
    fused = lc.fuse(layer, torch.randn(1, 4, 5, 5))
    assert type(fused) is nn.Conv2d


def test_a_plan_edited_by_hand_needs_the_norm() -> None:
    plan = plan_of("asymmetric")
    with pytest.raises(ValueError, match=r"'1.convs.1' can't be swapped: no norm alone takes its output"):
        lc.swap(small(), lc.Plan.from_yaml(plan.to_yaml().replace("  norm: 1.norms.1\n", "")))
    with pytest.raises(ValueError, match=r"each norm of a plan must be one layer's, got '2.norms.0' for several"):
        lc.swap(small(), lc.Plan.from_yaml(plan.to_yaml().replace("1.norms.1", "2.norms.0")))
    with pytest.raises(ValueError, match=r"unknown norm in the plan 'norms'"):
        lc.swap(small(), lc.Plan.from_yaml(plan.to_yaml().replace("1.norms.1", "norms")))


@pytest.mark.parametrize(("text", "message"), [
    ("ghost:ratio=0", "ratio must be a whole number of at least 1, got 0"),
    ("asymmetric:norms=keep", "norms .*'keep'.*replace"),
    ("ghost:activation=gelu", "'gelu'.*'relu'"),
    ("split:alpha=-1", "alpha must be a number above 0, got -1"),
    ("split:alpha=true", "alpha must be a number above 0, got 'true'"),
    ("split:alpha=inf", "alpha must be a number above 0, got inf"),
    ("tied:blocks=[", r"blocks must be a whole number of at least 1, got '\['"),
    ("ddf:combine=max", "'max'.*'mul'"),
    ("asymmetric:gamma=1", "'gamma_init'"),
])
def test_bad_settings(text, message) -> None:
    with pytest.raises(ValueError, match=message):
        parse_operator(text)


@pytest.mark.parametrize(("operator", "message"), [("ghost", "activation .* relu or none"),
                                                   ("ddf", "pointwise .* always or never")])
def test_what_a_plan_settles_must_stay_settled(operator, message) -> None:
    plan = plan_of(operator)
    edited = replace(plan, choices=tuple(replace(choice, settings={}) for choice in plan.choices))
    with pytest.raises(ValueError, match=f"{message}, got 'auto'"):
        lc.swap(small(), edited)


def test_norms_without_statistics_stay_as_they_are() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False), nn.ReLU())
    image = torch.randn(2, 3, 6, 6)
    swapped = lc.swap(model, lc.plan(model, "asymmetric", example=image)).eval()
    fused = lc.fuse(swapped, image)
    assert fused.fusion.layers["0"] == "unchanged: its norms keep no running statistics"
    assert not lc.plan(model, "ghost", example=image).taken


def test_settings_that_no_layer_can_take_leave_reasons() -> None:
    plan = plan_of("split", alpha=1.5)
    assert not plan.taken
    assert any("alpha" in choice.skipped and "1.5" in choice.skipped for choice in plan.choices)
    assert not plan_of("ddf", heads=3).taken
    with pytest.raises(ValueError, match="heads"):
        lc.swap(small(), plan_of("ddf", heads=3))


def test_layers_swapped_already_are_left_alone() -> None:
    for operator in OPERATORS:
        if operator == "tied-se":
            continue
        swapped = lc.swap(small(), plan_of(operator))
        names = {type(layer) for layer in (DDF, SplitConv2d, GhostConv2d, AsymmetricConv2d)}
        again = lc.plan(swapped, "tied", example=INPUT, scope="all")
        assert not any(type(swapped.get_submodule(choice.name)) in names for choice in again.taken)
        assert not any(".primary" in choice.name or "branch" in choice.name for choice in again.choices)
