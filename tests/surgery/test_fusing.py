"""Fusing: equal to the model, for the right pairs only, and provably so."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import leanconv as lc
from leanconv.nn import GhostConv2d, TiedConv2d
from leanconv.surgery import WeightRange, fusing


def randomise(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.normal_(module.bias)
    return model.eval()


class Tangle(nn.Module):
    """Convolutions and norms of which only some are pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, eps=1e-3))
        self.used_twice, self.norm_of_one = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.called_twice, self.norm_called_twice = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.plain_norm = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8, affine=False)
        self.no_affine = nn.Sequential(*self.plain_norm)
        self.no_statistics = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8, track_running_stats=False))
        self.activated = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.BatchNorm2d(8))

    def forward(self, x):
        x = self.pair(x).relu_()
        y = self.used_twice(x)
        x = self.norm_of_one(y) + y
        x = self.norm_called_twice(self.called_twice(x))
        x = self.norm_called_twice(self.called_twice(x))
        return self.activated(self.no_statistics(self.no_affine(x)))


def test_only_pairs_that_belong_to_each_other_are_folded() -> None:
    model = randomise(Tangle())
    input = torch.randn(2, 3, 8, 8)
    fused = lc.fuse(model, input)
    layers = fused.fusion.layers
    assert {name for name, text in layers.items() if "folded in" in text} == {"pair.0", "no_affine.0"}
    assert fused.fusion.folded == 2
    assert fused.fusion.kept == ()
    assert "no running statistics" in layers["no_statistics.0"]
    assert layers["activated.2"] == "unchanged: it follows no convolution alone"
    assert type(fused.pair[1]) is nn.Identity
    torch.testing.assert_close(fused(input), model(input), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["auto", "untie", "keep"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_tied_convolutions_with_a_norm(form: str, channels_last: bool) -> None:
    model = randomise(nn.Sequential(
        TiedConv2d(4, 16, 3, padding=1, bias=False, blocks=2), nn.BatchNorm2d(16), nn.ReLU(),
        TiedConv2d(16, 8, 1, blocks=4), nn.BatchNorm2d(8)))
    input = torch.randn(2, 4, 7, 7)
    if channels_last:
        model, input = model.to(memory_format=torch.channels_last), input.contiguous(memory_format=torch.channels_last)
    fused = lc.fuse(model, input, tied=form)
    types = [type(fused[index]) for index in (0, 1, 3, 4)]
    untied, kept = [nn.Conv2d, nn.Identity], [TiedConv2d, nn.BatchNorm2d]
    automatic = untied * 2 if channels_last else untied + kept
    assert types == {"auto": automatic, "untie": untied * 2, "keep": kept * 2}[form]
    if form != "keep":
        assert fused[0].groups == 2
    assert fused.fusion.error < 1e-14
    torch.testing.assert_close(fused(input), model(input), rtol=1e-5, atol=1e-5)
    if channels_last:
        assert fused(input).is_contiguous(memory_format=torch.channels_last)


def test_filters_that_outweigh_the_maps_stay_tied() -> None:
    model = randomise(nn.Sequential(nn.Conv2d(3, 64, 1), TiedConv2d(64, 64, 3, blocks=2), nn.BatchNorm2d(64)))
    for size, kept in ((6, True), (64, False)):
        fused = lc.fuse(model, torch.randn(1, 3, size, size))
        assert isinstance(fused[1], TiedConv2d) == kept
        assert ("stays tied" in fused.fusion.layers["1"]) == kept


def test_a_convolution_in_two_places_is_replaced_in_both() -> None:
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
            self.alias = self.conv

        def forward(self, x):
            return self.norm(self.alias(x))

    fused = lc.fuse(randomise(Twice()), torch.randn(1, 3, 4, 4))
    assert fused.conv is fused.alias
    assert fused.conv.bias is not None


def test_the_model_and_its_modes_stay() -> None:
    model = Tangle().train()
    model.pair.eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    lc.fuse(model, torch.randn(2, 3, 8, 8))
    assert [module.training for module in (model, model.pair, model.activated)] == [True, False, True]
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_wrong_fold_is_found(monkeypatch) -> None:
    right = fusing.folded

    def wrong(conv, norm):
        fused = right(conv, norm)
        fused.weight.mul_(1.0001)
        return fused

    monkeypatch.setattr(fusing, "folded", wrong)
    with pytest.raises(RuntimeError, match=r"differs: relative error .*e-0"):
        lc.fuse(randomise(Tangle()), torch.randn(2, 3, 8, 8))


class Answer(nn.Module):
    """A convolution and its norm, and what a function makes of both as the answer."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.conv, self.norm, self.answer = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), answer

    def forward(self, x):
        y = self.conv(x)
        return self.answer(self.norm(y), y)


def test_what_the_model_returns_itself_isnt_folded_away() -> None:
    model = randomise(Answer(lambda normed, y: {"normed": normed, "raw": y}))
    fused = lc.fuse(model, torch.randn(1, 3, 4, 4))
    assert fused.fusion.folded == 0
    model = randomise(Answer(lambda normed, y: (normed, normed * 1e-6)))
    assert lc.fuse(model, torch.randn(1, 3, 4, 4)).fusion.folded == 1


@pytest.mark.parametrize(("answer", "error", "message"), [
    (lambda normed, y: None, ValueError, "no real numbers"),
    (lambda normed, y: normed[:0], ValueError, "no real numbers"),
    (lambda normed, y: (normed, normed * float("nan")), RuntimeError, "relative error nan"),
])
def test_a_proof_of_nothing_is_none(answer, error, message) -> None:
    with pytest.raises(error, match=message):
        lc.fuse(randomise(Answer(answer)), torch.randn(1, 3, 4, 4))


def test_an_earlier_choice_of_form_can_be_repeated() -> None:
    model = randomise(nn.Sequential(*[layer for _ in range(3) for layer in
                                      (TiedConv2d(8, 8, 3, padding=1, blocks=2), nn.BatchNorm2d(8))]))
    fused = lc.fuse(model, torch.randn(1, 8, 6, 6), tied=["2"])
    assert fused.fusion.kept == ("2",)
    assert [isinstance(fused[index], TiedConv2d) for index in (0, 2, 4)] == [False, True, False]
    with pytest.raises(ValueError, match="unknown tied convolution '1': valid are '0', '2', '4'"):
        lc.fuse(model, torch.randn(1, 8, 6, 6), tied=["1"])


def test_the_ranges_of_weights_before_and_after() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4, eps=0), nn.Conv2d(4, 3, 1)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -5.0, 0.0, 2.0]).view(4, 1, 1, 1))
        model[1].running_var.copy_(torch.tensor([4.0, 0.25, 1.0, 0.64]))
    record = lc.fuse(model, torch.randn(1, 1, 4, 4)).fusion
    assert list(record.ranges) == ["0"]
    before, after = record.ranges["0"]
    assert before == WeightRange(largest=5.0, over_median=2.5, over_smallest=5.0)  # a channel of zeros doesn't count
    assert after == WeightRange(largest=10.0, over_median=4.0, over_smallest=20.0)
    assert record.ranges_table().rows == [["0", "5 → 10", "2.5× → 4.0×", "5.0× → 20.0×"]]


def test_the_ranges_of_layers_with_norms_of_their_own() -> None:
    model = randomise(nn.Sequential(GhostConv2d(4, 8, 3), TiedConv2d(8, 8, 3, blocks=2), nn.BatchNorm2d(8)))
    fused = lc.fuse(model, torch.randn(1, 4, 9, 9), tied="untie")
    assert list(fused.fusion.ranges) == ["0", "1"]
    _, after = fused.fusion.ranges["1"]
    peaks = fused[1].weight.abs().amax((1, 2, 3))
    assert after.largest == peaks.max()
    assert after.over_smallest == pytest.approx(float(peaks.max() / peaks.min()))


def test_example_is_made_up_from_the_model() -> None:
    timm = pytest.importorskip("timm")
    fused = lc.fuse(timm.create_model("test_resnet.r160_in1k"))
    assert fused.fusion.folded == 15
    assert fused.fusion.error < 1e-12


def test_refusals() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    with pytest.raises(ValueError, match=r"example .* \(1, 5, 4, 4\)"):
        lc.fuse(model, torch.randn(1, 5, 4, 4))
    with pytest.raises(ValueError, match=r"'untie'"):
        lc.fuse(model, tied="untied")
    with pytest.raises(ValueError, match=r"without an nn.Conv2d"):
        lc.fuse(nn.Linear(2, 2))
