"""Training, testing and comparing detectors, on images that they learn in a moment."""

import json
from dataclasses import replace
from functools import partial
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from leanconv.cli import main
from leanconv.models import create
from leanconv.models.detection import detector
from leanconv.models.detection.backbone import Norms
from leanconv.models.detection.detectors import KINDS
from leanconv.models.detection.feature_pyramid import Upsample
from leanconv.report import write_evaluation, write_report
from leanconv.report.detection_page import compared_section
from leanconv.tasks import Recipe, comparing, detection_recipe, evaluate, load_model, save_model, train
from leanconv.tasks.checkpoint import configuration
from leanconv.tasks.data import ImageInfo
from leanconv.tasks.detection import open_detection
from leanconv.tasks.detection.detecting import TASK
from leanconv.tasks.detection.learning import Pictures, mirrored
from leanconv.tasks.detection.scores import CocoScores
from leanconv.tasks.detection_recipe import DetectionRecipe
from leanconv.tasks.task import load_recipe, task_named
from leanconv.tasks.training_recipe import recipe_names


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Six images of 64×64 with two bright squares each, in COCO's layout."""
    root, generator = tmp_path_factory.mktemp("data") / "squares", np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 2)):
        (root / part).mkdir(parents=True)
        images, annotations = [], []
        for number in range(1, count + 1):
            pixels = generator.integers(0, 60, (64, 64, 3), np.uint8)
            for column in (4, 36):
                left, top, side = column + int(generator.integers(6)), int(generator.integers(36)), 20
                category = int(generator.integers(2))
                pixels[top : top + side, left : left + side, category] = 250
                right, bottom = left + side, top + side
                annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 5 + 4 * category,
                                    "bbox": [left, top, side, side], "area": side**2, "iscrowd": 0,
                                    "segmentation": [[left, top, right, top, right, bottom, left, bottom]]})
            Image.fromarray(pixels).save(root / part / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
        categories = [{"id": 5, "name": "red"}, {"id": 9, "name": "green"}]
        whole = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"instances_{part}.json").write_text(json.dumps(whole))
    return f"coco:{root}"


@pytest.fixture(scope="module")
def recipe(squares):
    return DetectionRecipe(
        data=squares, backbone="resnet10t", norms="batch", trainable_stages=4, short_sides=(64,), long_side=64,
        anchor_size=8, epochs=2, batch_size=2, lr=0.005, schedule="constant", decay_epochs=(), accelerator="cpu",
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    train(recipe, folder)
    return folder


CLASSES = ImageInfo(num_classes=3, in_chans=3, image_size=64, mean=IMAGENET_DEFAULT_MEAN, std=IMAGENET_DEFAULT_STD,
                    classes=("a", "b", "c"))  # fmt: skip


class Stop(Exception):
    pass


def test_a_training_leaves_what_others_leave(recipe, finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {"recipe.yaml", "metrics.csv", "metrics.json", "last.ckpt", "model.safetensors", "result.json"}
    first, second = json.loads((finished / "metrics.json").read_text())
    assert second["train_loss"] < first["train_loss"]
    assert DetectionRecipe.load(finished / "recipe.yaml") == recipe
    result = train(recipe, finished)
    assert set(result.scores) == {"ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"}
    assert result.scores["ap"] == second["test_ap"]


def test_a_resumed_training_ends_with_the_same_weights(recipe, finished, tmp_path, monkeypatch):
    batch, seen = Pictures.batch, []

    def stopping(self, indices):
        seen.append(indices)
        if self.flip and len(seen) > 4:  # the second epoch's
            raise Stop
        return batch(self, indices)

    with monkeypatch.context() as patched:
        patched.setattr(Pictures, "batch", stopping)
        with pytest.raises(Stop):
            train(recipe, tmp_path)
    assert len(json.loads((tmp_path / "metrics.json").read_text())) == 1
    train(recipe, tmp_path)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path, finished))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_test_finds_what_the_training_found(recipe, finished, tmp_path):
    evaluation = evaluate(finished)
    network, found = load_model(finished / "model.safetensors")[0].eval(), evaluation.found.found
    assert len(found) == 2
    for index, (image_id, detections) in enumerate(found.items()):
        image, target = evaluation.images[index]
        assert target["image_id"] == image_id
        with torch.no_grad():
            (expected,) = network([image / 255])
        assert len(detections.scores) == len(expected["scores"]) > 0
        left_top, right_bottom = expected["boxes"][:, :2], expected["boxes"][:, 2:]
        assert detections.boxes == pytest.approx(torch.cat([left_top, right_bottom - left_top], 1).numpy(), abs=1e-3)
        assert detections.scores == pytest.approx(expected["scores"].numpy(), abs=1e-5)
    assert evaluation.scores["ap"] == pytest.approx(train(recipe, finished).scores["ap"], abs=1e-6)
    assert set(evaluation.per_category) == {"red", "green"}
    report = write_evaluation(evaluation, tmp_path)
    assert "What the detector finds" in report.read_text()
    assert {path.name for path in tmp_path.iterdir()} == {
        "predictions.json", "categories.csv", "detections.png", "report.html"
    }
    again = CocoScores.load(evaluation.images, tmp_path / "predictions.json")
    assert again.compute()["ap"] == pytest.approx(evaluation.scores["ap"], abs=1e-6)
    mirrored_too = evaluate(finished, flip_test=True)
    assert len(mirrored_too.found.found) == 2


