"""ONNX files of 8 bits: near the float file, whole, ours, and where it was asked for in float."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import leanconv as lc
from leanconv.surgery import quantizing
from leanconv.surgery.verifying import OnnxFile

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


class Separable(nn.Module):
    """A depthwise convolution between two others, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 3, groups=8, bias=False)
        self.norm, self.point, self.head = nn.BatchNorm2d(8), nn.Conv2d(8, 16, 1), nn.Linear(16, 5)

    def forward(self, images):
        maps = self.norm(self.depthwise(self.stem(images).relu())).relu()
        return self.head(self.point(maps).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    model = Separable()
    nn.init.uniform_(model.norm.running_var, 0.5, 2)
    with torch.no_grad():
        model.point.weight.mul_(torch.logspace(-3, 0, 16).view(16, 1, 1, 1))  # channels of very different ranges
    return model.eval()


@pytest.fixture(scope="module")
def exported(model: nn.Module, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    lc.export_onnx(model, path, (2, 3, 17, 17), metadata={"classes": '["a"]'})
    return path


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape or (16, 3, 17, 17), generator=torch.Generator().manual_seed(seed))


def weights(path: Path) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}


def test_it_is_near_the_float_file_on_other_images(model, exported, tmp_path) -> None:
    out = tmp_path / "int8.onnx"
    before = exported.read_bytes()
    difference = lc.quantize_onnx(exported, out, [images(), (images(seed=1), torch.zeros(16))])
    assert 1e-6 < difference < 0.03
    assert exported.read_bytes() == before
    for shape in ((16, 3, 17, 17), (3, 3, 22, 19)):
        other = images(*shape, seed=2)
        with torch.no_grad():
            expected = model(other)
        (given,) = OnnxFile(out)(other)
        assert 1e-6 < (given - expected).abs().max() / expected.abs().max() < 0.05


def test_weights_have_a_scale_for_each_channel(exported, tmp_path) -> None:
    lc.quantize_onnx(exported, tmp_path / "int8.onnx", [images()])
    tensors = weights(tmp_path / "int8.onnx")
    stored = onnx.numpy_helper.to_array(tensors["point.weight_quantized"])
    assert stored.dtype == "int8"
    assert onnx.numpy_helper.to_array(tensors["point.weight_scale"]).shape == (16,)
    assert (abs(stored).reshape(16, -1).max(1) == 127).all()  # also of the channels of small weights


def test_the_metadata_are_kept_and_tell(exported, tmp_path) -> None:
    lc.quantize_onnx(exported, tmp_path / "int8.onnx", [images(), images()], skip=["depth*"])
    before, after = (OnnxFile(path).session.get_modelmeta().custom_metadata_map
                     for path in (exported, tmp_path / "int8.onnx"))
    assert json.loads(after.pop("quantized")) == {"images": 32, "skip": ["depth*"]}
    assert after == before
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"]
    with pytest.raises(ValueError, match="must be a file that isn't quantised"):
        lc.quantize_onnx(tmp_path / "int8.onnx", tmp_path / "again.onnx", [images()])


def test_layers_are_left_in_float(exported, tmp_path) -> None:
    lc.quantize_onnx(exported, tmp_path / "int8.onnx", [images()], skip=["depth*", "head"])
    kept = {name for name in weights(tmp_path / "int8.onnx") if "weight" in name and "_quant" not in name}
    assert {"depthwise.weight", "head.weight"} <= kept
    assert not {"stem.weight", "point.weight"} & kept
    with pytest.raises(ValueError, match=r"unknown layer 'blocks\.\*'"):
        lc.quantize_onnx(exported, tmp_path / "more.onnx", [images()], skip=["blocks.*"])


@pytest.mark.parametrize(("batches", "came"), [
    ([], "got none"),
    ([torch.zeros(2, 1, 17, 17)], r"\(batch, 3, height, width\), got \(2, 1, 17, 17\)"),
    ([torch.zeros(3, 17, 17)], r"got \(3, 17, 17\)"),
    ([torch.zeros(2, 3, 17, 17, dtype=torch.uint8)], "real images"),
    ([images(), "images"], "got str"),
])  # fmt: skip
def test_batches_that_are_none(batches, came: str, exported, tmp_path) -> None:
    with pytest.raises(ValueError, match=f"batches must hold .*{came}"):
        lc.quantize_onnx(exported, tmp_path / "int8.onnx", batches)
    assert not list(tmp_path.iterdir())


def test_files_that_it_refuses(exported, tmp_path) -> None:
    theirs = onnx.load(exported)
    del theirs.metadata_props[:]
    onnx.save(theirs, tmp_path / "theirs.onnx")
    with pytest.raises(ValueError, match="must be a file that export_onnx wrote"):
        lc.quantize_onnx(tmp_path / "theirs.onnx", tmp_path / "int8.onnx", [images()])
    (tmp_path / "large.onnx").write_bytes(exported.read_bytes())
    (tmp_path / "large.onnx.data").write_bytes(b"")
    with pytest.raises(ValueError, match="must be a file that holds its weights itself"):
        lc.quantize_onnx(tmp_path / "large.onnx", tmp_path / "int8.onnx", [images()])
    with pytest.raises(ValueError, match=r"FILE.onnx, got .*int8.bin"):
        lc.quantize_onnx(exported, tmp_path / "int8.bin", [images()])


def test_interrupted_it_leaves_what_was_there(exported, tmp_path, monkeypatch) -> None:
    (tmp_path / "int8.onnx").write_text("old")

    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(quantizing, "difference", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lc.quantize_onnx(exported, tmp_path / "int8.onnx", [images()])
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"]
    assert (tmp_path / "int8.onnx").read_text() == "old"
