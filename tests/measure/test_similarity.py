import copy
import math
import warnings
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from measure.small_network import images, network
from torch import nn

from leanconv.measure import (
    LayerSimilarity,
    filter_similarity,
    guided_backprop,
    map_similarity,
    peak_memory,
    weight_similarity,
)
from leanconv.measure import similarity as module
from leanconv.measure.observing import observe, recording
from leanconv.measure.patterns import QuickGuidance
from leanconv.nn import DDF, AsymmetricConv2d, GhostConv2d, SplitConv2d, TiedConv2d


def cosine_loop(vectors):
    return torch.tensor([[F.cosine_similarity(a.flatten(), b.flatten(), 0) for b in vectors] for a in vectors])


def expected_patterns(model, depth, batch, channels):
    """Captum's pattern of each channel of the layer number `depth`, the mean over the images."""
    from captum.attr import GuidedBackprop

    head = copy.deepcopy(nn.Sequential(*model[:depth + 1], nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [GuidedBackprop(head).attribute(batch, target=channel).mean(0) for channel in channels]


def test_patterns_are_captums_averaged_over_the_images():
    model, batch = network(), images(5)
    result = filter_similarity(model, batch, filters=None, batch_size=2)
    assert [layer.name for layer in result.layers] == ["0", "3"]
    for layer in result.layers:
        assert (list(layer.channels), layer.of) == (list(range(8)), 8)
        patterns = expected_patterns(model, int(layer.name), batch, range(8))
        torch.testing.assert_close(layer.matrix, cosine_loop(patterns), atol=1e-5, rtol=1e-5)
    # Not the mean of the single images' similarities.
    alone = torch.stack([filter_similarity(model, image[None], "3", filters=None)["3"].matrix for image in batch])
    assert (alone.mean(0) - result["3"].matrix).abs().max() > 0.05


def test_drawn_filters_are_a_part_of_the_whole(monkeypatch):
    model, batch = network(), images()
    whole = filter_similarity(model, batch, filters=None)
    part = filter_similarity(model, batch, filters=3, seed=1)
    for layer in part.layers:
        assert len(set(layer.channels)) == 3
        torch.testing.assert_close(layer.matrix, whole[layer.name].matrix[layer.channels][:, layer.channels])
    other = [filter_similarity(model, batch, "3", filters=3, seed=seed)["3"].channels for seed in range(6)]
    assert other[1] == part["3"].channels
    assert len(set(map(tuple, other))) > 1
    monkeypatch.setattr(module, "PATTERN_BYTES", 1)  # one layer at a time
    torch.testing.assert_close(filter_similarity(model, batch, filters=None)["3"].matrix, whole["3"].matrix)


def test_layers_go_together_while_their_patterns_fit(monkeypatch):
    image = torch.zeros(1, 3, 8, 8)
    monkeypatch.setattr(module, "PATTERN_BYTES", 12 * 3 * 8 * 8 * 4)
    chosen = {"a": [0] * 8, "b": [0] * 4, "c": [0], "d": [0] * 20}
    assert list(module.groups(chosen, image)) == [["a", "b"], ["c"], ["d"]]


def test_memory_does_not_grow_with_the_images():
    model = network()
    few, many = images(4), images(32)
    peak = peak_memory(lambda: filter_similarity(model, few, batch_size=4))
    assert peak_memory(lambda: filter_similarity(model, many, batch_size=4)) < 1.05 * peak


def test_batches_and_progress():
    model, batch, seen = network(), images(5), []
    whole = filter_similarity(model, batch, filters=4)
    assert "averaged over 5 images" in str(whole)
    batches = [(part, torch.zeros(len(part))) for part in batch.split(2)]
    parts = filter_similarity(model, batches, filters=4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(step, 3 * 2 * 4) for step in range(1, 25)]
    for layer in whole.layers:
        torch.testing.assert_close(parts[layer.name].matrix, layer.matrix)
    assert parts.notes == whole.notes


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.idle = nn.Conv2d(3, 3, 3)  # never runs, and isn't compared unless it is named

    def forward(self, input):
        return self.conv(torch.relu(self.conv(input))).flatten(1)


def test_a_layer_that_runs_twice_has_the_patterns_of_both():
    torch.manual_seed(0)
    model, batch = Recurrent().requires_grad_(False), images()
    patterns = []
    for channel in range(3):
        leaf = batch.clone().requires_grad_()
        first = model.conv(leaf)
        hidden = first.relu()
        hidden.register_hook(torch.relu)
        total = first[:, channel].sum() + model.conv(hidden)[:, channel].sum()
        patterns.append(torch.autograd.grad(total, leaf)[0].mean(0))
    result = filter_similarity(model, batch, filters=None)
    assert [layer.name for layer in result.layers] == ["conv"]
    torch.testing.assert_close(result["conv"].matrix, cosine_loop(patterns), atol=1e-5, rtol=1e-5)
    maps = torch.cat([first, model.conv(hidden)], 2).detach()
    expected = torch.stack([cosine_loop(image) for image in maps]).mean(0)
    torch.testing.assert_close(map_similarity(model, batch)["conv"].matrix, expected, atol=1e-5, rtol=1e-5)


def test_every_operator_of_ours_is_one_layer():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), TiedConv2d(8, 8, 3, padding=1, blocks=2), TiedConv2d(8, 8, 1, blocks=2),
        AsymmetricConv2d(8, 8, 3, padding=1), GhostConv2d(8, 8, 3, padding=1), SplitConv2d(8, 8, 3, padding=1),
        nn.ReLU(), DDF(8))
    model.append(nn.Conv2d(8, 2, 3, padding=1))
    names = [layer.name for layer in filter_similarity(model, images(2), filters=2).layers]
    assert names == ["1", "3", "4", "5", "7", "8"]
    assert [layer.name for layer in map_similarity(model, images(2)).layers] == names
    assert [layer.name for layer in weight_similarity(model, ["0", "1.*"]).layers] == ["0", "1.conv"]


