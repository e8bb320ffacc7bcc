import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from leanconv import surgery
from leanconv.tasks import build_network, load_model, open_data, save_model, train
from leanconv.tasks.checkpoint import configuration, fused_network, load_weights


@pytest.fixture
def network(quick):
    torch.manual_seed(0)
    network = build_network(dataclasses.replace(quick, operator="tied:blocks=2"), open_data(quick))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network


@pytest.fixture
def path(network, quick, tmp_path):
    path = tmp_path / "model.safetensors"
    config = configuration(dataclasses.replace(quick, operator="tied:blocks=2"), open_data(quick))
    save_model(path, network, {**config, "note": "kept"})
    return path


def test_a_saved_model_comes_back_as_it_was(network, path):
    images = torch.randn(3, 3, 16, 16)
    loaded, config = load_model(path)
    assert not loaded.training
    assert torch.equal(loaded(images), network.eval()(images))
    assert config["operator"] == "tied:blocks=2"
    assert config["classes"] == list("012345")
    assert config["note"] == "kept"
    assert len(config["mean"]) == config["in_chans"] == 3


def test_shared_weights_can_be_saved(network, path, quick):
    network.again = network.body
    save_model(path, network, configuration(quick, open_data(quick)))


def test_a_configuration_must_be_complete(network, tmp_path):
    with pytest.raises(ValueError, match="config must be as configuration makes it, got none for recipe, operator"):
        save_model(tmp_path / "a.safetensors", network, {"num_classes": 3})
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_is_listed_and_nothing_is_loaded(path, network):
    other = nn.Module()
    other.stem = nn.Conv2d(3, 9, 3)
    other.body = network.body
    other.extra = nn.Linear(2, 2)
    other.head = nn.Sequential(nn.Linear(3, 3))
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(ValueError, match="must be those of the network") as raised:
        load_weights(path, other)
    message = str(raised.value)
    assert "missing (stem.weight, stem.bias, extra.weight, extra.bias, head.0.weight, head.0.bias)" in message
    assert "left over (head.3.bias" in message
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_tensors_of_another_shape_are_named(path, network):
    network.head[3] = nn.Linear(16, 9)
    with pytest.raises(ValueError, match=r"2 of another shape \(head.3.weight \[6, 16\] for \[9, 16\], head.3.bias"):
        load_weights(path, network)


def test_truncated_files_are_refused(path):
    content = path.read_bytes()
    for length in (0, 4, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="cannot read the checkpoint"):
            load_model(path)


def test_foreign_files_are_refused(path, tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="cannot read the checkpoint"):
        load_model(tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"cannot read the checkpoint .*"):
        load_model(tmp_path / "nowhere.safetensors")
    for header in (None, {"format": "pt"}, {"leanconv": "no json"}, {"leanconv": json.dumps({"recipe": {}})}):
        save_file({"weight": torch.zeros(2)}, path, header)
        with pytest.raises(ValueError, match="must be a checkpoint that leanconv wrote"):
            load_model(path)


def test_swapped_and_fused_models_come_back(network, quick, tmp_path):
    """What surgery did after the recipe's own operator is in the header, and is done again before the weights go in."""
    images, config = torch.randn(3, 3, 16, 16), configuration(quick, open_data(quick))
    dense = build_network(quick, open_data(quick))
    plan = surgery.plan(dense, "tied", blocks=4)
    lean = surgery.swap(dense, plan).eval()
    for module in lean.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    config["plans"] = [plan.to_yaml()]
    save_model(tmp_path / "lean.safetensors", lean, config)
    assert torch.equal(load_model(tmp_path / "lean.safetensors")[0](images), lean(images))
    fused = fused_network(lean, config)
    save_model(tmp_path / "fused.safetensors", fused, {**config, "fused": list(fused.fusion.kept)})
    loaded = load_model(tmp_path / "fused.safetensors")[0]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in loaded.modules())
    torch.testing.assert_close(loaded(images), lean(images), rtol=1e-4, atol=1e-5)


def test_a_network_made_by_a_plan_can_be_trained_on(quick, tmp_path):
    data = open_data(quick)
    dense = build_network(quick, data)
    plan = surgery.plan(dense, "tied", blocks=4, where={"min_channels": 8})
    lean = surgery.swap(dense, plan)
    config = {**configuration(quick, data), "plans": [plan.to_yaml()]}
    save_model(tmp_path / "lean.safetensors", lean, config)
    further = dataclasses.replace(quick, weights=tmp_path / "lean.safetensors", epochs=1, warmup_epochs=0)
    started = build_network(further, data)
    assert all(torch.equal(tensor, started.state_dict()[name]) for name, tensor in lean.state_dict().items())
    train(further, tmp_path / "run", progress=False)
    trained = load_model(tmp_path / "run" / "model.safetensors")[0]
    assert trained.state_dict().keys() == lean.state_dict().keys()
    with pytest.raises(ValueError, match=r"'tied:blocks=2', 6, 3\), got \(.*'dense', 6, 3\)"):
        build_network(dataclasses.replace(further, operator="tied:blocks=2"), data)
    save_model(tmp_path / "fused.safetensors", lean, {**config, "fused": []})
    with pytest.raises(ValueError, match="which is fused"):
        build_network(dataclasses.replace(further, weights=tmp_path / "fused.safetensors"), data)
