import copy
import statistics

import pytest
import torch
from measure.test_skeleton import randomised
from torch import nn
from torch.nn.utils import parametrizations

from leanconv import nn as lean
from leanconv.measure import UNCHANGED, Zeroing, ZeroingCurves, zeroing_curves
from leanconv.measure.skeleton import region


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 7, 3), nn.Conv2d(7, 2, 1))


class Watching:
    """A test that keeps the weights that it sees."""

    def __init__(self):
        self.seen = []

    def __call__(self, network):
        self.seen.append([module.weight.detach().clone() for module in network if hasattr(module, "weight")])
        return len(self.seen) / 100


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("name", ["corner", "skeleton", "global"])
def test_as_many_weights_of_a_region_are_zero_as_asked_for_and_no_others_change(name, size):
    network = nn.Sequential(nn.Conv2d(3, 5, size), nn.Conv2d(5, 4, size))
    test = Watching()
    zeroing_curves(network, test, regions=[name], sparsities=[0.1, 0.3], seeds=[4])
    assert len(test.seen) == 3
    for weights, sparsity in zip(test.seen, (0, 0.1, 0.3), strict=True):
        for weight, module in zip(weights, network, strict=True):
            zeros = 0
            for place in torch.cartesian_prod(*map(torch.arange, weight.shape)).tolist():
                *_, row, column = place
                on_skeleton = size // 2 in (row, column)
                if weight[tuple(place)] == 0:
                    zeros += 1
                    assert name == "global" or on_skeleton == (name == "skeleton")
                else:
                    assert weight[tuple(place)] == module.weight[tuple(place)]
            assert zeros == round(sparsity * weight.numel())


def test_a_whole_region_can_go_and_has_no_point_beyond():
    test = Watching()
    curves = zeroing_curves(model(), test, regions=["corner", "skeleton"], sparsities=[4 / 9, 0.5, 5 / 9], seeds=[0])
    assert [sparsity for sparsity, _, _ in curves.curve("corner")] == [0, 4 / 9]
    assert [sparsity for sparsity, _, _ in curves.curve("skeleton")] == [0, 4 / 9, 0.5, 5 / 9]
    for weights, name in ((test.seen[1], "corner"), (test.seen[-1], "skeleton")):
        assert torch.equal(weights[0] == 0, region(name, 3).expand_as(weights[0]))


def test_places_are_drawn_evenly():
    """Each of the 9 places is zero in about 30 % of 900 kernels."""
    test = Watching()
    zeroing_curves(nn.Sequential(nn.Conv2d(30, 30, 3)), test, regions=["global"], sparsities=[0.3], seeds=[0])
    shares = (test.seen[1][0] == 0).double().mean((0, 1))
    assert 0.24 < shares.min() <= shares.max() < 0.36
    channels = (test.seen[1][0] == 0).double().mean((1, 2, 3))
    assert 0.2 < channels.min() <= channels.max() < 0.4


def test_a_larger_sparsity_zeroes_more_of_the_same():
    test = Watching()
    zeroing_curves(model(), test, regions=["global"], sparsities=[0.2, 0.6], seeds=[3])
    few, many = (weights[0] == 0 for weights in test.seen[1:])
    assert not (few & ~many).any()


def test_seeds_differ_and_repeat_whatever_the_global_generator():
    first, second = Watching(), Watching()
    zeroing_curves(model(), first, regions=["global"], sparsities=[0.2], seeds=[0, 1])
    network = model()
    torch.manual_seed(9)
    zeroing_curves(network, second, regions=["global"], sparsities=[0.2], seeds=[1])
    assert torch.equal(first.seen[2][0], second.seen[1][0])
    assert not torch.equal(first.seen[1][0], first.seen[2][0])


def test_the_global_generator_stays_where_it_is():
    network = model()
    before = torch.get_rng_state()
    zeroing_curves(network, lambda network: 0.0, sparsities=[0.2], seeds=[0])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_the_model_stays_as_it_is_even_when_the_test_fails(error):
    network = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), lean.AsymmetricConv2d(4, 4, 3))).train()
    before = copy.deepcopy(network.state_dict())

    def test(plain):
        assert not plain.training
        plain[0].weight.data.zero_()
        raise error

    with pytest.raises(error):
        zeroing_curves(network, test)
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in before.items())
    assert network.training
    assert isinstance(network[1], lean.AsymmetricConv2d)


def test_asymmetric_convolutions_are_tested_fused():
    torch.manual_seed(0)
    block = lean.AsymmetricConv2d(3, 4, 3)
    network = randomised(nn.Sequential(block, nn.ReLU(), nn.ConvTranspose2d(4, 3, 3), block)).train()
    fused = copy.deepcopy(block).eval().fused()
    seen = []

    def test(plain):
        assert type(plain[0]) is nn.Conv2d
        assert plain[3] is plain[0]
        seen.append(plain[0].weight.detach().clone())
        return 0

    zeroing_curves(network, test, regions=["skeleton"], sparsities=[0.5], seeds=[0])
    assert torch.equal(seen[0], fused.weight)
    assert (seen[1] == 0).sum() == round(0.5 * fused.weight.numel())
    alone = Watching()
    zeroing_curves(block, lambda plain: alone([plain]), regions=["global"], sparsities=[1.0], seeds=[0])
    assert torch.equal(alone.seen[0][0], fused.weight)
    assert not alone.seen[1][0].any()


