import csv
from typing import ClassVar

import pytest
import torch
from torch import nn

from leanconv.measure import device_name, profile


def models():
    return {"dense": nn.Conv2d(64, 64, 3, bias=False), "grouped": nn.Conv2d(64, 64, 3, bias=False, groups=4)}


def test_models_are_compared_with_the_first():
    result = profile(models(), (2, 64, 34, 34), rounds=3)
    dense, grouped = result.rows
    assert (dense.cost.params, grouped.cost.params) == (36_864, 9_216)
    assert (dense.cost.macs, grouped.cost.macs) == (2 * 36_864 * 1024, 2 * 9_216 * 1024)
    assert dense.timing.rounds == 3
    assert 0 < dense.timing.low_ms <= dense.timing.median_ms <= dense.timing.high_ms
    text = str(result)
    assert "params (k)" in text
    assert "36.86 ×1.00" in text
    assert "9.216 ×0.25" in text
    assert "18.87 ×0.25" in text
    assert "ms: median (quartiles) of 3 interleaved rounds." in text


def test_everything_that_bears_on_the_time_is_named():
    result = profile(models(), (2, 64, 5, 5), rounds=1, channels_last=True, dtype="bfloat16")
    line = str(result.setting)
    assert line in str(result)
    assert device_name("cpu") in line
    threads = f"{torch.get_num_threads()} thread"
    for fact in (threads, "2×64×5×5", "bfloat16", "channels_last", "inference", torch.__version__):
        assert fact in line
    assert "forward and backward" in str(profile(nn.Conv2d(1, 1, 1), (1, 1, 4, 4), training=True, latency=False))


class Spy(nn.Module):
    seen: ClassVar[list] = []

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3)

    def forward(self, input):
        weight = self.conv.weight
        formats = {tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (input, weight)}
        self.seen.append((formats, input.dtype, weight.dtype, self.training, torch.is_grad_enabled()))
        return self.conv(input)


@pytest.mark.parametrize("training", [False, True])
def test_weights_and_input_are_converted_for_the_timed_runs(training):
    model = Spy()
    Spy.seen.clear()
    profile(model, (1, 4, 6, 6), rounds=1, channels_last=True, dtype=torch.float64, training=training)
    # The layer count alone runs without gradients.
    assert [seen[:4] for seen in Spy.seen] == [({True}, torch.float64, torch.float64, training)] * len(Spy.seen)
    assert Spy.seen[-1][4] is training
    assert model.training
    assert model.conv.weight.is_contiguous()
    assert model.conv.weight.grad is None


def test_without_latency_nothing_is_timed():
    result = profile(models(), (1, 64, 5, 5), latency=False)
    assert [row.timing for row in result.rows] == [None, None]
    assert "ms" not in result.table().columns


def test_layers_break_a_model_down(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 8, 1, bias=False))
    table = profile({"net": model}, (1, 3, 10, 10), latency=False).layers("net")
    assert table.title == "net"
    assert [row[:3] for row in table.rows] == [
        ("0", "Conv2d", "1×8×10×10"),
        ("1", "Conv2d", "1×8×10×10"),
        ("total", "", ""),
    ]
    table.to_csv(tmp_path / "layers.csv")
    rows = list(csv.DictReader((tmp_path / "layers.csv").read_text().splitlines()))
    assert [row["MACs (k)"] for row in rows] == ["2.4", "6.4", "8.8"]
    assert [row["MACs %"] for row in rows] == ["27.3", "72.7", "100.0"]


def test_a_lone_model_goes_by_its_class():
    result = profile(nn.Conv2d(1, 1, 1), (1, 1, 4, 4), latency=False)
    assert result.rows[0].name == "Conv2d"
    assert "×1.00" not in str(result)
    assert result.layers().rows[0][0] == "(model)"


def test_models_without_cost_have_no_ratios_to_divide_by():
    assert "ReLU" in str(profile({"ReLU": nn.ReLU(), "conv": nn.Conv2d(1, 1, 1)}, (1, 1, 4, 4), latency=False))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="at least one model"):
        profile({})
    with pytest.raises(TypeError, match="got int for 'a'"):
        profile({"a": 3})
    with pytest.raises(ValueError, match="unknown model 'dens': did you mean 'dense'"):
        profile(models(), (1, 64, 5, 5), latency=False).layers("dens")
    with pytest.raises(ValueError, match="four positive whole numbers"):
        profile(models(), (64, 5, 5))