def test_other_categories_are_refused(finished, squares, tmp_path):
    root = tmp_path / "other"
    root.mkdir()
    for part in ("train", "val"):
        content = json.loads((type(root)(squares.removeprefix("coco:")) / f"instances_{part}.json").read_text())
        content["categories"][0]["name"] = "blue"
        (root / f"instances_{part}.json").write_text(json.dumps(content))
        (root / part).symlink_to(type(root)(squares.removeprefix("coco:")) / part)
    with pytest.raises(ValueError, match=r"categories of the data must be the detector's 2 \(red, green, ...\), got 2"):
        evaluate(finished, f"coco:{root}")


def test_the_operator_goes_into_the_backbone(recipe, finished):
    info = task_named("detection").info(categories=("red", "green"), has_masks=False)
    network = task_named("detection").build_network(replace(recipe, operator="tied:blocks=2"), info)
    assert any(type(module).__name__ == "TiedConv2d" for module in network.backbone.body.modules())
    assert not any(type(module).__name__ == "TiedConv2d" for module in network.backbone.fpn.modules())
    loaded, config = load_model(finished / "model.safetensors")
    assert config["recipe"]["task"] == "detection"
    image = torch.rand(3, 64, 64)
    fused = task_named("detection").fuse(loaded, torch.zeros(1, 3, 64, 64))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.backbone.body.modules())
    for name, found in loaded([image])[0].items():
        torch.testing.assert_close(fused([image])[0][name], found, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("operator", ["dense", "tied:blocks=2"])
def test_a_classifier_becomes_the_backbone(recipe, tmp_path, operator):
    learned = Recipe(model="resnet10t", operator=operator, data="imagefolder:nowhere")
    classifier = task_named("classification").build_network(learned, CLASSES)
    save_model(tmp_path / "a.safetensors", classifier, configuration(learned, CLASSES))
    categories = task_named("detection").info(categories=("red",), has_masks=False)
    wanted = replace(recipe, operator=operator, weights=tmp_path / "a.safetensors")
    network = task_named("detection").build_network(wanted, categories)
    theirs = classifier.state_dict()
    for name, tensor in network.backbone.body.state_dict().items():
        assert torch.equal(tensor, theirs[name])
    if operator != "dense":
        save_model(tmp_path / "a.safetensors", create("resnet10t", num_classes=3), configuration(
            replace(learned, operator="dense"), CLASSES))
        swapped = task_named("detection").build_network(wanted, categories).backbone.body
        assert any("conv.weight" in name for name in swapped.state_dict())


@pytest.mark.slow
def test_detectors_with_operators_are_compared(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(comparing, "ROUNDS", 2)
    comparison = comparing.compare(replace(recipe, epochs=1), ["dense", "tied:blocks=2"], [0], tmp_path, progress=False)
    dense, tied = comparison.rows
    assert comparison.finished
    assert comparison.score.name == "AP"
    assert tied.params < dense.params
    assert tied.macs < dense.macs
    assert list(dense.latency) == [1]
    assert "AP" in comparison.table().columns
    write_report(comparison, tmp_path, [compared_section(comparison, tmp_path)])
    text = (tmp_path / "report.html").read_text()
    assert "Some test images" in text
    assert (tmp_path / "detections.png").exists()


@pytest.mark.parametrize("words", [["export", "-o", "a.onnx"], ["fuse", "--out", "a.safetensors"],
                                   ["plan", "tied"], ["profile"], ["cam"]])  # fmt: skip
def test_commands_for_classifiers_refuse_a_detector(finished, capsys, words):
    with pytest.raises(SystemExit) as stopped:
        main([words[0], str(finished), *words[1:]])
    assert stopped.value.code == 2
    assert "must be of a classifier for this command, got one of detection" in capsys.readouterr().err


def test_mirroring_twice_changes_nothing():
    image = torch.rand(3, 6, 9)
    target = {"boxes": torch.tensor([[1.0, 2.0, 4.0, 5.0]]), "masks": torch.randint(0, 2, (1, 6, 9)), "labels": 1}
    once = mirrored(image, target)
    assert once[1]["boxes"].tolist() == [[5.0, 2.0, 8.0, 5.0]]
    again = mirrored(*once)
    assert torch.equal(again[0], image)
    assert torch.equal(again[1]["boxes"], target["boxes"])
    assert torch.equal(again[1]["masks"], target["masks"])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in recipe_names() if load_recipe(name).task == "detection"])
