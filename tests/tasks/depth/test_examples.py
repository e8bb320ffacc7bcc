"""Whole images and crops of scenes, their statistics, and a network that learns on them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from leanconv.models.ddf_up_net import DDFUpNet
from leanconv.tasks.depth import (
    BASELINES,
    Crops,
    DepthSet,
    Scene,
    Upsampler,
    WholeImages,
    depth_statistics,
    low_resolution,
    mean_square,
    rmse,
)


class Made(DepthSet):
    """Scenes of these sizes: the image counts its pixels, and so does the depth, but for two holes."""

    def __init__(self, *sizes: tuple[int, int]) -> None:
        super().__init__([f"made {index}" for index in range(len(sizes))], sizes)

    def read(self, index: int) -> Scene:
        height, width = self.sizes[index]
        depth = 1 + torch.arange(float(height * width)).view(1, height, width)
        depth[0, 2, 2], depth[0, -1, -1] = 0, 0
        return Scene((depth % 256).to(torch.uint8).repeat(3, 1, 1), depth)


def test_whole_images_lose_what_the_factor_leaves_over() -> None:
    scenes = Made((21, 34), (16, 16))
    low, image, depth = WholeImages(scenes, 8)[0]
    assert (low.shape, image.shape, depth.shape) == ((1, 1, 2, 4), (1, 3, 16, 32), (1, 1, 16, 32))
    assert torch.equal(depth[0], scenes[0].depth[:, :16, :32])
    assert torch.equal(image[0], scenes[0].image[:, :16, :32] / 255)
    assert torch.equal(low, low_resolution(depth, 8))
    assert not torch.equal(WholeImages(scenes, 8, sampling="bicubic")[0].low, low)


def test_scenes_of_one_size_are_stacked_and_others_refused() -> None:
    examples = WholeImages(Made((16, 24), (16, 30), (16, 32)), 8)
    batch = examples.batch([0, 1])
    assert batch.image.shape == (2, 3, 16, 24)
    assert torch.equal(batch.depth[1], examples[1].depth[0])
    with pytest.raises(ValueError, match=r"one size, got \[\(16, 24\), \(16, 32\)\]: take one at a time"):
        examples.batch([0, 2])


def test_crops_are_parts_of_image_and_depth_at_one_place() -> None:
    examples = Crops(Made((40, 50)), 4, size=16)
    torch.manual_seed(0)
    places, mirrored = set(), set()
    for _ in range(60):
        low, image, depth = examples[0]
        assert (low.shape, image.shape, depth.shape) == ((1, 1, 4, 4), (1, 3, 16, 16), (1, 1, 16, 16))
        torch.testing.assert_close(image[0, 0], depth[0, 0] % 256 / 255)
        assert torch.equal(low, low_resolution(depth, 4))
        step = int(depth[0, 0, 8, 9] - depth[0, 0, 8, 8])
        mirrored.add(step)
        places.add(divmod(int(depth[0, 0, 8, 0 if step == 1 else -1]) - 1, 50))
    assert mirrored == {-1, 1}
    rows, columns = ({place[axis] for place in places} for axis in (0, 1))
    assert rows <= set(range(8, 33))
    assert columns <= set(range(35))
    assert len(rows) > 15
    assert len(columns) > 15
    assert {int(Crops(Made((16, 16)), 4, size=16, flip=False)[0].depth[0, 0, 0, 0]) for _ in range(9)} == {1}


def test_crops_of_scenes_of_several_sizes_are_stacked() -> None:
    examples = Crops(Made((40, 50), (24, 90)), 8, size=24, flip=False)
    depth = examples.batch([0, 1]).depth
    assert depth.shape == (2, 1, 24, 24)
    steps = [row[9, 8] - row[8, 8] for row in depth[:, 0]]  # from a row to the next: the width of each scene
    assert steps == [50, 90]


def test_a_position_beyond_the_last_is_refused() -> None:
    scenes = Made((20, 24), (16, 16))
    for examples in (WholeImages(scenes, 4), Crops(scenes, 4, size=16, flip=False)):
        assert torch.equal(examples.batch([1]).depth[0], scenes[1].depth)
        assert torch.equal(examples.batch([-1]).depth[0], scenes[1].depth)
        with pytest.raises(IndexError):
            examples.batch([99])


def test_several_crops_of_each_scene() -> None:
    examples = Crops(Made((40, 50), (8, 8)), 4, size=8, flip=False, per_scene=3)
    assert len(examples) == 6
    small = Made((40, 50), (8, 8))[1].depth
    assert [torch.equal(examples[index].depth[0], small) for index in range(6)] == [False, True] * 3
    torch.manual_seed(0)
    assert not torch.equal(examples[0].depth, examples[2].depth)


def test_refused() -> None:
    with pytest.raises(ValueError, match="per_scene must be a whole number of at least 1, got 0"):
        Crops(Made((40, 40)), 4, size=8, per_scene=0)
    with pytest.raises(ValueError, match=r"sides of more than 12 pixels.* multiple of 16, got 12×40 of made 1"):
        WholeImages(Made((20, 20), (12, 40)), 16)
    with pytest.raises(ValueError, match=r"multiple of 4, got 40×15 of made 0"):
        WholeImages(Made((40, 15)), 4)
    with pytest.raises(ValueError, match=r"size must be a multiple of the factor 16, got 8"):
        Crops(Made((40, 40)), 16, size=8)
    with pytest.raises(ValueError, match=r"crop must fit into every scene to train on, got 256 for 40×300 of made 1"):
        Crops(Made((300, 300), (40, 300)), 4, size=256)


def test_statistics_are_those_of_known_pixels() -> None:
    scenes = Made((4, 5), (6, 7))
    known = torch.cat([scene.depth[scene.depth > 0] for scene in scenes]).double()
    mean, std = depth_statistics(scenes)
    assert mean == pytest.approx(known.mean().item())
    assert std == pytest.approx(known.std(correction=0).item())
    many = Made(*[(4, 5)] * 150)
    assert depth_statistics(many) == pytest.approx(depth_statistics(Made((4, 5))))


class Flat(Made):
    def __init__(self, value: float) -> None:
        super().__init__((8, 8))
        self.value = value

    def read(self, index: int) -> Scene:
        return Scene(torch.zeros(3, 8, 8, dtype=torch.uint8), torch.full((1, 8, 8), self.value))


def test_statistics_of_flat_and_unknown_depth() -> None:
    assert depth_statistics(Flat(3.0)) == (3.0, 1.0)
    with pytest.raises(ValueError, match="pixels of known depth, got none"):
        depth_statistics(Flat(0.0))


class Spy(nn.Module):
    """Gives twice the enlarged depth that it sees, and keeps what it saw."""

    def forward(self, low: Tensor, image: Tensor) -> Tensor:
        self.saw = low, image
        return 2 * low.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_an_upsampler_sees_normalised_maps_and_answers_in_the_unit() -> None:
    upsampler = Upsampler(Spy(), 100.0, 20.0, (0.5, 0.25, 0.0), (0.5, 0.25, 2.0))
    output = upsampler(torch.full((1, 1, 2, 2), 110.0), torch.full((1, 3, 4, 4), 1.0))
    low, image = upsampler.network.saw
    assert low.unique().tolist() == [0.5]
    assert image[0, :, 0, 0].tolist() == [1.0, 3.0, 0.5]
    assert output.shape == (1, 1, 4, 4)
    assert output.unique().tolist() == [120.0]
    assert {"depth_mean", "depth_std", "image_mean", "image_std"} <= upsampler.state_dict().keys()
    with pytest.raises(ValueError, match=r"depth_std .* above 0, got 0"):
        Upsampler(Spy(), 1.0, 0)


class Disc(DepthSet):
    """A near disc on a far wall, bright on dark: what is asked is where its rim lies."""

    def __init__(self) -> None:
        super().__init__(["disc"], [(64, 64)])

    def read(self, index: int) -> Scene:
        rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
        inside = (rows - 30).square() + (columns - 34).square() < 20**2
        return Scene((255 * inside).to(torch.uint8).repeat(3, 1, 1), torch.where(inside, 100.0, 300.0)[None])


def test_a_network_learns_to_beat_what_does_not_see_the_image() -> None:
    torch.manual_seed(0)
    scenes = Disc()
    upsampler = Upsampler(DDFUpNet(4), *depth_statistics(scenes))
    low, image, depth = WholeImages(scenes, 4)[0]
    bicubic = rmse(BASELINES["bicubic"](low, image), depth).item()
    optimizer = torch.optim.Adam(upsampler.parameters(), 2e-3)
    losses = []
    for _ in range(40):
        loss = mean_square(upsampler(low, image), depth) / upsampler.depth_std.square()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert rmse(upsampler(low, image), depth).item() < bicubic
