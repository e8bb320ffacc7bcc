import json
import shutil

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

import leanconv
from leanconv.models.create import create, list_models
from leanconv.models.sharing import load, push_to_hub, save

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def small(**options):
    """A network that isn't as it was created: norms have seen something, and weights are laid out channels last."""
    network = create("cifar_resnet20", num_classes=4, **options).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.to(memory_format=torch.channels_last)


def equal(network, other, images=IMAGES):
    with torch.no_grad():
        torch.testing.assert_close(network(images), other(images), rtol=1e-4, atol=1e-5)
    state, copy = network.state_dict(), other.state_dict()
    return state.keys() == copy.keys() and all(torch.equal(tensor, copy[name]) for name, tensor in state.items())


def test_a_network_comes_back_with_its_options_classes_and_preprocessing(tmp_path):
    network = small(shortcut="B")
    preprocessing = {"input_size": (3, 48, 48), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6),
                     "interpolation": "bilinear", "crop_pct": 0.9}  # fmt: skip
    save(network, tmp_path / "a" / "b", classes=["a", "b", "c", "d"], preprocessing=preprocessing)
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["config.json", "model.safetensors"]
    again = load(tmp_path / "a" / "b")
    assert not again.training
    assert equal(again, network)
    assert again.pretrained_cfg["label_names"] == ["a", "b", "c", "d"]
    data = timm.data.resolve_model_data_config(again)
    found = {key: data[key] for key in preprocessing}
    assert {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()} == preprocessing


def test_timm_reads_and_writes_the_same_folders(tmp_path):
    network = small()
    save(network, tmp_path / "ours")
    name = f"local-dir:{tmp_path / 'ours'}"
    assert equal(timm.create_model(name, pretrained=True).eval(), network)
    assert create(name, pretrained=True, num_classes=7).fc.out_features == 7
    timm.models.save_for_hf(small(shortcut="B").to(memory_format=torch.contiguous_format), tmp_path / "theirs",
                            safe_serialization=True)  # fmt: skip
    assert load(tmp_path / "theirs").layer2[0].shortcut[0].kernel_size == (1, 1)


@pytest.mark.parametrize("operator", ["tied:blocks=2", "asymmetric", "ghost:ratio=3", "split", "ddf", "tied-se"])
def test_a_swapped_network_comes_back_by_its_plan(tmp_path, operator):
    network = create("resnet10t", num_classes=4) if operator == "tied-se" else small()
    plan = leanconv.plan(network, operator, scope="all", example=IMAGES)
    swapped = leanconv.swap(network, plan).eval()
    random = torch.random.get_rng_state()
    save(swapped, tmp_path, plans=[plan], classes=list("abcd"))
    assert torch.equal(torch.random.get_rng_state(), random)
    again = load(tmp_path)
    assert equal(again, swapped)
    assert equal(timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval(), swapped)
    assert timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=7)(IMAGES).shape == (2, 7)


def test_what_was_loaded_can_be_swapped_further_and_saved_again(tmp_path):
    network = small()
    first = leanconv.plan(network, "tied", where="layer2.*")
    save(leanconv.swap(network, first), tmp_path / "1", plans=[first])
    once = load(tmp_path / "1")
    second = leanconv.plan(once, "split", where="layer3.*", example=IMAGES)
    twice = leanconv.swap(once, second).eval()
    save(twice, tmp_path / "2", plans=[second])
    save(load(tmp_path / "2"), tmp_path / "3")
    assert equal(load(tmp_path / "3"), twice)
    kinds = {type(module).__name__ for module in load(tmp_path / "3").modules()}
    assert kinds >= {"TiedConv2d", "SplitConv2d"}


def test_networks_that_could_not_be_built_again_are_refused_and_nothing_is_written(tmp_path):
    network = small()
    save(network, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    swapped = leanconv.swap(network, leanconv.plan(network, "tied"))
    for model, options, message in [
        (swapped, {}, r"plans= are those that swapped it\), got 18 missing \(layer1.*, 18 left over \(layer1"),
        (leanconv.fuse(network, IMAGES), {}, "save it before, and fuse it after loading"),
        (nn.Conv2d(1, 2, 3), {}, "a whole network that timm knows by a name, got a Conv2d"),
        (timm.create_model("resnet10t", features_only=True), {}, "got a FeatureListNet"),
        (network, {"classes": ["a"]}, "classes must be as many as the network's 4, got 1"),
        (network, {"preprocessing": {"crop": 1}}, "unknown key of preprocessing 'crop': did you mean 'crop_"),
        (network, {"preprocessing": {"input_size": (1, 32, 32)}}, "Requested 1 input channels"),
    ]:
        with pytest.raises(ValueError, match=message):
            save(model, tmp_path, **options)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_damaged_folders_are_refused(tmp_path):
    save(small(), tmp_path)
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    good = config.read_text()
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"cannot read weights from .*model.safetensors"):
        load(tmp_path)
    for text in ("{", "[]", "{}", '"x"', json.dumps({**json.loads(good), "architecture": "cifar_resnet21"}),
                 good.replace('"global_pool"', '"shortcutt"')):  # fmt: skip
        config.write_text(text)
        with pytest.raises(ValueError, match=r"config.json must say how the network is built"):
            load(tmp_path)
    config.write_text(good.replace("cifar_resnet20", "cifar_resnet32"))
    save(small(), tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", weights)
    with pytest.raises(ValueError, match=r"must be those of the network, got .* missing"):
        load(tmp_path)
    config.unlink()
    with pytest.raises(ValueError, match=r"got no config.json"):
        load(tmp_path)


def test_a_network_goes_to_the_hub_and_comes_from_it(tmp_path, monkeypatch):
    network = small()
    plan = leanconv.plan(network, "tied")
    swapped = leanconv.swap(network, plan).eval()

    class Hub:
        def __init__(self, **options):
            pass

        def create_repo(self, name, private, exist_ok):
            assert exist_ok
            assert private
            return type("Place", (), {"repo_id": f"someone/{name}"})

        def file_exists(self, place, file):
            return (tmp_path / place / file).exists()

        def upload_folder(self, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, tmp_path / repo_id, dirs_exist_ok=True)
            return f"https://huggingface.co/{repo_id}"

    def snapshot_download(name, revision, allow_patterns):
        assert revision == "v2"
        assert allow_patterns == ["config.json", "model.safetensors"]
        return str(tmp_path / name)

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path.parent)
    for license in ("mit", "gpl-3.0"):
        place = push_to_hub(swapped, "lean", plans=[plan], license=license, private=True)
        assert place == "https://huggingface.co/someone/lean"
    card = (tmp_path / "someone" / "lean" / "README.md").read_text()
    assert "license: mit\n" in card
    assert 'models.load("someone/lean")' in card
    assert equal(load("someone/lean@v2"), swapped)
    assert load_file(tmp_path / "someone" / "lean" / "model.safetensors").keys() == swapped.state_dict().keys()


def test_a_name_that_the_hub_does_not_know_is_refused(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("someone/no_such_network_at_all", "not a name"):
        with pytest.raises(ValueError, match=f"no folder '{name}', and the Hugging Face Hub doesn't give a network"):
            load(name)


def test_what_builds_swapped_networks_is_no_network_by_itself():
    assert timm.is_model("leanconv_swapped")
    assert "leanconv_swapped" not in list_models() + list_models(own=True)
