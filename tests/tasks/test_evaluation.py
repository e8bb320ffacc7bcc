import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from leanconv.tasks import Result, evaluate, load_model, open_data, save_model, train


def test_a_finished_training_is_tested_as_it_was(finished):
    evaluation, result = evaluate(finished), Result.load(finished)
    assert evaluation.accuracy == result.scores["accuracy"] > 0.7
    assert evaluation.top5 == result.scores["top5"]
    assert evaluation.loss == pytest.approx(result.scores["loss"], rel=1e-5)
    assert evaluation.images == 48
    assert evaluate(finished / "model.safetensors").accuracy == evaluation.accuracy


def test_the_accuracy_of_each_class(finished, quick):
    network, _ = load_model(finished / "model.safetensors")
    data = open_data(quick)
    images, labels = data.test.batch(range(48))
    with torch.inference_mode():
        logits = network(images)
    right = logits.argmax(1) == labels
    evaluation = evaluate(network, data, accelerator="cpu", batch_size=10)
    assert list(evaluation.per_class) == list("012345")
    for name, accuracy in evaluation.per_class.items():
        assert accuracy == pytest.approx(right[labels == int(name)].float().mean().item())
    assert evaluation.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)


def test_a_module_is_left_as_it_is(finished, quick):
    network, _ = load_model(finished / "model.safetensors")
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    evaluate(network, open_data(quick), accelerator="cpu")
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    with pytest.raises(ValueError, match="data must be given to test a module"):
        evaluate(network)


def test_other_data_is_normalised_as_the_training_data(finished, quick, colours, tmp_path):
    """Darker images keep their darkness: their own mean would hide it."""
    with np.load(colours) as arrays:
        dark = arrays["images"] // 4
        labels = arrays["labels"]
    np.savez(tmp_path / "dark.npz", images=dark, labels=labels)
    evaluation = evaluate(finished, f"arrays:{tmp_path / 'dark.npz'}")
    network, config = load_model(finished / "model.safetensors")
    data = open_data(dataclasses.replace(quick, data=f"arrays:{tmp_path / 'dark.npz'}"))
    shift, scale = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
    with torch.inference_mode():
        logits = network((data.test.images / 255 - shift) / scale)
    assert evaluation.loss == pytest.approx(F.cross_entropy(logits, data.test.labels).item(), rel=1e-4)


def test_classes_without_images_are_left_out(finished, colours, tmp_path):
    with np.load(colours) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    few = labels < 2
    np.savez(tmp_path / "a.npz", images=images, labels=labels, test_images=images[few], test_labels=labels[few])
    assert list(evaluate(finished, f"arrays:{tmp_path / 'a.npz'}").per_class) == ["0", "1"]


def test_data_of_another_kind_is_refused(finished):
    with pytest.raises(ValueError, match="in_chans of the data must be the network's 3, got 1"):
        evaluate(finished, "digits")


def test_a_network_with_other_classes_is_refused(quick):
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    with pytest.raises(ValueError, match=r"must give 6 scores for an image.*got shape \(24, 3\) for 24 images"):
        evaluate(network, open_data(quick), accelerator="cpu", batch_size=32)


def test_overrides_are_keys_of_the_recipe(finished):
    assert evaluate(finished, limit=10).images == 10
    with pytest.raises(ValueError, match="unknown recipe key 'batchsize': did you mean 'batch_size'"):
        evaluate(finished, batchsize=10)


def test_any_batch_size_will_do_whatever_the_training_needed(quick, tmp_path):
    train(dataclasses.replace(quick, epochs=1, mixup=0.4, cutmix=1.0), tmp_path)
    assert evaluate(tmp_path, batch_size=7).images == 48


def test_how_a_training_varied_its_images_does_not_matter(finished, quick, tmp_path):
    """Some of it would need a folder of pictures."""
    network, config = load_model(finished / "model.safetensors")
    varied = {"crop_area": [0.5, 1.0], "rand_augment": "rand-m7", "erasing": 0.4, "mean": [0.5] * 3, "std": [0.2] * 3}
    config["recipe"] = {**config["recipe"], **varied, "data": "imagefolder:gone"}
    save_model(tmp_path / "model.safetensors", network, config)
    assert evaluate(tmp_path, quick.data).loss == evaluate(finished).loss


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read the checkpoint .*model.safetensors"):
        evaluate(tmp_path)


def test_printed_it_is_a_table(finished):
    text = str(evaluate(finished))
    assert "48 test images" in text
    assert "top-5" in text
    assert "class   accuracy" in text
