from pathlib import Path

import pytest
import torch
from PIL import Image

from leanconv.measure import filter_similarity, grad_cam
from leanconv.report import insight
from leanconv.report.insight import FILE, look_into
from leanconv.report.insight_sections import insight_sections
from leanconv.tasks import Recipe, load_model, save_model
from leanconv.tasks.checkpoint import configuration
from leanconv.tasks.comparing import run_folder
from leanconv.tasks.data import open_data
from leanconv.tasks.networks import build_network

TINY = f"{Path(__file__).parents[1] / 'tasks' / 'tiny.py'}:Tiny"
UNBENT = "from torch import nn\n\n\ndef net(num_classes, in_chans):\n" \
         "    layers = nn.Conv2d(in_chans, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)\n" \
         "    return nn.Sequential(*layers)\n"  # fmt: skip


@pytest.fixture(autouse=True)
def little(monkeypatch):
    monkeypatch.setattr(insight, "AMOUNTS", ((4, 3), (3, 2)))


def trained(folder: Path, operator: str, model: str = TINY) -> None:
    """What a finished training leaves of its network."""
    recipe = Recipe(model=model, operator=operator, limit=40)
    data = open_data(recipe)
    torch.manual_seed(len(operator))
    each = run_folder(folder, operator, 0)
    each.mkdir(parents=True)
    save_model(each / "model.safetensors", build_network(recipe, data.info), configuration(recipe, data.info))
    (each / "result.json").write_text("{}")


@pytest.fixture
def made(row, comparison, tmp_path):
    """A comparison whose third operator isn't trained, and its folder."""
    for operator in ("dense", "tied:blocks=2"):
        trained(tmp_path, operator)
    return comparison(row("dense", [90.0]), row("tied:blocks=2", [80.0]), row("ghost", [])), tmp_path


@pytest.fixture
def loaded(monkeypatch):
    """The checkpoints that are loaded, as they are."""
    calls = []
    monkeypatch.setattr(insight, "load_model", lambda path: calls.append(path.parts[-3]) or load_model(path))
    return calls


def test_the_numbers_are_those_of_the_checkpoints_at_the_same_images(made):
    result, folder = made
    steps = []
    found = look_into(result, folder, lambda done, total: steps.append(done / total))
    assert list(found) == ["dense", "tied:blocks=2"]
    assert steps == sorted(steps)
    assert steps[-1] == 1
    dense, tied = found.values()
    assert torch.equal(dense.look.images.pixels(range(5)), tied.look.images.pixels(range(5)))
    network, _ = load_model(run_folder(folder, "tied:blocks=2", 0) / "model.safetensors")
    mean, std = open_data(Recipe(limit=40)).mean[0], open_data(Recipe(limit=40)).std[0]
    batch = (tied.look.images.pixels(range(5)) / 255 - mean) / std
    chances = network(batch).softmax(1).detach()
    assert torch.equal(tied.look.evidence.classes, chances.argmax(1))
    torch.testing.assert_close(tied.look.evidence.probabilities, chances.amax(1))
    assert tied.look.evidence.layer == "body"
    torch.testing.assert_close(tied.look.evidence.maps, grad_cam(network, batch, "body"))
    expected = filter_similarity(network, batch[:3], filters=4)
    for layer, other in zip(tied.similarity.layers, expected.layers, strict=True):
        assert (layer.name, list(layer.channels), layer.of) == (other.name, list(other.channels), other.of)
        torch.testing.assert_close(layer.matrix, other.matrix)


def test_what_is_kept_is_read_and_an_operator_more_is_looked_into_alone(made, row, comparison, loaded):
    result, folder = made
    before = look_into(result, folder)
    assert loaded == ["dense", "tied-blocks-2"]
    trained(folder, "split")
    after = look_into(comparison(*result.rows[:2], row("split", [85.0])), folder)
    assert loaded == ["dense", "tied-blocks-2", "split"]
    assert list(after) == ["dense", "tied:blocks=2", "split"]
    for operator, insight_before in before.items():
        similarity, look = after[operator].similarity, after[operator].look
        assert similarity.table() == insight_before.similarity.table()
        assert look.classes == list(insight_before.look.classes)
        for name in ("classes", "probabilities", "maps"):
            assert torch.equal(getattr(look.evidence, name), getattr(insight_before.look.evidence, name))
        assert torch.equal(look.images.labels, insight_before.look.images.labels)
    # New images of the new operator are the same.
    assert torch.equal(after["split"].look.images.pixels([4]), after["dense"].look.images.pixels([4]))


@pytest.mark.parametrize("damage", [
    lambda path: path.write_bytes(path.read_bytes()[:900]), lambda path: path.write_bytes(b""), Path.unlink,
    lambda path: path.write_bytes(path.read_bytes().replace(b"probabilities", b"probabilitjes")),
])  # fmt: skip
def test_what_is_damaged_or_of_another_amount_is_done_again(made, loaded, damage, monkeypatch):
    result, folder = made
    look_into(result, folder)
    damage(run_folder(folder, "dense", 0) / FILE)
    look_into(result, folder)
    assert loaded == ["dense", "tied-blocks-2", "dense"]
    monkeypatch.setattr(insight, "WORK", 1)
    assert len(look_into(result, folder)["dense"].similarity.layers[0].channels) == 3
    assert loaded[3:] == ["dense", "tied-blocks-2"]


def test_what_cannot_be_done_is_told_in_its_section(row, comparison, tmp_path, loaded):
    (tmp_path / "unbent.py").write_text(UNBENT)
    trained(tmp_path, "dense", f"{tmp_path / 'unbent.py'}:net")
    trained(tmp_path, "tied")
    (run_folder(tmp_path, "tied", 0) / "model.safetensors").write_bytes(b"nonsense")
    both = comparison(row("dense", [90.0]), row("tied", [80.0]))
    similarity, look = insight_sections(both, look_into(both, tmp_path), tmp_path)
    assert not similarity.pictures
    assert "Missing: dense: model must have a ReLU" in similarity.note
    assert "Missing: tied: cannot read the checkpoint" in similarity.note
    assert len(look.pictures) == 1
    assert "dense: " not in look.note
    assert "Missing: tied: cannot read the checkpoint" in look.note
    # It is tried again.
    look_into(both, tmp_path)
    assert loaded == ["dense", "tied", "dense", "tied"]


def test_the_sections_have_pictures_which_are_files_too(made):
    result, folder = made
    found = look_into(result, folder)
    similarity, look = insight_sections(result, found, folder)
    assert [similarity.title, look.title] == ["How alike its filters are", "Where it looks"]
    assert similarity.pictures
    assert look.pictures
    assert [cells[0] for cells in similarity.table.rows] == ["dense", "tied:blocks=2"]
    assert similarity.table.rows[0][1] == f"{found['dense'].similarity.mean:.3f}"
    assert "Missing" not in similarity.note + look.note
    for name in ("similarity.png", "cam.png"):
        with Image.open(folder / name) as picture:
            assert picture.width > 400


def test_networks_of_other_tasks_and_untrained_ones_are_left_alone(row, comparison, tmp_path):
    assert look_into(comparison(row("dense", [30.0]), task="detection"), tmp_path) == {}
    untrained = comparison(row("dense", []))
    assert look_into(untrained, tmp_path) == {}
    assert insight_sections(untrained, {}, tmp_path) == []
