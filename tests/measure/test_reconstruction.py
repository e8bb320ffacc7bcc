from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from measure.small_network import images, network
from torch import nn

from leanconv.measure import map_similarity, reconstruction_error
from leanconv.measure.reconstruction import LeastSquares, first_block

SIZES = (1, 3, 5, 7)


def explicit(source, target, size):
    """The error and the filter from the whole matrix of shifted maps, (N, H, W)."""
    columns = F.unfold(source.double()[:, None], size, padding=size // 2).transpose(1, 2).flatten(0, 1)
    wanted = target.double().flatten()[:, None]
    filter = torch.linalg.lstsq(columns, wanted).solution
    return (columns @ filter - wanted).square().mean().item(), filter.view(size, size)


def test_errors_and_filters_are_those_of_the_whole_matrix():
    model, batch = network(), images(5)
    result = reconstruction_error(model, batch, ["0", "1"], pairs=2, batch_size=2)
    similar = map_similarity(model, batch, ["0", "1"])
    assert [pair.layer for pair in result.pairs] == ["0", "0", "1", "1"]
    expected = [pair for name in "01" for pair in similar[name].most_similar(2)]
    for pair, known in zip(result.pairs, expected, strict=True):
        assert (pair.source, pair.target, pair.similarity) == pytest.approx(known)
    for pair in result.pairs:
        maps = model[:int(pair.layer) + 1](batch).detach()
        source, target = maps[:, pair.source], maps[:, pair.target]
        assert pair.power == pytest.approx(target.square().mean().item(), rel=1e-5)
        for size in SIZES:
            error, filter = explicit(source, target, size)
            assert pair.errors[size] == pytest.approx(error, rel=1e-4)
            torch.testing.assert_close(pair.filters[size], filter, atol=1e-4, rtol=1e-4)
            made = F.conv2d(source.double()[:, None], pair.filters[size][None, None], padding=size // 2)[:, 0]
            assert pair.errors[size] == pytest.approx((made - target).square().mean().item(), rel=1e-5)
            assert pair.relative(size) == pytest.approx(pair.errors[size] / pair.power)


def test_errors_never_grow_with_the_filter():
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        problem = LeastSquares(7)
        height, width = 4 + seed % 3, 9 - seed % 4  # maps smaller than the filter too
        problem.add(*torch.rand(2, 3, height, width, generator=generator))
        errors = [problem.solve(size)[0] for size in SIZES]
        assert all(later <= earlier + 1e-12 for earlier, later in pairwise(errors))
        assert errors[0] <= problem.power


def test_a_filter_is_found_again():
    torch.manual_seed(0)
    source, kernel = torch.randn(4, 1, 9, 7), torch.randn(1, 1, 5, 5)
    problem = LeastSquares(7)
    problem.add(source[:, 0], F.conv2d(source, kernel, padding=2)[:, 0])
    error, filter = problem.solve(5)
    assert error < 1e-12
    torch.testing.assert_close(filter.float(), kernel[0, 0], atol=1e-5, rtol=1e-5)
    assert problem.solve(3)[0] > 0.1


def test_maps_of_zeros_cost_nothing():
    problem = LeastSquares(3)
    problem.add(torch.zeros(1, 4, 4), torch.ones(1, 4, 4))
    assert problem.solve(3)[0] == problem.power == 1
    silent = nn.Sequential(nn.Conv2d(3, 2, 3, bias=False))
    nn.init.zeros_(silent[0].weight)
    (pair,) = reconstruction_error(silent, images()).pairs
    assert [pair.relative(size) for size in SIZES] == [0] * 4


def test_images_of_all_sizes_and_progress():
    model, seen = network()[:4], []
    batches = [images(2), images(1)[:, :, 1:, 2:]]
    told = {"pairs": 1, "kernel_sizes": (3, 1), "progress": lambda *at: seen.append(at)}
    result = reconstruction_error(model, batches, "0", **told)
    assert seen == [(step, 4) for step in range(1, 5)]
    (pair,) = result.pairs
    problem = LeastSquares(5)
    for batch in batches:
        maps = model[0](batch).detach()
        problem.add(maps[:, pair.source], maps[:, pair.target])
    assert list(pair.errors) == [1, 3]
    assert pair.errors[3] == pytest.approx(problem.solve(3)[0])


def test_a_table():
    table = reconstruction_error(network(), images(), "3", pairs=2).table()
    assert table.columns[4:] == ["1 × 1", "3 × 3", "5 × 5", "7 × 7"]
    assert [row[0] for row in table.rows] == ["3", "3"]
    assert "over 4 images" in str(table)


def test_the_first_block_is_looked_at():
    def block():
        return nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1))

    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(block(), block()))
    assert first_block(model) == ["1.0"]
    assert {pair.layer for pair in reconstruction_error(model, images()).pairs} == {"1.0"}
    plain = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    assert {pair.layer for pair in reconstruction_error(plain, images()).pairs} == {"1"}


def test_mistakes_are_named():
    model, batch = network(), images()
    with pytest.raises(ValueError, match=r"kernel_sizes must be odd numbers of at least 1, got \(1, 4\)"):
        reconstruction_error(model, batch, kernel_sizes=(1, 4))
    with pytest.raises(ValueError, match=r"kernel_sizes must be odd .* got \(\)"):
        reconstruction_error(model, batch, kernel_sizes=())
    with pytest.raises(ValueError, match="pairs must be a whole number of at least 1, got 0"):
        reconstruction_error(model, batch, pairs=0)
    with pytest.raises(ValueError, match=r"layer '7' must give maps .* got \(4, 5\)"):
        reconstruction_error(model, batch, "7")
    with pytest.raises(ValueError, match="unknown layer 'layer1'"):
        reconstruction_error(model, batch, "layer1")
    with pytest.raises(ValueError, match="layer '0' must give at least two maps, got 1"):
        reconstruction_error(nn.Sequential(nn.Conv2d(3, 1, 3)), batch)
