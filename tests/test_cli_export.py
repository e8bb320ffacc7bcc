"""The commands that ship networks, run as a user does: export, verify, quantize, and eval of a file."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from command_line import complaint
from torch import nn

from leanconv.cli import main
from leanconv.surgery import packaging
from leanconv.surgery.verifying import OnnxFile
from leanconv.tasks import Recipe, load_model, save_model
from leanconv.tasks.checkpoint import configuration
from leanconv.tasks.data import ImageInfo

pytest.importorskip("onnxruntime")

INFO = ImageInfo(num_classes=2, in_chans=1, image_size=16, mean=(0.5,), std=(0.25,), classes=("dark", "light"))
NETWORK = """
from torch import nn


def network(num_classes=10, in_chans=3):
    return nn.Sequential(nn.Conv2d(in_chans, 4, 3, bias=False), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(4, num_classes))
"""


def command(capsys, *tokens: object) -> str:
    main([str(token) for token in tokens])
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint that tells dark images from light ones but for one, and such images."""
    folder = tmp_path_factory.mktemp("shipped")
    (folder / "network.py").write_text(NETWORK)
    data = f"arrays:{folder / 'images.npz'}"
    config = configuration(Recipe(model=f"{folder / 'network.py'}:network", data=data), INFO)
    for seed, name in enumerate(("model", "other")):
        torch.manual_seed(seed)
        namespace: dict = {}
        exec(NETWORK, namespace)
        network: nn.Module = namespace["network"](2, 1)
        with torch.no_grad():
            if name == "model":
                network[0].weight.fill_(1.0)
                network[4].weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, 4))
                network[4].bias.zero_()
        save_model(folder / f"{name}.safetensors", network, config)
    random = np.random.default_rng(0)
    labels = np.arange(40) % 2
    images = (60 + 120 * labels[:, None, None, None] + random.integers(0, 20, (40, 16, 16, 1))).astype(np.uint8)
    wrong = labels[-20:].copy()
    wrong[0] = 1 - wrong[0]
    np.savez(folder / "images.npz", images=images[:20], labels=labels[:20], test_images=images[-20:],
             test_labels=wrong, classes=np.array(INFO.classes))
    return folder


@pytest.fixture(scope="module")
def exported(folder):
    main(["export", str(folder / "model.safetensors"), "-o", str(folder / "model.onnx")])
    return folder / "model.onnx"


def test_export_and_verify(capsys, folder, exported, monkeypatch) -> None:
    model, other = folder / "model.safetensors", folder / "other.safetensors"
    said = OnnxFile(exported).session.get_modelmeta().custom_metadata_map
    assert (said["classes"], said["mean"], said["shape"]) == ('["dark", "light"]', "[0.5]", "1,1,16,16")
    assert "equal" in command(capsys, "verify", exported, "--against", model)
    assert "differs from the model" in complaint(capsys, "verify", exported, "--against", other)
    assert "cannot read the checkpoint" in complaint(capsys, "verify", exported, "--against", exported)
    assert "must be an ONNX file" in complaint(capsys, "verify", model, "--against", model)
    assert ".onnx or .pt2" in complaint(capsys, "export", model, "-o", folder / "model.pt")
    assert "open" in complaint(capsys, "export", model, "-o", exported, "--open", "height")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert "pip install 'leanconv[export]'" in complaint(capsys, "export", model, "-o", exported)


def test_export_of_a_package(capsys, folder, monkeypatch) -> None:
    network, _ = load_model(folder / "model.safetensors")
    monkeypatch.setattr(packaging, "compile_into", lambda path, *given: path.write_text("package"))
    monkeypatch.setattr(packaging, "Package", lambda path: network)
    said = command(capsys, "export", folder / "model.safetensors", "-o", folder / "model.pt2")
    assert "largest relative difference 0.0e+00" in said
    assert (folder / "model.pt2").read_text() == "package"


def test_eval_of_a_file_is_that_of_its_checkpoint(capsys, folder, exported) -> None:
    data = f"arrays:{folder / 'images.npz'}"
    expected = command(capsys, "eval", folder / "model.safetensors")
    assert "accuracy 95.00%" in expected
    said = command(capsys, "eval", exported, "--data", data)
    assert said.splitlines()[:-1] == expected.splitlines()[:-1]  # the last line names the seconds
    assert "data must be given" in complaint(capsys, "eval", exported)


def test_quantize(capsys, folder, exported) -> None:
    data, out = f"arrays:{folder / 'images.npz'}", folder / "int8.onnx"
    said = command(capsys, "quantize", exported, "-o", out, "--data", data, "--calibrate", 8)
    rows = {line.split()[0]: line for line in said.splitlines() if line.lstrip().startswith(str(folder))}
    assert "95.00%" in rows[str(exported)]
    assert "95.00%" in rows[str(out)]
    assert "20 test images; ranges from 8 training images" in said
    metadata = OnnxFile(out).session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["quantized"]) == {"images": 8, "skip": []}
    assert "accuracy 95.00%" in command(capsys, "eval", out, "--data", data)
    command(capsys, "quantize", exported, "-o", out, "--data", data, "--skip", "0", "4")
    assert json.loads(OnnxFile(out).session.get_modelmeta().custom_metadata_map["quantized"])["skip"] == ["0", "4"]
    for tokens, text in (((exported, "--calibrate", "0"), "calibrate must be at least 1"),
                         ((exported, "--skip", "blocks"), "unknown layer 'blocks'"),
                         ((out,), "isn't quantised"),
                         ((folder / "model.safetensors",), "must be an ONNX file")):
        assert text in complaint(capsys, "quantize", *tokens, "-o", folder / "none.onnx", "--data", data)


def test_a_file_that_says_nothing_of_its_images(capsys, tmp_path) -> None:
    from leanconv import export_onnx

    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    export_onnx(pooled, tmp_path / "model.onnx", (1, 1, 16, 16))
    assert "its metadata must name mean, std and classes" in complaint(
        capsys, "eval", tmp_path / "model.onnx", "--data", "digits")
    export_onnx(nn.ReLU(), tmp_path / "maps.onnx", (1, 1, 16, 16))
    assert "must hold a classifier" in complaint(capsys, "eval", tmp_path / "maps.onnx", "--data", "digits")


def test_fuse_says_whose_weights_are_furthest_apart(capsys, folder) -> None:
    out = folder / "fused.safetensors"
    said = command(capsys, "fuse", folder / "model.safetensors", "--out", out)
    assert "before → after, at most: 0 1.0× → 1.0×" in said
    said = command(capsys, "fuse", folder / "model.safetensors", "--out", out, "--ranges")
    assert "Ranges of the weights" in said
