"""The report of a test of a detector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from leanconv.files import write, write_csv
from leanconv.report.detection_plot import Shown, detection_figure
from leanconv.report.findings import Section, write_findings
from leanconv.report.pictures import INK, STAND_IN, png, svg
from leanconv.tasks.checkpoint import load_model, recipe_of
from leanconv.tasks.comparing import run_folder
from leanconv.tasks.comparison import Comparison
from leanconv.tasks.detection import DetectionSet, rle
from leanconv.tasks.detection.data import of_recipe
from leanconv.tasks.detection.evaluation import Evaluation, detections, percent
from leanconv.tasks.detection.scores import CocoScores, Detections
from leanconv.tasks.detection_recipe import DetectionRecipe
from leanconv.tasks.run_folder import MODEL
from leanconv.tasks.training_recipe import TESTED

PICTURES = 4
LEAST = (0.5, 0.3, 0.1)  # scores from which finds are shown: the first that shows any


def write_detection_report(evaluation: Evaluation, folder: Path) -> Path:
    """Writes `predictions.json` as COCO wants it, `categories.csv`, `detections.png` and `report.html`.

    Args:
        evaluation: what was tested.
        folder: exists.

    Returns:
        The path of report.html.

    Raises:
        OSError: the folder can't be written.
    """
    evaluation.found.save(folder / "predictions.json")
    names = list(next(iter(evaluation.per_category.values())))
    rows = [(category, *(scores[name] for name in names)) for category, scores in evaluation.per_category.items()]
    write_csv(folder / "categories.csv", ("category", *names), rows)
    section = found_section({"found": evaluation.found}, folder)
    path = folder / "report.html"
    write_findings(
        path,
        command="eval",
        title="What the detector finds",
        lead=f"Its average precision on {len(evaluation.images)} images is {percent(evaluation.scores['ap'])} %, and "
        f"{percent(evaluation.scores['ap50'])} % where an overlap of one half will do.",
        sections=[Section("How well it finds", table=evaluation.table()), section],
    )
    return path


def compared_section(comparison: Comparison, folder: Path) -> Section:
    """Some test images with what the network of each operator finds, that of the first seed.

    Args:
        comparison: of detectors.
        folder: of the comparison.
    """
    found: dict[str, CocoScores] = {}
    for row in comparison.rows:
        if not row.trainings:
            continue
        network, config = load_model(run_folder(folder, row.operator, row.trainings[0].seed) / MODEL)
        recipe: DetectionRecipe = recipe_of(config, **TESTED)
        if not found:
            test = of_recipe(recipe).test
            scenes = [test.scenes[place] for place in spread(len(test))]
            test = DetectionSet(scenes, test.categories, test.category_ids, has_masks=test.has_masks)
        found[row.operator] = detections(network, test, recipe)
    return found_section(found, folder)


def found_section(found: Mapping[str, CocoScores], folder: Path) -> Section:
    """Writes `detections.png`, and gives it as a part of a page: some test images with what each model found.

    Args:
        found: by the model's name; all of the same images.
        folder: exists.
    """
    images = next(iter(found.values())).images
    rows = []
    for index in spread(len(images)):
        image, truth = images[index]
        finds = {name: finds_of(scores.found.get(truth["image_id"]), image) for name, scores in found.items()}
        rows.append(Shown(image, truth, finds))
    surest = max((finds["scores"].max().item() for row in rows for finds in row.found.values()
                  if len(finds["scores"])), default=0.0)  # fmt: skip
    least = next((score for score in LEAST if surest >= score), LEAST[-1])
    figures = [detection_figure(rows, images.categories, least=least, ink=ink) for ink in (INK, STAND_IN)]
    write(folder / "detections.png", png(figures[0]))
    note = f"Left: the truth. Drawn is what was found with a score of {least:g} or more."
    return Section("Some test images", [svg(figures[1], "truth and finds")], note=note, wide=True)


def spread(count: int) -> list[int]:
    """Which of so many images are shown, spread over them all.

    >>> spread(3), spread(10)
    ([0, 1, 2], [0, 3, 6, 9])
    """
    return np.linspace(0, count - 1, min(PICTURES, count)).round().astype(int).tolist()


def finds_of(found: Detections | None, image: Tensor) -> dict[str, Tensor]:
    """What was found in an image, as it is drawn."""
    height, width = image.shape[-2:]
    if found is None or not len(found.scores):
        return {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
    left, top, wide, high = found.boxes.T
    finds = {
        "boxes": torch.from_numpy(np.stack([left, top, left + wide, top + high], 1)).float(),
        "labels": torch.from_numpy(found.labels),
        "scores": torch.from_numpy(found.scores).float(),
    }
    if found.masks is not None:
        masks = [torch.from_numpy(rle.decoded(mask)) for mask in found.masks]
        finds["masks"] = torch.stack(masks).reshape(-1, height, width)
    return finds
