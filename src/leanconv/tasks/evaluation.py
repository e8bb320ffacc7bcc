"""Testing a trained network on images."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from leanconv.steps import Step, unwatched
from leanconv.table import Table
from leanconv.tasks import training_recipe
from leanconv.tasks.checkpoint import info_of, load_model, recipe_of, task_name
from leanconv.tasks.data import ImageData, ImageInfo, loader, open_data
from leanconv.tasks.data.loading import Draws
from leanconv.tasks.data.sources import prepared_for
from leanconv.tasks.devices import chosen_accelerator
from leanconv.tasks.onnx_file import load_onnx
from leanconv.tasks.recipe import Recipe
from leanconv.tasks.rules import FOR_FOLDERS
from leanconv.tasks.run_folder import MODEL
from leanconv.tasks.scores import scores
from leanconv.tasks.task import task_named

if TYPE_CHECKING:
    from rich.console import RenderableType

# A test needs no batches that can be paired, and its images are normalised as the checkpoint says.
TRAINING_ONLY = ("mixup", "cutmix", "mean", "std", *FOR_FOLDERS)
TESTED = {**training_recipe.TESTED, **{key: getattr(Recipe, key) for key in TRAINING_ONLY}}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a test found; printed, a table.

    Attributes:
        accuracy: share of the images whose class is guessed right, 0 to 1.
        top5: the same when any of five guesses counts; None for five classes or fewer.
        loss: mean cross-entropy.
        per_class: the accuracy on the images of each class, by its name; a class without images is left out.
        images: how many were tested.
        seconds: the test took, with the reading of the images.
        description: of the data.
    """

    accuracy: float
    top5: float | None
    loss: float
    per_class: dict[str, float]
    images: int
    seconds: float
    description: str

    def table(self) -> Table:
        """The accuracy on each class, and on all images below it."""
        summary = f"accuracy {self.accuracy:.2%}, loss {self.loss:.4f}"
        summary += "" if self.top5 is None else f", top-5 {self.top5:.2%}"
        return Table(
            ["class", "accuracy"],
            [[name, f"{accuracy:.2%}"] for name, accuracy in self.per_class.items()],
            self.description,
            [summary, f"{self.images} images in {self.seconds:.1f} s"],
        )

    def __rich__(self) -> RenderableType:
        return self.table().__rich__()

    def __str__(self) -> str:
        return str(self.table())


def evaluate(
    source: str | Path | nn.Module,
    data: str | ImageData | None = None,
    *,
    progress: bool = True,
    step: Step = unwatched,
    **overrides: Any,
) -> Any:
    """Tests a network on the test images of a data set.

    Args:
        source: the folder of a finished training, a checkpoint (model.safetensors), the ONNX file of a classifier, or a
            module, a classifier, which is left as it is.
        data: to test on: a source as in a recipe or, for a classifier, an opened data set; by default what the network
            was trained on. For a checkpoint, the images are normalised as those that the network was trained on.
        progress: whether a progress bar may be shown, when checking a folder of images takes long.
        step: is told how much of the test is done of how much.
        overrides: keys of the recipe that tell how to test: `image_size`, `limit`, `batch_size`, `workers`,
            `accelerator`, `precision`, `channels_last`, `data_root`, `bad_images`.

    Returns:
        An `Evaluation`; of a checkpoint of another task, what that task gives: `leanconv.tasks.detection.Evaluation`,
        `leanconv.tasks.depth.Evaluation`.

    Raises:
        ValueError: the checkpoint can't be read; the data can't be read or has other channels or classes than the
            network; a module comes without data.

    >>> evaluate("runs/digits").accuracy  # doctest: +SKIP
    0.99
    """
    if isinstance(source, nn.Module):
        if data is None:
            raise ValueError("data must be given to test a module, got none")
        recipe = tested(Recipe(), data, overrides)
        opened = data if isinstance(data, ImageData) else open_data(recipe, progress=progress)
        return measured(copy.deepcopy(source), opened, recipe, step)
    path = Path(source)
    if path.suffix == ".onnx":
        classifier, info = load_onnx(path)
        if data is None:
            raise ValueError("data must be given to test an ONNX file, got none")
        return measured(classifier, *on_file(info, data, overrides, progress=progress), step)
    network, config = load_model(path / MODEL if path.is_dir() else path)
    return task_named(task_name(config)).evaluate(
        network, config, data, progress=progress, step=step, **overrides
    )


def evaluate_checkpoint(
    network: nn.Module,
    config: Mapping[str, Any],
    data: str | ImageData | None,
    *,
    progress: bool,
    step: Step,
    **overrides: Any,
) -> Evaluation:
    """Tests the classifier of a checkpoint with this configuration."""
    info = info_of(config)
    recipe = tested(recipe_of(config, image_size=info.image_size), data, overrides)
    opened = data if isinstance(data, ImageData) else open_data(recipe, progress=progress)
    return measured(network, prepared_for(opened, info), recipe, step)


def on_file(
    info: ImageInfo, data: str | ImageData, overrides: Mapping[str, Any], *, progress: bool = True
) -> tuple[ImageData, Recipe]:
    """The images that the classifier of an ONNX file is tested on, and how: by ONNX Runtime, on the CPU."""
    recipe = tested(Recipe(image_size=info.image_size, accelerator="cpu"), data, overrides)
    opened = data if isinstance(data, ImageData) else open_data(recipe, progress=progress)
    return prepared_for(opened, info), recipe


def tested(recipe: Recipe, data: str | ImageData | None, overrides: Mapping[str, Any]) -> Recipe:
    """A recipe as it is tested, on its own data or other."""
    named = {"data": data} if isinstance(data, str) else {}
    return Recipe.of({**recipe.plain(), **TESTED, **named, **overrides})


def measured(network: nn.Module, data: ImageData, recipe: Recipe, step: Step = unwatched) -> Evaluation:
    """Runs a network over the test images, in evaluation mode."""
    device = torch.device(chosen_accelerator(recipe))
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    network = network.to(device).to(memory_format=layout).eval()
    found = scores(data.num_classes, per_class=True).to(device)
    batches = loader(data.test, Draws(len(data.test), recipe.batch_size, training=False), workers=recipe.workers)
    done = 0
    begin = time.perf_counter()
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        for images, labels in batches:
            logits = network(images.to(device, memory_format=layout))
            if logits.shape != (len(images), data.num_classes):
                raise ValueError(
                    f"the network must give {data.num_classes} scores for an image, as the data has classes, "
                    f"got shape {tuple(logits.shape)} for {len(images)} images"
                )
            found.update(logits, labels.to(device))
            done += len(labels)
            step(done, len(data.test))
    values = found.compute()
    present = data.test.labels.bincount(minlength=data.num_classes)
    return Evaluation(
        accuracy=values["accuracy"].item(),
        top5=values["top5"].item() if "top5" in values else None,
        loss=values["loss"].item(),
        per_class={
            name: accuracy
            for name, accuracy, count in zip(data.classes, values["per_class"].tolist(), present, strict=True)
            if count
        },
        images=len(data.test),
        seconds=time.perf_counter() - begin,
        description=data.description,
    )