def test_maps_are_compared_image_by_image():
    model, batch = network(inplace=True), images(5)
    result = map_similarity(model, batch, ["3", "4"], batch_size=2)
    for depth in (3, 4):
        maps = network()[:depth + 1](batch).detach()
        expected = torch.stack([cosine_loop(image) for image in maps]).mean(0)
        torch.testing.assert_close(result[str(depth)].matrix, expected, atol=1e-5, rtol=1e-5)
    assert "averaged over 5 images" in str(result)


def test_weights():
    model = network()
    result = weight_similarity(model)
    for name in ("0", "3"):
        torch.testing.assert_close(result[name].matrix, cosine_loop(model.get_submodule(name).weight.detach()))


def layer(count=6, of=6):
    torch.manual_seed(0)
    return LayerSimilarity("conv", [3 * number for number in range(count)], of, module.cosines(torch.randn(count, 4)))


def test_a_layer_is_read_off_its_matrix():
    similar = layer()
    pairs = [(a, b) for a in range(6) for b in range(a + 1, 6)]
    values = [similar.matrix[a, b].item() for a, b in pairs]
    assert similar.mean == pytest.approx(sum(values) / 15, abs=1e-6)
    best = max(range(15), key=values.__getitem__)
    assert similar.most_similar(1) == [(3 * pairs[best][0], 3 * pairs[best][1], values[best])]
    assert [value for _, _, value in similar.most_similar(99)] == sorted(values, reverse=True)
    shares, edges = similar.histogram(4)
    assert edges.tolist() == [-1, -0.5, 0, 0.5, 1]
    inside = [sum(low <= value < high for value in values) / 15 for low, high in pairwise(edges.tolist())]
    assert shares.tolist() == pytest.approx(inside)
    equal = LayerSimilarity("conv", range(3), 3, module.cosines(torch.randn(1, 40).expand(3, 40)))
    assert equal.histogram(2)[0].tolist() == [0, 1]  # 1 itself is in the last bin


