"""ONNX files: the same numbers at other batches and sizes, standard operators, nothing half written."""

from __future__ import annotations

import signal
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.onnx import ops as onnx_ops

import leanconv as lc
import leanconv.models
from leanconv.surgery import exporting, verifying
from leanconv.surgery.verifying import OnnxFile, shapes_to_run

pytest.importorskip("onnxruntime")

NETWORKS = {
    "tied": "tied_resnet50",
    "asymmetric": "ac_resnet18",
    "ghost": "ghost_resnet50_s2",
    "split": "split_resnet50_a2",
    "ddf": "ddf_mul_resnet50",
}


def randomise(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    return model.eval()


def small_resnet(name: str) -> nn.Module:
    return timm.create_model(name, layers=(1, 1, 1, 1), channels=(16, 16, 32, 32), num_classes=7)


def equal_at_other_sizes(model: nn.Module, path: Path, shape: tuple[int, ...]) -> None:
    """Exports, and compares the file's numbers with the model's once more, with other images than the export did."""
    assert lc.export_onnx(model, path, shape) < 1e-5
    session, random = OnnxFile(path).session, torch.Generator().manual_seed(1)
    _, channels, height, width = shape
    for other in (shape, (2, channels, height + 8, width + 5)):
        images = torch.randn(other, generator=random)
        with torch.no_grad():
            expected = model(images)
        (output,) = session.run(None, {"input": images.numpy()})
        assert output.shape == expected.shape
        assert (torch.from_numpy(output) - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("operator", NETWORKS)
def test_networks_of_every_operator(operator: str, tmp_path) -> None:
    equal_at_other_sizes(randomise(small_resnet(NETWORKS[operator])), tmp_path / "model.onnx", (1, 3, 64, 64))


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["tied", "ghost"])
def test_fused_networks(operator: str, tmp_path) -> None:
    model = randomise(small_resnet(NETWORKS[operator]))
    equal_at_other_sizes(lc.fuse(model, torch.randn(1, 3, 64, 64)), tmp_path / "model.onnx", (1, 3, 64, 64))


@pytest.mark.slow
def test_a_swapped_network(tmp_path) -> None:
    model = randomise(timm.create_model("cifar_resnet20", num_classes=7, operator="tied:blocks=2"))
    equal_at_other_sizes(model, tmp_path / "model.onnx", (2, 3, 32, 32))
    equal_at_other_sizes(lc.fuse(model, torch.randn(1, 3, 32, 32)), tmp_path / "fused.onnx", (2, 3, 32, 32))


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.Linear(8, 10)

    def forward(self, images):
        return self.head(self.norm(self.conv(images)).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return randomise(Classifier())


@pytest.fixture(scope="module")
def exported(model: nn.Module, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    model.train()
    assert lc.export_onnx(model, path, (1, 3, 16, 16), metadata={"classes": "a b"}) < 1e-5
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    return path


def test_the_file_says_where_it_comes_from_and_what_it_takes(exported: Path) -> None:
    session = OnnxFile(exported).session
    said = session.get_modelmeta().custom_metadata_map
    assert int(said.pop("opset")) >= 18
    versions = {"leanconv": lc.__version__, "torch": version("torch"), "onnx": version("onnx")}
    assert said == {**versions, "shape": "1,3,16,16", "classes": "a b"}
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]


def test_the_shapes_that_are_run() -> None:
    assert shapes_to_run((4, 3, 8, 9), {}) == [(4, 3, 8, 9)]
    assert shapes_to_run((4, 3, 8, 9), {0: "batch"}) == [(4, 3, 8, 9), (1, 3, 8, 9)]
    assert shapes_to_run((1, 3, 8, 9), exporting.AXES[True]) == [(1, 3, 8, 9), (3, 3, 21, 36)]


def test_verify_tells_the_model_from_others(exported: Path, model: nn.Module) -> None:
    model.train()
    assert lc.verify(exported, model) < 1e-5
    assert model.training
    with pytest.raises(RuntimeError, match=r"differs from the model: relative error .* for input 1×3×16×16, above"):
        lc.verify(exported, randomise(nn.Sequential(Classifier(), nn.Identity(), nn.Hardtanh(-0.1, 0.1))))
    with pytest.raises(RuntimeError, match="relative error inf"):
        lc.verify(exported, nn.Conv2d(3, 4, 1))
    with pytest.raises(ValueError, match="doesn't take input 1×3×16×16: "):
        lc.verify(exported, nn.Conv2d(4, 4, 1))


def test_a_difference_that_only_another_size_shows(exported: Path, model: nn.Module) -> None:
    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, images):
            return self.inner(images) * (2 if images.shape[2] > 16 else 1)

    with pytest.raises(RuntimeError, match=r"for input 3×3×29×43 \(with dynamic='batch'"):
        lc.verify(exported, Sized())


def test_files_that_verify_refuses(exported: Path, model: nn.Module, tmp_path) -> None:
    import onnx

    content = exported.read_bytes()
    for name, text in (("cut.onnx", content[: len(content) // 2]), ("text.onnx", b"hello"), ("empty.onnx", b"")):
        (tmp_path / name).write_bytes(text)
        with pytest.raises(ValueError, match=f"{name} must be "):
            lc.verify(tmp_path / name, model)
    with pytest.raises(ValueError, match="there is no such file"):
        lc.verify(tmp_path / "none.onnx", model)
    for key, value in (("shape", "1,3,16"), ("shape", "a"), ("shape", "1,4,16,16"), ("other", "")):
        theirs = onnx.load(exported)
        del theirs.metadata_props[:]
        onnx.helper.set_model_props(theirs, {key: value})
        onnx.save(theirs, tmp_path / "theirs.onnx")
        with pytest.raises(ValueError, match="must be a file that export_onnx wrote"):
            lc.verify(tmp_path / "theirs.onnx", model)


def test_sizes_that_the_exporter_fixes_are_found(tmp_path) -> None:
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(36, 5))
    path = tmp_path / "model.onnx"
    with pytest.raises(RuntimeError, match=r"for input 3×3×25×39 \(with dynamic='batch', height and width can stay"):
        lc.export_onnx(pooled, path, (1, 3, 12, 12))
    assert not list(tmp_path.iterdir())
    assert lc.export_onnx(pooled, path, (1, 3, 12, 12), dynamic="batch") < 1e-5
    assert OnnxFile(path).session.get_inputs()[0].shape == ["batch", 3, 12, 12]


def test_a_model_of_one_size(tmp_path) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
    with pytest.raises(ValueError, match=r"doesn't take input 3×3×21×35 \(with dynamic='batch'"):
        lc.export_onnx(flat, tmp_path / "model.onnx", (1, 3, 8, 8))
    lc.export_onnx(flat, tmp_path / "model.onnx", (1, 3, 8, 8), dynamic=False)
    assert OnnxFile(tmp_path / "model.onnx").session.get_inputs()[0].shape == [1, 3, 8, 8]


def test_several_outputs(tmp_path) -> None:
    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 8, 3, 2)

        def forward(self, images):
            features = self.first(images)
            return [features, {"deep": self.second(features)}]

    lc.export_onnx(Features(), tmp_path / "model.onnx", (1, 3, 16, 16))
    assert len(OnnxFile(tmp_path / "model.onnx").session.get_outputs()) == 2


def test_custom_operators_are_refused(tmp_path) -> None:
    class Custom(nn.Module):
        def forward(self, images):
            return onnx_ops.symbolic("mine::Double", (images,), dtype=images.dtype, shape=images.shape, version=1)

    with pytest.raises(ValueError, match="standard operators, it needs mine::Double"):
        lc.export_onnx(Custom(), tmp_path / "model.onnx", (2, 3, 8, 8))
    assert not list(tmp_path.iterdir())


def test_a_model_that_cannot_be_traced(tmp_path) -> None:
    class Branching(nn.Module):
        def forward(self, images):
            return images.relu() if float(images.sum()) > 0 else images

    with pytest.raises(ValueError, match="the model can't be exported: "):
        lc.export_onnx(Branching(), tmp_path / "model.onnx", (2, 3, 8, 8))


@pytest.mark.parametrize(("change", "message"), [
    ({"path": "model.pt"}, "FILE.onnx, got .*model.pt"),
    ({"path": "folder.onnx"}, "FILE.onnx, got .*folder.onnx"),
    ({"path": "nowhere/model.onnx"}, "a folder that exists, got .*nowhere"),
    ({"shape": (3, 8, 8)}, r"four positive whole numbers \(N, C, H, W\), got \(3, 8, 8\)"),
    ({"shape": (1, 3, 0, 8)}, "four positive whole numbers"),
    ({"shape": (1, 3, 8.0, 8)}, "four positive whole numbers"),
    ({"shape": (1, 4, 8, 8)}, "doesn't take input 1×4×8×8: "),
    ({"dynamic": "height"}, "dynamic must be True, 'batch' or False, got 'height'"),
    ({"metadata": {"opset": "3", "torch": ""}}, "metadata can't say opset, torch"),
    ({"model": Classifier().half()}, "weights in float32, got conv.weight in torch.float16"),
    ({"model": Classifier().to("meta")}, "conv.weight on the meta device"),
])  # fmt: skip
def test_bad_arguments(change: dict, message: str, model: nn.Module, tmp_path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    given = {"model": model, "path": "model.onnx", "shape": (1, 3, 8, 8), **change}
    with pytest.raises(ValueError, match=message):
        lc.export_onnx(**{**given, "path": tmp_path / given["path"]})


def test_without_the_extra(model: nn.Module, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for use in (lambda: lc.export_onnx(model, tmp_path / "model.onnx", (1, 3, 8, 8)),
                lambda: lc.verify(tmp_path / "model.onnx", model)):
        with pytest.raises(ImportError, match=r"ONNX files need onnxruntime: pip install 'leanconv\[export\]'"):
            use()


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """Exports without tracing again, over a file that is there already."""
    with torch.no_grad():
        program = exporting.traced(verifying.on_cpu(nn.Conv2d(3, 64, 3)), (1, 3, 8, 8), {})
    monkeypatch.setattr(exporting, "traced", lambda *given: program)
    path = tmp_path / "model.onnx"
    path.write_text("old")
    return path


def test_interrupted_or_out_of_space_it_leaves_what_was_there(quick: Path, monkeypatch) -> None:
    conv = nn.Conv2d(3, 64, 3)  # has other weights than the program
    with pytest.raises(RuntimeError, match="differs"):
        lc.export_onnx(conv, quick, (1, 3, 8, 8), dynamic=False)
    with monkeypatch.context() as patched:
        patched.setattr(exporting, "largest_difference", lambda *given: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            lc.export_onnx(conv, quick, (1, 3, 8, 8), dynamic=False)
    if sys.platform != "win32":
        import resource

        old, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
            with pytest.raises(OSError, match=r"cannot write into .*: File too large"):
                lc.export_onnx(conv, quick, (1, 3, 8, 8), dynamic=False)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, old)
    assert [path.name for path in quick.parent.iterdir()] == ["model.onnx"]
    assert quick.read_text() == "old"


def test_large_weights_are_put_beside_the_file(quick: Path, monkeypatch) -> None:
    monkeypatch.setattr("torch.onnx._internal.exporter._onnx_program._LARGE_MODEL_THRESHOLD", 10)
    monkeypatch.setattr(exporting, "largest_difference", lambda *given: 0.0)
    lc.export_onnx(nn.Conv2d(3, 64, 3), quick, (1, 3, 8, 8), dynamic=False)
    assert sorted(path.name for path in quick.parent.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert OnnxFile(quick)(torch.zeros(1, 3, 8, 8))[0].any()
    (quick.parent / "model.onnx.data").unlink()
    with pytest.raises(ValueError, match=r"model\.onnx must be an ONNX file that ONNX Runtime can run: "):
        OnnxFile(quick)
