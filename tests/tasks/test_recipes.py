"""The recipes of the published trainings: each parses, builds its network, and trains."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from sklearn.datasets import load_digits

from leanconv.tasks import ImageInfo, Recipe, build_network, open_data
from leanconv.tasks.classification import Classification
from leanconv.tasks.classifying import TASK
from leanconv.tasks.manners import quiet
from leanconv.tasks.task import load_recipe, task_named
from leanconv.tasks.training import PRECISIONS
from leanconv.tasks.training_recipe import CARRIED, recipe_names

CIFAR = ImageInfo(num_classes=10, in_chans=3, image_size=32, mean=(0.5,) * 3, std=(0.5,) * 3, classes=())
IMAGENET = replace(CIFAR, num_classes=1000, image_size=224)

PARAMETERS = {
    "cifar10_ac_quick": 149_226,
    "cifar10_ac_resnet56": 1_426_682,
    "cifar10_ac_vgg16": 24_810_570,
    "cifar10_ac_wrn16_8": 18_172_538,
    "cifar10_ghost_resnet56": 438_010,
    "cifar10_ghost_vgg16": 7_650_474,
    "cifar10_resnet20": 269_722,
    "cifar10_split_resnet20": 102_330,
    "cifar10_split_vgg16": 5_610_250,
    "digits": 269_722,
    "imagenet_ac_resnet18": 19_028_520,
    "imagenet_ddf_resnet50": 16_843_748,
    "imagenet_ddf_resnet50_released": 16_843_748,
    "imagenet_ghost_resnet50": 13_953_512,
    "imagenet_ghostnet": 5_182_508,
    "imagenet_split_resnet50": 18_345_448,
    "imagenet_tied_resnet50": 23_188_632,
}


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """Ten of each handwritten digit, in order, as RGB of 32×32."""
    digits = load_digits()
    chosen = [index for label in range(10) for index in np.flatnonzero(digits.target == label)[:10]]
    images = np.round(digits.images[chosen] * (255 / 16)).astype(np.uint8).repeat(4, 1).repeat(4, 2)
    return images[..., None].repeat(3, -1)


@pytest.fixture(scope="module")
def folder(pictures: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("digits")
    for index, pixels in enumerate(pictures):
        path = root / str(index // 10) / f"{index:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return f"imagefolder:{root}"


@pytest.fixture(scope="module")
def arrays(pictures: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(path, images=pictures, labels=np.arange(10).repeat(10))
    return f"arrays:{path}"


CLASSIFIERS = [name for name in recipe_names() if load_recipe(name).task == "classification"]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_recipe_builds_its_network(name):
    recipe, imagenet = Recipe.load(name), name.startswith("imagenet")
    with torch.device("meta" if imagenet else "cpu"):
        network = build_network(recipe, IMAGENET if imagenet else CIFAR)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_recipe_trains(name, folder, arrays):
    """Two updates on handwritten digits, in the recipe's own way."""
    source, size = (folder, 48) if name.startswith("imagenet") else (arrays, 32)
    recipe = Recipe.load(name, data=source, image_size=size, batch_size=4, limit=8, workers=0, accelerator="cpu")
    torch.manual_seed(0)
    data = open_data(recipe)
    feed = TASK.feed(data, recipe)
    module = Classification(build_network(recipe, data), recipe, num_classes=10, steps=feed.steps)
    before = {key: parameter.detach().clone() for key, parameter in module.named_parameters()}
    with quiet():
        trainer = Trainer(
            accelerator="cpu",
            precision=PRECISIONS[recipe.precision],
            max_steps=2,
            limit_val_batches=0,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, datamodule=feed)
    assert trainer.global_step == 2
    assert 0 < module.train_loss < 20
    after = dict(module.named_parameters())
    assert all(parameter.isfinite().all() for parameter in after.values())
    changed = sum(not torch.equal(parameter, before[key]) for key, parameter in after.items())
    assert changed > 0.8 * len(after)  # the rate of a warm-up may be too small for some


OTHERS = {
    "coco_ddf_up_faster_rcnn": 43_438_260,  # ResNet-50's 41,757,156 and three DDF-Up of 560,368
    "coco_ghostnet_faster_rcnn": 20_395_038,
    "coco_tied_cascade_rcnn": 67_026_366,
    "coco_tied_mask_rcnn": 42_032_293,
    "coco_tied_retinanet": 31_471_524,
    "nyu_ddf_up_net_x16": 207_249,
    "nyu_ddf_up_net_x4": 156_921,
    "nyu_ddf_up_net_x8": 182_085,
    "small_ddf_up_net": 182_085,
    "small_mask_rcnn": 18_302_005,
}


@pytest.mark.parametrize("name", [name for name in recipe_names() if name not in CLASSIFIERS])
def test_a_recipe_of_another_task_builds_its_network(name):
    recipe = load_recipe(name)
    task = task_named(recipe.task)
    if recipe.task == "detection":
        info = task.info(categories=tuple(map(str, range(80))), has_masks=True)
    else:
        info = task.info(unit="cm", depth_mean=200.0, depth_std=90.0)
    with torch.device("meta" if recipe.task == "detection" else "cpu"):
        network = task.build_network(replace(recipe, pretrained=False), info)
    assert sum(parameter.numel() for parameter in network.parameters()) == OTHERS[name]


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_tells_its_source(name):
    text = (CARRIED / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    assert re.search(r"not from a paper|et al\.|Wang and Yu", text.partition("\nmodel:")[0], re.IGNORECASE)
    keys = re.findall(r"^(\w+):", text, re.MULTILINE)
    assert len(keys) == len(set(keys))
    assert {"model", "operator", "data", "epochs", "batch_size", "optimizer", "lr", "weight_decay"} <= set(keys)


def test_the_documentation_lists_all_recipes():
    table = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == recipe_names()