def test_the_error_is_the_jackknifes():
    similar = layer(of=12)
    without = torch.tensor([LayerSimilarity("", range(5), 5, similar.matrix[rest][:, rest]).mean
                            for rest in ([i for i in range(6) if i != left_out] for left_out in range(6))])
    expected = math.sqrt(0.5 * 5 / 6 * (without - without.mean()).square().sum())
    assert similar.error == pytest.approx(expected, rel=1e-4)
    assert layer().error == 0
    assert math.isnan(layer(2).error)


def test_the_error_covers_the_mean_of_all():
    vectors = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)) + 0.5
    whole = module.cosines(vectors)
    truth, misses = LayerSimilarity("", range(64), 64, whole).mean, []
    for seed in range(200):
        channels = module.draw(64, 16, seed)
        part = LayerSimilarity("", channels, 64, whole[channels][:, channels])
        misses.append((part.mean - truth) / part.error)
    assert 0.8 < torch.tensor(misses).square().mean().sqrt() < 1.25


def test_a_table():
    table = filter_similarity(network(), images(), filters=3).table()
    assert [row[:2] for row in table.rows] == [["0", "3 of 8"], ["3", "3 of 8"]]
    assert "±" in table.rows[0][2]
    assert "guided-backpropagation patterns" in str(table)
    single = weight_similarity(nn.Sequential(nn.Conv2d(3, 1, 3), nn.Conv2d(1, 2, 3)))
    assert single.table().rows[0] == ["0", "1", *["–"] * 5]
    assert math.isfinite(single.mean)


def test_mistakes_are_named():
    model, batch = network(), images()
    with pytest.raises(ValueError, match=r"unknown layer 'layer1\.\*'"):
        filter_similarity(model, batch, ["layer1.*"])
    with pytest.raises(ValueError, match="layer 'idle' must run"):
        filter_similarity(Recurrent(), batch, ["idle"])
    with pytest.raises(ValueError, match="model must have a ReLU"):
        filter_similarity(nn.Sequential(nn.Conv2d(3, 4, 3)), batch)
    with pytest.raises(ValueError, match="Linear runs no convolution larger than 1 × 1"):
        weight_similarity(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="Sequential runs no convolution"):
        map_similarity(nn.Sequential(nn.Conv2d(3, 4, 1)), batch)
    with pytest.raises(ValueError, match=r"must be torch\.nn\.Conv2d modules, '1' is BatchNorm2d"):
        weight_similarity(model, ["1"])
    with pytest.raises(ValueError, match="filters must be a whole number of at least 1, got 0"):
        filter_similarity(model, batch, filters=0)
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, got 0"):
        map_similarity(model, batch, batch_size=0)
    with pytest.raises(ValueError, match=r"got \(3, 8, 8\)"):
        filter_similarity(model, batch[0])
    with pytest.raises(ValueError, match="at least one image, got none"):
        filter_similarity(model, batch[:0])
    with pytest.raises(TypeError, match="gone through again, a list or a data loader, got generator"):
        filter_similarity(model, (part for part in batch.split(2)))
    with pytest.raises(ValueError, match=r"same size .* got \(3, 8, 8\) and \(3, 9, 9\)"):
        filter_similarity(model[:4], [batch, torch.randn(1, 3, 9, 9)])
    with pytest.raises(ValueError, match="unknown layer 'con'"):
        weight_similarity(model)["con"]
    with pytest.raises(ValueError, match="bins must be at least 1"):
        layer().histogram(0)


