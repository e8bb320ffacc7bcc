"""Packages of AOTInductor: the same numbers at other batches and sizes, nothing half written."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import leanconv as lc
from leanconv.nn import TiedConv2d
from leanconv.surgery import packaging


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(TiedConv2d(4, 8, 3, 2, blocks=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                          nn.Flatten(), nn.Linear(8, 5))
    nn.init.uniform_(model[1].running_var, 0.5, 2)
    return model


@pytest.mark.slow
def test_it_gives_the_models_numbers_at_other_sizes(tmp_path) -> None:
    model, path = network(), tmp_path / "model.pt2"
    assert lc.export_package(model, path, (1, 4, 16, 16)) < 1e-5
    assert model.training
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt2"]
    package = packaging.Package(path)
    for shape in ((1, 4, 16, 16), (2, 4, 21, 18)):
        images = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = model.eval()(images)
        assert (package(images) - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.fixture
def compiled(monkeypatch):
    """Has each package give the numbers of a model without its being compiled."""
    def use(model: nn.Module) -> None:
        monkeypatch.setattr(packaging, "compile_into", lambda path, *given: path.write_text("new"))
        monkeypatch.setattr(packaging, "Package", lambda path: model)

    return use


def test_other_numbers_are_refused_and_leave_what_was_there(compiled, tmp_path) -> None:
    path = tmp_path / "model.pt2"
    path.write_text("old")
    model = network().eval()
    compiled(nn.Sequential(model, nn.Hardtanh(-1e-3, 1e-3)))
    with pytest.raises(RuntimeError, match="file differs from the model: relative error"):
        lc.export_package(model, path, (1, 4, 16, 16))
    assert path.read_text() == "old"
    compiled(model)
    assert lc.export_package(model, path, (1, 4, 16, 16)) == 0
    assert path.read_text() == "new"


def test_a_model_that_cannot_be_traced(tmp_path) -> None:
    class Branching(nn.Module):
        def forward(self, images):
            return images.relu() if float(images.sum()) > 0 else images

    with pytest.raises(ValueError, match="the model can't be compiled: "):
        lc.export_package(Branching(), tmp_path / "model.pt2", (2, 3, 8, 8))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("change", "message"), [
    ({"path": "model.onnx"}, r"FILE\.pt2, got .*model\.onnx"),
    ({"path": "nowhere/model.pt2"}, "a folder that exists, got .*nowhere"),
    ({"shape": (4, 8, 8)}, r"four positive whole numbers \(N, C, H, W\), got \(4, 8, 8\)"),
    ({"shape": (1, 3, 16, 16)}, "doesn't take input 1×3×16×16: "),
    ({"dynamic": "height"}, "dynamic must be True, 'batch' or False, got 'height'"),
])  # fmt: skip
def test_bad_arguments(change: dict, message: str, tmp_path) -> None:
    given = {"path": "model.pt2", "shape": (1, 4, 16, 16), **change}
    with pytest.raises(ValueError, match=message):
        lc.export_package(network(), **{**given, "path": tmp_path / given["path"]})
