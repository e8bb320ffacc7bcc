"""Testing a trained detector."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from leanconv.steps import Step, unwatched
from leanconv.table import Table
from leanconv.tasks.data import loader
from leanconv.tasks.data.loading import Draws
from leanconv.tasks.detection.data import DetectionInfo, DetectionSet, of_recipe
from leanconv.tasks.detection.learning import Pictures, finder
from leanconv.tasks.detection.scores import CocoScores
from leanconv.tasks.detection_recipe import DetectionRecipe
from leanconv.tasks.devices import chosen_accelerator
from leanconv.tasks.training_recipe import TESTED

if TYPE_CHECKING:
    from rich.console import RenderableType

NAMES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "APs", "ap_medium": "APm", "ap_large": "APl"}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What the test of a detector found; printed, a table.

    Attributes:
        scores: as `CocoScores.compute` gives them, 0 to 1.
        per_category: as `CocoScores.per_category` gives it.
        found: all that was found; `found.save(FILE)` writes it as COCO wants it.
        images: that it was tested on.
        seconds: the test took, with the reading of the images.
        description: of the data.
    """

    scores: Mapping[str, float]
    per_category: Mapping[str, Mapping[str, float]]
    found: CocoScores
    images: DetectionSet
    seconds: float
    description: str

    def table(self) -> Table:
        """The average precisions in per cent, of boxes and of masks, overall; notes tell the best categories."""
        kinds = {"box": "", "mask": "mask_"} if "mask_ap" in self.scores else {"box": ""}
        rows = [[kind, *(percent(self.scores[prefix + key]) for key in NAMES)] for kind, prefix in kinds.items()]
        known = {name: each["ap"] for name, each in self.per_category.items() if each["ap"] == each["ap"]}
        best = sorted(known.items(), key=lambda pair: -pair[1])[:5]
        most = max((int((~scene.crowd).sum()) for scene in self.images.scenes), default=0)
        notes = [
            f"best categories: {', '.join(f'{name} {100 * ap:.1f}' for name, ap in best)}",
            f"{len(self.images)} images in {self.seconds:.1f} s; {self.description}",
        ]
        if most > self.found.detections:
            notes.append(f"up to {most} objects in an image, of which at most {self.found.detections} can be found: "
                         "the recipe's detections")
        return Table(["average precision %", *NAMES.values()], rows, notes=notes)

    def __rich__(self) -> RenderableType:
        return self.table().__rich__()

    def __str__(self) -> str:
        return str(self.table())


def percent(share: float) -> str:
    """A share in per cent; a dash for NaN.

    >>> percent(0.3741), percent(float("nan"))
    ('37.4', '–')
    """
    return "–" if share != share else f"{100 * share:.1f}"


def evaluate(
    network: nn.Module,
    config: Mapping[str, Any],
    data: str | None,
    *,
    progress: bool = True,
    step: Step = unwatched,
    **overrides: Any,
) -> Evaluation:
    """Tests the detector of a checkpoint.

    Args:
        network: the detector.
        config: of the checkpoint.
        data: a source as in a recipe; by default what it was trained on.
        progress: whether a bar may be shown while images are checked.
        step: is told how many images are done of how many.
        overrides: keys of the recipe that tell how to test: `limit`, `batch_size`, `workers`, `accelerator`,
            `precision`, `channels_last`, `bad_images`, `flip_test`, `short_sides`, `long_side`, `detections`.

    Raises:
        ValueError: the data can't be read or has other categories than the detector.
    """
    from leanconv.tasks.checkpoint import info_of, recipe_of

    named = {} if data is None else {"data": data}
    recipe: DetectionRecipe = recipe_of(config, **{**TESTED, **named, **overrides})
    info: DetectionInfo = info_of(config)
    opened = of_recipe(recipe, progress=progress)
    if opened.categories != info.categories:
        wanted, came = (f"{len(each)} ({', '.join(each[:3])}, ...)" for each in (info.categories, opened.categories))
        raise ValueError(f"categories of the data must be the detector's {wanted}, got {came}")
    begin = time.perf_counter()
    found = detections(network, opened.test, recipe, step)
    return Evaluation(
        scores=found.compute(),
        per_category=found.per_category(),
        found=found,
        images=opened.test,
        seconds=time.perf_counter() - begin,
        description=opened.description,
    )


def detections(
    network: nn.Module,
    images: DetectionSet,
    recipe: DetectionRecipe,
    step: Step = unwatched,
) -> CocoScores:
    """What a detector finds in images."""
    device = torch.device(chosen_accelerator(recipe))
    layout = torch.channels_last if recipe.channels_last else torch.preserve_format
    detector: Any = network.to(device).to(memory_format=layout).eval()
    detector.transform.min_size, detector.transform.max_size = recipe.short_sides, recipe.long_side
    for module in detector.modules():
        if hasattr(module, "detections_per_img"):
            module.detections_per_img = recipe.detections
    network = finder(detector, recipe)
    found = CocoScores(images, masks=recipe.masks, detections=recipe.detections)
    draws = Draws(len(images), recipe.test_batch_size, training=False)
    done = 0
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        for pictures, targets in loader(Pictures(images, flip=False), draws, workers=recipe.workers):
            predictions = network([picture.to(device) for picture in pictures])
            found.update(predictions, [target["image_id"] for target in targets])
            done += len(pictures)
            step(done, len(images))
    return found