class Winding(nn.Module):
    """What the shortcuts of the backward passes must get right: see the comments."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(6)
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=True)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4, affine=affine) for affine in (True, False, True, True))
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1, groups=2) for _ in range(4))
        self.last = nn.Conv2d(4, 4, 3)
        for norm in self.norms:
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            if norm.affine:
                nn.init.normal_(norm.weight)  # negative ones too
                nn.init.normal_(norm.bias)

    def forward(self, input):
        hidden = self.norms[0](self.norms[1](self.stem(input)))  # a norm after a norm, a convolution with bias
        torch.relu_(hidden)  # in place, its result unused
        hidden = hidden + input.mean(1, keepdim=True)  # around the stem
        both = self.convs[0](hidden)
        hidden = F.relu(self.norms[2](both) + both, inplace=True)  # a convolution and its norm
        changed = self.convs[1](hidden)
        changed.mul_(2)
        hidden = F.relu(self.norms[3](changed))  # changed in between
        own = F.batch_norm(self.convs[2](hidden), torch.zeros(4), torch.ones(4), training=True)  # nothing to fold
        hidden = F.hardtanh(own)
        return self.last(F.silu(self.convs[3](hidden)))


def test_shortcuts_change_nothing():
    model, batch = Winding().eval(), images(3)
    for name in ("stem", "convs.0", "convs.2", "last"):
        patterns = [guided_backprop(model, batch, channel, layer=name).sum(0) for channel in range(4)]
        assert all(pattern.abs().max() > 0 for pattern in patterns)
        result = filter_similarity(model, batch, name, filters=None, batch_size=3)
        torch.testing.assert_close(result[name].matrix, cosine_loop(patterns), atol=1e-4, rtol=1e-4)


class Dynamic(nn.Module):
    """Its first convolution's weights are the images'."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.last = nn.Conv2d(4, 4, 3)

    def forward(self, input):
        return self.last(F.relu(F.conv2d(input, self.weight * input.mean())))


def test_a_stem_that_is_not_linear_is_left_alone():
    model, batch = Dynamic(), images(3)
    patterns = [guided_backprop(model, batch, channel, layer="last").sum(0) for channel in range(4)]
    result = filter_similarity(model, batch, filters=None)
    torch.testing.assert_close(result["last"].matrix, cosine_loop(patterns), atol=1e-4, rtol=1e-4)


def test_norms_are_folded_and_gradients_summed_behind_the_stem():
    model, batch = network().requires_grad_(False), images(3)
    with recording(batch) as leaf, QuickGuidance(leaf) as guided:
        output, kept = observe(model, leaf, ["3"])
    names, nodes = set(), [output.grad_fn]
    while nodes:
        node = nodes.pop()
        names.add(node.name())
        nodes += [before for before, _ in node.next_functions if before]
    assert not any("BatchNorm" in name or "Addcmul" in name for name in names)
    gradients = guided.behind(kept["3"][0].sum())
    assert [gradient is not None for gradient in gradients] == [False] * (len(gradients) - 1) + [True]
    assert gradients[-1].shape == (3, 8, 8, 8)


def test_half_precision_gives_nearly_the_same():
    model, batch = network(), images()
    expected = filter_similarity(model, batch, filters=None)
    half = filter_similarity(model.bfloat16(), batch.bfloat16(), filters=None)
    for layer in half.layers:
        assert layer.matrix.dtype == torch.float32
        torch.testing.assert_close(layer.matrix, expected[layer.name].matrix, atol=0.1, rtol=0)


def test_the_histogram_of_all_layers_is_the_mean_of_theirs():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3), nn.Conv2d(4, 1, 3))
    similar = weight_similarity(model)
    shares, edges = similar.histogram(8)
    expected = (similar["0"].histogram(8)[0] + similar["1"].histogram(8)[0]) / 2  # "2" has a single filter
    torch.testing.assert_close(shares, expected)
    assert shares.sum().item() == pytest.approx(1)
    assert torch.equal(edges, similar["0"].histogram(8)[1])


def test_quartiles_are_those_of_the_pairs():
    values = layer().values.double()
    assert layer().quartiles == pytest.approx([values.quantile(share).item() for share in (0.25, 0.5, 0.75)])
    assert all(map(math.isnan, layer(1).quartiles))