def test_weights_that_are_computed_are_zeroed_as_they_are_used():
    network = nn.Sequential(parametrizations.weight_norm(nn.Conv2d(2, 3, 3)))
    used = network[0].weight.detach().clone()
    test = Watching()
    zeroing_curves(network, test, regions=["corner"], sparsities=[4 / 9], seeds=[0])
    torch.testing.assert_close(test.seen[0][0], used)
    torch.testing.assert_close(test.seen[1][0], used.masked_fill(region("corner", 3), 0))


def test_channels_last_weights_are_zeroed_alike():
    test, other = Watching(), Watching()
    zeroing_curves(model(), test, sparsities=[0.3], seeds=[0])
    zeroing_curves(model().to(memory_format=torch.channels_last), other, sparsities=[0.3], seeds=[0])
    for one, two in zip(test.seen, other.seen, strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, two, strict=True))


def test_only_the_chosen_layers_are_touched():
    network, test = model(), Watching()
    zeroing_curves(network, test, regions=["global"], sparsities=[1.0], seeds=[0], layers=["2"])
    first, second, third = test.seen[1]
    assert torch.equal(first, network[0].weight)
    assert not second.any()
    assert torch.equal(third, network[3].weight)


def test_curves_are_means_and_deviations_of_the_seeds():
    curves = zeroing_curves(model(), Watching(), regions=["corner", "global"], sparsities=[0.2, 0.1], seeds=[5, 6, 7])
    values = curves.accuracies
    assert len(values) == 13
    assert sorted(values.values()) == pytest.approx([count / 100 for count in range(1, 14)])
    (_, unchanged, _), (first, mean, spread), (second, _, _) = curves.curve("global")
    assert (first, second) == (0.1, 0.2)
    assert unchanged == values[UNCHANGED] == 0.01
    expected = [values[Zeroing("global", 0.1, seed)] for seed in (5, 6, 7)]
    assert mean == pytest.approx(sum(expected) / 3)
    assert spread == pytest.approx((sum((value - mean) ** 2 for value in expected) / 2) ** 0.5)
    assert spread == pytest.approx(statistics.stdev(expected))
    assert spread > 0


def test_the_table_has_a_row_a_sparsity():
    accuracies = {UNCHANGED: 0.9}
    for seed, value in enumerate((0.5, 0.7)):
        accuracies |= {Zeroing("corner", 0.4, seed): value, Zeroing("global", 0.4, seed): value - 0.1,
                       Zeroing("global", 0.8, seed): 0.1}
    assert ZeroingCurves(accuracies).table().rows == [
        ["0.0%", "90.00%", "90.00%"], ["40.0%", "60.00% ± 14.14", "50.00% ± 14.14"], ["80.0%", "", "10.00% ± 0.00"],
    ]  # fmt: skip


def test_what_is_known_is_not_tested_again_and_what_is_found_is_told():
    settings = {"regions": ["corner", "global"], "sparsities": [0.1, 0.2], "seeds": [0, 1]}
    every, told, steps = {}, Watching(), []
    complete = zeroing_curves(model(), told, found=every.__setitem__, progress=lambda *step: steps.append(step),
                              **settings)
    assert every == complete.accuracies
    assert steps == [(done, 9) for done in range(1, 10)]
    known = dict(list(every.items())[:4]) | {Zeroing("skeleton", 0.5, 3): 0.0}
    rest, found, steps = Watching(), {}, []
    resumed = zeroing_curves(model(), rest, known=known, found=found.__setitem__,
                             progress=lambda *step: steps.append(step), **settings)
    assert len(rest.seen) == len(found) == 5
    assert steps == [(done, 9) for done in range(5, 10)]
    for weights, expected in zip(rest.seen, told.seen[4:], strict=True):
        assert torch.equal(weights[0], expected[0])
    assert resumed.accuracies == dict(list(every.items())[:4]) | found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"regions": ["corners"]}, "unknown region 'corners': did you mean 'corner'"),
        ({"regions": []}, "regions must be at least one"),
        ({"seeds": []}, "seeds must be at least one"),
        ({"sparsities": []}, "sparsities must be at least one"),
        ({"sparsities": [0.5, 1.2]}, "sparsities must be from 0 to 1, got 1.2"),
        ({"layers": ["conv"]}, "unknown layer 'conv'"),
        ({"kernel_size": 2}, "kernel_size must be odd"),
    ],
)
def test_mistakes_are_named(arguments, message):
    def test(network):
        raise AssertionError("tested")

    with pytest.raises(ValueError, match=message):
        zeroing_curves(model(), test, **arguments)