def test_a_recipe_trains(name, squares, tmp_path):
    """An epoch on tiny images, in the recipe's own way."""
    small = {"short_sides": [64], "long_side": 64, "anchor_size": 8, "channels": 16, "regions": 16,
             "norms": "batch", "trainable_stages": 4}
    recipe = load_recipe(name, data=squares, epochs=1, schedule="constant", decay_epochs=[], warmup_epochs=0,
                         batch_size=2, workers=0, pretrained=False, accelerator="cpu", **small)
    result = train(recipe, tmp_path)
    assert len(result.scores) == (12 if "mask" in name else 6)
    (row,) = json.loads((tmp_path / "metrics.json").read_text())
    assert 0 < row["train_loss"] < 100


def test_a_recipe_knows_what_can_be_built():
    assert tuple(KINDS) == detection_recipe.DETECTORS
    assert get_args(Upsample) == detection_recipe.UPSAMPLINGS
    assert get_args(Norms) == detection_recipe.NORMS


def test_the_sizes_of_a_recipe_reach_the_detector(recipe):
    info = open_detection(recipe.data).info
    network = TASK.build_network(replace(recipe, channels=16, regions=32), info)
    assert network.backbone.out_channels == 16
    assert network.roi_heads.fg_bg_sampler.batch_size_per_image == 32
    assert TASK.build_network(replace(recipe, channels=16, model="retinanet"), info).backbone.out_channels == 16


def learns(network):
    """Whether the norms of a backbone, its stem and its last stage learn."""
    body = network.backbone.body
    return body.bn1.training, body.conv1[0].weight.requires_grad, body.layer4[0].conv1.weight.requires_grad


