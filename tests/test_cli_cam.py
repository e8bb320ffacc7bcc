
import numpy as np
import pytest
import torch
from command_line import complaint, csv_rows
from PIL import Image

from leanconv.cli import main
from leanconv.models import create
from leanconv.tasks import Recipe, save_model
from leanconv.tasks.checkpoint import configuration
from leanconv.tasks.data import ImageInfo

INFO = ImageInfo(num_classes=10, in_chans=1, image_size=16, mean=(0.3,), std=(0.3,),
                 classes=tuple(map(str, range(10))))  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two checkpoints lie, one of them in the folder of a training."""
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    (folder / "tied").mkdir()
    for path in (folder / "dense.safetensors", folder / "tied" / "model.safetensors"):
        save_model(path, create("cifar_resnet20", num_classes=10, in_chans=1), configuration(Recipe(), INFO))
    return folder


def test_networks_are_shown_side_by_side(capsys, folder, tmp_path):
    out = tmp_path / "out"
    models = [str(folder / "dense.safetensors"), str(folder / "tied")]
    main(["cam", *models, "--limit", "3", "--guided", "--out", str(out)])
    printed = capsys.readouterr().out
    head, _, *rows, last = printed.splitlines()
    assert head.split() == ["image", "model", "class", "probability", "label"]
    assert last == f"report: {out / 'report.html'}"
    lines = csv_rows(out / "cam.csv")
    assert [(line["image"], line["model"]) for line in lines] == [
        (str(image), model) for image in (1, 2, 3) for model in ("dense", "tied")
    ]
    for row, line in zip(rows, lines, strict=True):
        assert row.split() == [line["image"], line["model"], line["class"], f"{float(line['probability']):.3f}",
                               line["label"]]  # fmt: skip
        assert 0.1 <= float(line["probability"]) <= 1
        with Image.open(out / "overlays" / line["model"] / f"{line['image']}.png") as picture:
            assert picture.size == (224, 224)
            assert np.ptp(np.asarray(picture)) > 20
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3 * 5
    assert "layer3.2" in page
    with Image.open(out / "cam.png") as picture:
        assert picture.width > picture.height


def test_a_class_is_named_or_numbered_and_a_layer_chosen(capsys, folder, tmp_path):
    tokens = ["cam", str(folder / "tied"), "--limit", "2", "--out", str(tmp_path)]
    main([*tokens, "--target", "7", "--layer", "layer1.2"])
    rows = capsys.readouterr().out.splitlines()[2:-1]
    assert [row.split()[2] for row in rows] == ["7", "7"]
    page = (tmp_path / "report.html").read_text()
    assert "Grad-CAM of layer1.2, " in page
    assert "✓" not in page


def test_image_files_have_no_label(capsys, folder, tmp_path):
    Image.new("RGB", (40, 30), "orange").save(tmp_path / "orange.png")
    main(["cam", str(folder / "tied"), "--out", str(tmp_path / "out"), "--images", str(tmp_path / "orange.png")])
    [row] = capsys.readouterr().out.splitlines()[2:-1]
    assert row.split()[0] == "1"
    assert row.split()[-1] == "–"


def test_mistakes_are_told_in_one_line(capsys, folder, tmp_path):
    tokens = ["cam", str(folder / "tied"), "--limit", "1", "--out", str(tmp_path / "out")]
    for target in ("10", "-1", "cat"):
        message = f"target must be a class of tied, from 0 to 9, or one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, got '{target}'"
        assert message in complaint(capsys, *tokens, f"--target={target}")
    assert "unknown layer 'layer9'" in complaint(capsys, *tokens, "--layer", "layer9")
    assert "'fc' gives (1, 10)" in complaint(capsys, *tokens, "--layer", "fc")
    assert "models must be at least one, each once, got none" in complaint(capsys, "cam")
    assert not (tmp_path / "out").exists()
