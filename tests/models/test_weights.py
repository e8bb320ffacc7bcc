import argparse

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import leanconv.models  # noqa: F401  (registers the networks)
from leanconv.models.weights import load_state


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.bn = nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, 2)


class Renamed(Net):
    """A network whose published weights need `checkpoint_filter_fn`, as those of a class above it do."""


def checkpoint_filter_fn(state, model):
    assert isinstance(model, Net)
    return {name.replace("classifier.", "fc."): state.pop(name) for name in list(state)}


@pytest.fixture
def state():
    return {name: torch.randn_like(tensor.float()).to(tensor.dtype) for name, tensor in Net().state_dict().items()}


def same(model, state):
    return all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("file", ["a.safetensors", "a.pth", "a.pt", "a.th", "a.bin"])
def test_each_kind_of_file_is_read(tmp_path, state, file):
    if file.endswith(".safetensors"):
        save_file(state, tmp_path / file)
    else:
        torch.save(state, tmp_path / file, _use_new_zipfile_serialization=file != "a.th")
    model = Net()
    load_state(model, tmp_path / file)
    assert same(model, state)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3, "best": 0.5},
        lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)},
        lambda state: {"state_dict_ema": state, "state_dict": {name: tensor + 1 for name, tensor in state.items()}},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"state_dict": {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {name: tensor for name, tensor in state.items() if "num_batches" not in name},
    ],
)
def test_weights_are_found_where_trainings_put_them(tmp_path, state, wrap):
    torch.save(wrap(state), tmp_path / "a.pth")
    model = Net()
    load_state(model, tmp_path / "a.pth")
    assert same(model, {**state, "bn.num_batches_tracked": model.bn.num_batches_tracked})


@pytest.mark.parametrize("kind", [Net, Renamed])
def test_published_names_become_the_networks_own(tmp_path, state, kind):
    torch.save({name.replace("fc.", "classifier."): tensor for name, tensor in state.items()}, tmp_path / "a.pth")
    model = kind()
    load_state(model, tmp_path / "a.pth")
    assert same(model, state)


def test_weights_that_the_filter_does_not_know_are_listed_as_they_are(tmp_path, state):
    torch.save(state, tmp_path / "a.pth")
    with torch.device("meta"):
        model = timm.create_model("convnext_atto")  # its filter looks for fc.weight of another shape of checkpoint
    with pytest.raises(ValueError, match=r"a.pth must be those of the network, got .* missing .* left over \(conv"):
        load_state(model, tmp_path / "a.pth")


def test_what_does_not_fit_is_listed_and_nothing_is_loaded(tmp_path, state):
    del state["conv.bias"]
    state["fc.weight"], state["other"] = torch.randn(7, 3), torch.randn(2)
    torch.save(state, tmp_path / "a.pth")
    model = Net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    listed = r"1 missing \(conv.bias\), 1 left over \(other\), 1 of another shape \(fc.weight \[7, 3\] for \[2, 3\]\)"
    with pytest.raises(ValueError, match=rf"a.pth must be those of the network, got {listed}"):
        load_state(model, tmp_path / "a.pth")
    assert same(model, before)


class Strange:
    pass


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weights": {"a": torch.ones(1)}, "epoch": 3}, "must hold tensors by their names, got weights, epoch"),
        ({}, "must hold tensors by their names, got nothing"),
        ([torch.ones(1)], "cannot read weights from"),
        (Strange(), "cannot read weights from .* weights_only=True blocked"),
    ],
)
def test_files_with_something_else_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message):
        load_state(Net(), tmp_path / "a.pth")


@pytest.mark.parametrize("file", ["a.safetensors", "a.pth", "a.th"])
def test_truncated_files_are_refused(tmp_path, state, file):
    path = tmp_path / file
    if file.endswith(".safetensors"):
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=file != "a.th")
    content = path.read_bytes()
    for length in (0, 1, 8, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=f"cannot read weights from .*{file}"):
            load_state(Net(), path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.pth: there is no such file"):
        load_state(Net(), tmp_path / "nowhere.pth")


def test_timm_loads_the_same_files(tmp_path):
    model = timm.create_model("cifar_resnet20", num_classes=4)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "a.pth")
    again = timm.create_model("cifar_resnet20", num_classes=4, checkpoint_path=str(tmp_path / "a.pth"))
    assert same(again, model.state_dict())
