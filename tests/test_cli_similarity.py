
import pytest
import torch
from command_line import complaint, csv_rows
from PIL import Image
from torch import nn

from leanconv.cli import main
from leanconv.measure import filter_similarity, map_similarity, reconstruction_error, weight_similarity
from leanconv.models import create
from leanconv.tasks import Recipe, save_model
from leanconv.tasks.checkpoint import configuration
from leanconv.tasks.data import ImageInfo
from leanconv.tasks.specimen import pictures

INFO = ImageInfo(
    num_classes=10, in_chans=1, image_size=8, mean=(0.5,), std=(0.25,), classes=tuple(map(str, range(10)))
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    network = create("cifar_resnet20", num_classes=10, in_chans=1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.bias)
    path = tmp_path_factory.mktemp("similarity") / "dense.safetensors"
    save_model(path, network, configuration(Recipe(model="cifar_resnet20", image_size=8), INFO))
    return path, network.eval()


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (3, 8, 8), generator=generator, dtype=torch.uint8)
    for number, each in enumerate(pixels):
        Image.fromarray(each.numpy()).save(folder / f"{number}.png")
    return folder, pictures(INFO, [folder]).batch(range(3))[0]


def test_patterns_of_two_networks(capsys, tmp_path, checkpoint, shown):
    (path, network), (folder, batch) = checkpoint, shown
    other = create("cifar_resnet20", num_classes=10, in_chans=1)
    second = tmp_path / "other.safetensors"
    save_model(second, other, configuration(Recipe(model="cifar_resnet20", image_size=8), INFO))
    out = tmp_path / "out"
    options = ["--images", folder, "--filters", 3, "--seed", 1, "--layers", "layer1.*.conv2", "--out", out]
    main(["similarity", str(path), str(second), *map(str, options)])
    text = capsys.readouterr().out
    assert text.endswith(f"report: {out / 'report.html'}\n")
    expected = filter_similarity(network, batch, "layer1.*.conv2", filters=3, seed=1)
    found = csv_rows(out / "similarity.csv")
    assert [row["model"] for row in found] == ["dense"] * 3 + ["other"] * 3
    for row, layer in zip(found, expected.layers, strict=False):
        assert (row["layer"], row["filters"], row["of"]) == (layer.name, "3", "16")
        assert f"{layer.mean:.3f} ± {layer.error:.3f}" in text
        numbers = [float(row[name]) for name in ("mean", "error", "lower quartile", "median", "upper quartile")]
        assert numbers == pytest.approx([layer.mean, layer.error, *layer.quartiles], abs=1e-5)
    bins = csv_rows(out / "histogram.csv")
    assert len(bins) == 6 * 40
    shares = [float(row["share of pairs"]) for row in bins[:40]]
    assert shares == pytest.approx(expected.layers[0].histogram()[0].tolist())
    assert (bins[0]["from"], bins[39]["to"]) == ("-1", "1")
    made = csv_rows(out / "reconstruction.csv")
    pair = reconstruction_error(network, batch).pairs[0]
    assert (made[0]["layer"], made[0]["source"], made[0]["target"]) == ("layer1.0", str(pair.source), str(pair.target))
    assert float(made[0]["squared error"]) == pytest.approx(pair.errors[1], rel=1e-4)
    for name in ("similarity", "matrices", "maps", "reconstruction"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "report.html").read_text()
    assert f"dense {expected.mean:.3f}" in page
    assert page.count("<svg") == 4


def test_half_precision_and_all_filters(capsys, tmp_path, checkpoint, shown):
    (path, network), (folder, batch) = checkpoint, shown
    options = ["--images", folder, "--filters", 0, "--layers", "layer1.0.conv2", "--precision", "bf16"]
    main(["similarity", *map(str, [path, *options, "--out", tmp_path])])
    (row,) = csv_rows(tmp_path / "similarity.csv")
    half = create("cifar_resnet20", num_classes=10, in_chans=1)
    half.load_state_dict(network.state_dict())
    (layer,) = filter_similarity(half.bfloat16().eval(), batch.bfloat16(), "layer1.0.conv2", filters=None).layers
    assert (row["filters"], row["of"]) == ("16", "16")
    assert float(row["mean"]) == pytest.approx(layer.mean, abs=1e-4)
    (exact,) = filter_similarity(network, batch, "layer1.0.conv2", filters=None).layers
    assert float(row["mean"]) != pytest.approx(exact.mean, abs=1e-7)
    assert "lower quartile" in capsys.readouterr().out  # a single network's own table


def test_maps_and_weights(capsys, tmp_path, checkpoint, shown):
    (path, network), (folder, batch) = checkpoint, shown
    main(["similarity", str(path), "--kind", "maps", "--images", str(folder), "--out", str(tmp_path / "maps")])
    expected = [layer.mean for layer in map_similarity(network, batch).layers]
    found = csv_rows(tmp_path / "maps" / "similarity.csv")
    assert [float(row["mean"]) for row in found] == pytest.approx(expected, abs=1e-5)
    main(["similarity", str(path), "--kind", "weights", "--out", str(tmp_path / "weights")])
    expected = [layer.mean for layer in weight_similarity(network).layers]
    found = csv_rows(tmp_path / "weights" / "similarity.csv")
    assert [float(row["mean"]) for row in found] == pytest.approx(expected, abs=1e-5)
    assert not (tmp_path / "weights" / "maps.png").exists()


def test_mistakes_are_told_in_one_line(capsys, tmp_path, checkpoint, shown):
    path, folder = checkpoint[0], shown[0]
    base = [path, "--images", folder, "--out", tmp_path / "out"]
    assert "unknown layer 'layer1.0.conv3': did you mean 'layer1.0.conv" in complaint(
        capsys, "similarity", *base, "--layers", "layer1.0.conv3")
    assert "filters must be at least 0, got -1" in complaint(capsys, "similarity", *base, "--filters", "-1")
    for kind in ("patterns", "weights"):
        assert "models must be at least one" in complaint(capsys, "similarity", "--kind", kind)
    source = tmp_path / "net.py"
    source.write_text("from torch import nn\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 4, 3))\n")
    tokens = [f"{source}:net", "--image-size", 8, "--images", folder, "--out", tmp_path / "out"]
    text = complaint(capsys, "similarity", *tokens)
    assert "model must have a ReLU" in text
