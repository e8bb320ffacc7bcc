"""Plans: what is taken, what is skipped and why, and the round trip through YAML."""

from __future__ import annotations

import pytest
import torch
import yaml
from torch import nn

import leanconv as lc
from leanconv.surgery import format_operator, operator_names, parse_operator
from leanconv.surgery.sites import stage_of


class Subclassed(nn.Conv2d):
    """A convolution that may compute something else."""


class Network(nn.Module):
    """A bit of everything: stem, grouped, depthwise, large and odd-width convolutions, and a subclass."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.layer1 = nn.Sequential(nn.Conv2d(16, 32, 1), nn.Conv2d(32, 32, 3, padding=1, groups=32))
        self.layer2 = nn.Sequential(nn.Conv2d(32, 32, 5, padding=2), nn.Conv2d(32, 64, 3, groups=4))
        self.layer3 = nn.Sequential(nn.Conv2d(64, 9, 1), Subclassed(9, 64, 1), nn.Conv2d(64, 64, 3))
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        return self.fc(self.layer3(self.layer2(self.layer1(self.conv1(x)))).mean((2, 3)))


def skipped(plan) -> dict[str, str]:
    return {choice.name: choice.skipped for choice in plan.choices if choice.skipped}


def test_each_convolution_is_taken_or_has_its_reason() -> None:
    plan = lc.plan(Network(), "tied", blocks=2)
    assert [choice.name for choice in plan.taken] == ["layer1.0", "layer3.2"]
    reasons = skipped(plan)
    assert reasons["conv1"] == "stem: it reads the image"
    assert reasons["layer1.1"] == "not dense: it has 32 groups"
    assert reasons["layer2.0"] == "its kernel is 5x5, not 1x1 or 3x3"
    assert "blocks=2, groups=1, out_channels=9" in reasons["layer3.0"]
    assert "Subclassed isn't exactly an nn.Conv2d" in reasons["layer3.1"]
    assert len(plan.choices) == 8


def test_scope_all_takes_each_convolution_it_can() -> None:
    plan = lc.plan(Network(), "tied", scope="all", blocks=2)
    assert [choice.name for choice in plan.taken] == ["layer1.0", "layer2.0", "layer2.1", "layer3.2"]


def test_head_that_is_a_convolution_is_left_out() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 10, 1), nn.AdaptiveAvgPool2d(1))
    assert skipped(lc.plan(model, "tied"))["2"] == "head: it gives the class scores"


def test_deep_stem_is_left_out() -> None:
    stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    model = nn.Sequential(stem, nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 2))
    assert [choice.name for choice in lc.plan(model, "tied").taken] == ["1"]


def test_a_small_network_isnt_all_stem_and_a_backbone_has_no_head() -> None:
    features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    small = nn.ModuleDict({"features": features, "fc": nn.Linear(8, 2)})
    assert [choice.name for choice in lc.plan(small, "tied").taken] == ["features.2", "features.4"]
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    assert [choice.name for choice in lc.plan(backbone, "tied").taken] == ["2"]


@pytest.mark.parametrize(("where", "names"), [
    ("layer3.*", ["layer3.2"]),
    ({"kernel_size": 1}, ["layer1.0"]),
    ({"kernel_size": (3, 3)}, ["layer3.2"]),
    ({"stage": 1}, ["layer1.0"]),
    ({"min_channels": 20}, ["layer3.2"]),
    ({"name": "layer*", "min_channels": 16}, ["layer1.0", "layer3.2"]),
    (lambda name, module: module.out_channels == 32, ["layer1.0"]),
])
def test_where(where, names) -> None:
    plan = lc.plan(Network(), "tied", where=where)
    assert [choice.name for choice in plan.taken] == names
    left = {"layer1.0", "layer3.2"} - set(names)
    assert all(skipped(plan)[name].startswith("where: ") for name in left)


def test_counts_of_parameters() -> None:
    plan = lc.plan(Network(), "tied", blocks=4)
    (choice,) = [choice for choice in plan.choices if choice.name == "layer1.0"]
    assert (choice.parameters, choice.becomes) == (16 * 32 + 32, 4 * 8 + 8)
    assert "544 → 40 parameters" in str(plan)
    assert "2 of 8 layers taken" in str(plan)


def test_yaml_round_trip(tmp_path) -> None:
    plan = lc.plan(Network(), "tied:blocks=4", where="layer*")
    plan.save(tmp_path / "plan.yaml")
    assert lc.Plan.load(tmp_path / "plan.yaml") == plan


def test_a_plan_can_be_edited() -> None:
    text = lc.plan(Network(), "tied", blocks=2).to_yaml()
    edited = lc.Plan.from_yaml(text.replace("name: layer1.0\n", "name: layer1.0\n  settings: {blocks: 8}\n"))
    assert "(blocks=8)" in str(edited)
    model = lc.swap(Network(), edited)
    assert (model.layer1[0].blocks, model.layer3[2].blocks) == (8, 2)


def test_edits_by_hand_count() -> None:
    content = yaml.safe_load(lc.plan(Network(), "tied", blocks=2).to_yaml())
    (odd,) = [layer for layer in content["layers"] if layer["name"] == "layer3.0"]
    del odd["skipped"]
    edited = lc.Plan.from_yaml(yaml.safe_dump({**content, "operator": "tied:blocks=4", "settings": {}}))
    assert edited.settings == {"blocks": 4}
    assert len(edited.taken) == 3
    assert str(edited).splitlines()[-1] == "3 of 8 layers taken"
    with pytest.raises(ValueError, match=r"'layer3\.0' can't be swapped"):
        lc.swap(Network(), edited)


@pytest.mark.parametrize(("text", "message"), [
    ("operator: [", "YAML"),
    ("- 1", "keys operator, settings and layers"),
    ("{operator: tied, settings: {}, layers: [], more: 1}", "keys operator"),
    ("{operator: tide, settings: {}, layers: []}", "'tied'"),
    ("{operator: tied, settings: {block: 2}, layers: []}", "'blocks'"),
    ("{operator: tied, settings: {}, layers: [{name: conv1}]}", "name and a layer"),
    ("{operator: tied, settings: {}, layers: [{name: a, layer: b, skip: c}]}", "'skipped'"),
    ("{operator: tied, settings: {}, layers: 3}", "layers"),
    ("{operator: tied, settings: {}, layers: [{name: a, layer: b, settings: null}]}", "settings .* can't be None"),
])
def test_bad_yaml(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lc.Plan.from_yaml(text)


def test_operators_as_words() -> None:
    assert operator_names() == ["tied", "tied-se", "asymmetric", "ghost", "split", "ddf"]
    for text in ("tied", "tied:blocks=4", "tied-se:blocks=2,reduction=8"):
        assert format_operator(*parse_operator(text)) == text
    for text, message in (("tide", "did you mean 'tied'"), ("tied:block=2", "did you mean 'blocks'"),
                          ("tied:blocks", "NAME:SETTING=VALUE"), ("tied:", "NAME:SETTING"),
                          ("tied:blocks=2,blocks=4", "each setting once"), ("tied:blocks=0", "blocks .* got 0"),
                          ("tied:blocks=two", "blocks .* got 'two'")):
        with pytest.raises(ValueError, match=message):
            parse_operator(text)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="'published'"):
        lc.plan(Network(), "tied", scope="publish")
    with pytest.raises(ValueError, match="'min_channels'"):
        lc.plan(Network(), "tied", where={"min_channel": 3})
    with pytest.raises(TypeError, match=r"'stage' of where must be int, got '3'"):
        lc.plan(Network(), "tied", where={"stage": "3"})
    with pytest.raises(TypeError, match="where must be"):
        lc.plan(Network(), "tied", where=3)


def test_stages_as_models_name_them() -> None:
    names = {"layer4.1.conv2": 4, "stages.0.blocks.1.conv": 0, "features.denseblock3.denselayer2.conv1": 3,
             "stage2.0.branches.0": 2, "blocks.5.0.conv_pw": 5, "s3.b2.conv1": 3, "features.7": None}
    assert {name: stage_of(name) for name in names} == names


def test_tied_se_goes_to_the_end_of_residual_branches() -> None:
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.resnet18()
    plan = lc.plan(model, "tied-se", example=torch.randn(1, 3, 32, 32))
    assert [choice.name for choice in plan.taken] == [f"layer{s}.{b}.bn2" for s in (1, 2, 3, 4) for b in (0, 1)]
    assert {choice.layer for choice in plan.taken} == {f"BatchNorm2d {width}" for width in (64, 128, 256, 512)}