def test_only_weights_trained_as_they_stand_are_frozen(recipe, tmp_path):
    info = open_detection(recipe.data).info
    free = replace(recipe, norms=None, trainable_stages=None)
    whole, frozen = (True, True, True), (False, False, True)
    assert learns(TASK.build_network(free, info)) == whole
    path = tmp_path / "classifier.safetensors"
    network = create("resnet10t", num_classes=3)
    save_model(path, network, configuration(Recipe(model="resnet10t"), CLASSES))
    trained = replace(free, weights=path)
    assert learns(TASK.build_network(trained, info)) == frozen
    assert learns(TASK.build_network(replace(trained, operator="tied:blocks=2"), info)) == whole
    assert learns(TASK.build_network(replace(trained, norms="frozen", operator="tied:blocks=2"), info))[0] is False
    for wrong in ({"norms": "frozen"}, {"trainable_stages": 3}):
        network = TASK.build_network(replace(free, **wrong), info)
        with pytest.raises(ValueError, match="a backbone without weights must learn in whole"):
            TASK.check_runs(network, replace(free, **wrong), info)


@pytest.mark.parametrize("backbone", ["ghostnet_x100", "resnet10t"])
def test_a_backbone_gives_the_maps_of_its_classifier(recipe, backbone, tmp_path):
    info, path = open_detection(recipe.data).info, tmp_path / "classifier.safetensors"
    classifier = create(backbone, num_classes=3).eval()
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    save_model(path, classifier, configuration(Recipe(model=backbone), CLASSES))
    network = TASK.build_network(replace(recipe, backbone=backbone, weights=path), info).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = classifier.forward_intermediates(images, intermediates_only=True)
        found = network.backbone.body(images)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    save_model(path, classifier, configuration(Recipe(model=backbone), replace(CLASSES, mean=(0.5, 0.5, 0.5))))
    with pytest.raises(ValueError, match="weights must be for images normalised by"):
        TASK.build_network(replace(recipe, backbone=backbone, weights=path), info)


def test_a_test_has_its_own_sizes(finished):
    detector, config = load_model(finished / "model.safetensors")
    sizes = []
    detector.backbone.register_forward_pre_hook(lambda module, inputs: sizes.append(tuple(inputs[0].shape[2:])))
    test = partial(TASK.evaluate, detector, config, None, short_sides=(96,), long_side=200, limit=1)
    found = [test().found, test(detections=1).found]
    assert sizes == [(96, 96)] * 2
    many, one = (next(iter(scores.found.values())).scores for scores in found)
    assert len(many) > len(one) == 1


def test_masks_are_tested_one_image_at_a_time(recipe):
    feed = TASK.feed(open_detection(recipe.data), replace(recipe, model="mask-rcnn"))
    assert (feed.test_batch_size, feed.recipe.batch_size) == (1, 2)


@pytest.mark.parametrize("kind", ["retinanet", "faster-rcnn", "cascade-rcnn"])
def test_boxes_keep_their_precision_under_autocast(kind):
    torch.manual_seed(0)
    network = detector(kind, "resnet10t", 2, channels=16, min_size=64, max_size=1400, anchor_size=8, score_thresh=0)
    network.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        boxes = network([torch.rand(3, 64, 1333)])[0]["boxes"]
    assert boxes.dtype == torch.float32
    assert boxes.max() > 512
    assert (boxes != boxes.bfloat16()).float().mean() > 0.5


@pytest.mark.parametrize(("key", "value", "message"), [
    ("model", "yolo", "unknown model in the recipe 'yolo'"),
    ("upsample", "nearst", "did you mean 'nearest'"),
    ("norms", "batched", "did you mean 'batch'"),
    ("trainable_stages", 5, "must be from 0 to 4, got 5"),
    ("short_sides", (), "at least one length from 1"),
    ("long_side", 10, "must be at least short_sides"),
    ("anchor_size", 0, "must be at least 1, got 0"),
    ("detections", 0, "must be at least 1, got 0"),
    ("channels", 0, "must be at least 1, got 0"),
    ("regions", 0, "must be at least 1, got 0"),
    ("data", "", "must be given, in one of the forms coco:PATH"),
    ("data", "digits", "unknown data source"),
    ("clip_norm", -1, "must be at least 0"),
])
def test_rules(recipe, key, value, message):
    with pytest.raises(ValueError, match=message):
        replace(recipe, **{key: value})
