"""How well objects are found: the average precision of COCO, for boxes and for masks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from torch import Tensor, distributed

from leanconv.files import write
from leanconv.tasks.detection import rle
from leanconv.tasks.detection.data import DetectionSet
from leanconv.tasks.detection.scenes import Scene

THRESHOLDS = {"ap": slice(None), "ap50": slice(0, 1), "ap75": slice(5, 6)}  # of the overlaps 0.5, 0.55, ... 0.95
AREAS = {"ap_small": 1, "ap_medium": 2, "ap_large": 3}  # below 32² pixels, below 96², above
MASK_CUT = 0.5  # torchvision gives the probability that a pixel belongs to an instance


class Detections(NamedTuple):
    """What was found in one image.

    Attributes:
        boxes: float64 [n, 4]: left, top, width, height in pixels.
        scores: float64 [n].
        labels: int64 [n], 1 to K.
        masks: n masks; None if none are scored.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: list[rle.Rle] | None


class CocoScores:
    """Gathers what a detector finds in the images of a set, and scores it as COCO does, by faster-coco-eval.

    An image without predictions counts as one in which nothing was found. What is found in a crowd region counts
    neither way. In several processes, each gives what it found, and `compute` gathers it: an image that two of them saw
    counts once.

    Args:
        images: with the truth.
        masks: whether predictions come with masks, which are scored too.
        detections: the most that count of each category in an image, those of the highest scores; COCO counts 100.

    Raises:
        ValueError: masks are to be scored of a set that has none, or `detections` is below 1.
    """

    def __init__(self, images: DetectionSet, *, masks: bool = False, detections: int = 100) -> None:
        if masks and not images.has_masks:
            raise ValueError("masks can't be scored: the images have none")
        if detections < 1:
            raise ValueError(f"detections must be at least 1, got {detections}")
        self.images = images
        self.masks = masks
        self.detections = detections
        self.scenes = {scene.image_id: scene for scene in images.scenes}
        self.found: dict[int, Detections] = {}
        self.judged: dict[str, np.ndarray] | None = None  # the precisions on all images; None if not known

    def update(self, predictions: Sequence[Mapping[str, Tensor]], image_ids: Iterable[int]) -> None:
        """Adds what was found in some images, in place of what was found in them before.

        Args:
            predictions: for each image, as torchvision's detectors give them: `boxes` [n, 4] (left, top, right, bottom
                in pixels), `scores` [n], `labels` [n] from 1 to K and, if masks are scored, `masks` [n, H, W] or
                [n, 1, H, W]: bool, uint8 of 0 and 1, or probabilities.
            image_ids: the number of each image.

        Raises:
            ValueError: there is no such image, or the shapes don't fit.
        """
        self.judged = None
        for prediction, image_id in zip(predictions, image_ids, strict=True):
            self.found[int(image_id)] = self.checked(prediction, int(image_id))

    def checked(self, prediction: Mapping[str, Tensor], image_id: int) -> Detections:
        """What was found in an image, in short."""
        if image_id not in self.scenes:
            raise ValueError(f"image_ids must be of the set's images, got {image_id}")
        boxes, scores, labels = (prediction[name].detach().cpu() for name in ("boxes", "scores", "labels"))
        count = len(scores)
        if boxes.shape != (count, 4) or labels.shape != (count,):
            raise ValueError(
                f"boxes must be [n, 4] and labels [n] for {count} scores, "
                f"got {list(boxes.shape)} and {list(labels.shape)}"
            )
        most = len(self.images.categories)
        if count and not 1 <= int(labels.min()) <= int(labels.max()) <= most:
            raise ValueError(f"labels must be from 1 to {most}, got {int(labels.min())} to {int(labels.max())}")
        corners = boxes.double().numpy()
        return Detections(
            np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1),
            scores.double().numpy(),
            labels.long().numpy(),
            self.short(prediction, self.scenes[image_id], count) if self.masks else None,
        )

    def short(self, prediction: Mapping[str, Tensor], scene: Scene, count: int) -> list[rle.Rle]:
        """The masks of a prediction as run lengths."""
        if "masks" not in prediction:
            raise ValueError(f"predictions must have masks, as these are scored, got {', '.join(prediction)}")
        masks = prediction["masks"].detach()
        masks = masks[:, 0] if masks.ndim == 4 else masks
        if masks.shape != (count, scene.height, scene.width):
            raise ValueError(
                f"masks of {scene.path.name} must be [{count}, {scene.height}, {scene.width}], got {list(masks.shape)}"
            )
        return [rle.encoded((mask >= MASK_CUT if mask.is_floating_point() else mask != 0).cpu().numpy())
                for mask in masks]  # fmt: skip

    def reset(self) -> None:
        """Forgets what was found."""
        self.judged = None
        self.found.clear()

    def gather(self) -> None:
        """Gives each process what all of them found; nothing to do for one alone."""
        if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
            everyone: list[dict[int, Detections]] = [{} for _ in range(distributed.get_world_size())]
            distributed.all_gather_object(everyone, self.found)
            self.judged = None
            self.found = {image_id: found for part in everyone for image_id, found in part.items()}

    def compute(self, image_ids: Iterable[int] | None = None) -> dict[str, float]:
        """The scores, 0 to 1: `ap` is the mean over the overlaps (IoU) 0.5, 0.55, ... 0.95 and the categories.

        Args:
            image_ids: score these images only; by default all.

        Returns:
            `ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large` of the boxes and, if masks are scored, the same of
            the masks as `mask_ap` and so on. NaN where there is nothing to find.
        """
        scores = {}
        for prefix, precision in self.precisions(image_ids).items():
            for name, thresholds in THRESHOLDS.items():
                scores[prefix + name] = mean(precision[thresholds, :, :, 0])
            for name, area in AREAS.items():
                scores[prefix + name] = mean(precision[:, :, :, area])
        return scores

    def per_category(self) -> dict[str, dict[str, float]]:
        """`ap` and, if masks are scored, `mask_ap` of each category; NaN of one that no image has."""
        precisions = self.precisions()
        return {
            name: {f"{prefix}ap": mean(precision[:, :, index, 0]) for prefix, precision in precisions.items()}
            for index, name in enumerate(self.images.categories)
        }

    def precisions(self, image_ids: Iterable[int] | None = None) -> dict[str, np.ndarray]:
        """Precision at 10 overlaps, 101 recalls, for K categories and 4 ranges of area; -1 where there is no truth.

        Under "" of the boxes and under "mask_" of the masks.
        """
        self.gather()
        if image_ids is None and self.judged is not None:
            return self.judged
        chosen = self.scenes if image_ids is None else dict.fromkeys(image_ids)
        kinds = {"": "bbox", "mask_": "segm"} if self.masks else {"": "bbox"}
        precisions = {prefix: self.precision(list(chosen), kind) for prefix, kind in kinds.items()}
        if image_ids is None:
            self.judged = precisions
        return precisions

    def precision(self, image_ids: Sequence[int], kind: str) -> np.ndarray:
        from faster_coco_eval import COCO, COCOeval_faster

        truths = [truth for image_id in image_ids for truth in truths_of(self.scenes[image_id], kind)]
        results = [result for image_id in image_ids for result in self.results_of(image_id, kind)]
        images = [
            {"id": image_id, "height": self.scenes[image_id].height, "width": self.scenes[image_id].width}
            for image_id in image_ids
        ]
        labels = range(1, len(self.images.categories) + 1)
        if not truths:
            return np.full((10, 101, len(labels), 4), -1.0)
        described = {"images": images, "categories": [{"id": label, "name": str(label)} for label in labels]}
        sides = [
            COCO({**described, "annotations": [{"id": place, **entry} for place, entry in enumerate(entries, start=1)]})
            for entries in (truths, results)
        ]
        evaluation = COCOeval_faster(*sides, kind, print_function=lambda *words: None)
        evaluation.params.maxDets = [self.detections]
        evaluation.evaluate()
        evaluation.accumulate()
        return evaluation.eval["precision"][..., -1]

    def results_of(self, image_id: int, kind: str) -> Iterable[dict[str, Any]]:
        """What was found in an image, as the evaluation takes it."""
        if (found := self.found.get(image_id)) is None:
            return
        for place, (box, score, label) in enumerate(
            zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
        ):
            result = {"image_id": image_id, "category_id": label, "bbox": box, "score": score, "iscrowd": 0}
            if kind == "segm":
                mask = found.masks[place]  # type: ignore[index]
                yield {**result, "segmentation": mask, "area": rle.area(mask)}
            else:
                yield {**result, "area": box[2] * box[3]}

    def save(self, path: str | Path) -> None:
        """Writes what was found as a COCO result file, with the categories' own numbers.

        Raises:
            OSError: it can't be written.
        """
        self.gather()
        kind = "segm" if self.masks else "bbox"
        results = [self.filed(result) for image_id in self.found for result in self.results_of(image_id, kind)]
        write(Path(path), json.dumps(results))

    def filed(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """A result as it is in a file, given as the evaluation takes it."""
        entry = {name: result[name] for name in ("image_id", "bbox", "score")}
        entry["category_id"] = self.images.category_ids[result["category_id"] - 1]
        if (mask := result.get("segmentation")) is not None:
            entry["segmentation"] = {**mask, "counts": mask["counts"].decode()}
        return entry

    @classmethod
    def load(cls, images: DetectionSet, path: str | Path, *, detections: int = 100) -> Self:
        """Reads a COCO result file; masks are scored if all its entries and the images have them.

        Raises:
            ValueError: it can't be read, an entry is of no image or category of the set, or `detections` is below 1.
        """
        try:
            results = json.loads(Path(path).read_bytes())
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot read {path} as COCO results: {error}") from error
        if not isinstance(results, list):
            raise ValueError(f"{path} must be a list of COCO results, got {type(results).__name__}")
        masks = images.has_masks and bool(results) and all("segmentation" in entry for entry in results)
        scores = cls(images, masks=masks, detections=detections)
        labels = {number: label for label, number in enumerate(images.category_ids, start=1)}
        entries: dict[int, list[tuple[list[float], float, int, rle.Rle | None]]] = {}
        for place, entry in enumerate(results):
            try:
                scene = scores.scenes[entry["image_id"]]
                mask = rle.of_segmentation(entry["segmentation"], scene.height, scene.width) if masks else None
                box = [float(number) for number in (entry["bbox"] if "bbox" in entry else box_of(mask))]
                score = float(entry["score"])
                if len(box) != 4 or not all(map(math.isfinite, (*box, score))):
                    raise ValueError(f"bbox {box} and score {score}")
                entries.setdefault(scene.image_id, []).append((box, score, labels[entry["category_id"]], mask))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"entry {place} of {path} must be of an image and a category of the set, "
                    f"with a bbox or a segmentation and a score: {error!r}"
                ) from error
        for image_id, those in entries.items():
            boxes, values, numbers, shapes = zip(*those, strict=True)
            scores.found[image_id] = Detections(
                np.array(boxes), np.array(values), np.array(numbers), list(shapes) if masks else None
            )
        return scores


def truths_of(scene: Scene, kind: str) -> Iterable[dict[str, Any]]:
    """What is in an image, as the evaluation takes it."""
    shapes = scene.masks() if kind == "segm" else [None] * len(scene.boxes)
    for box, label, area, crowd, shape in zip(
        scene.boxes.tolist(), scene.labels.tolist(), scene.areas.tolist(), scene.crowd.tolist(), shapes, strict=True
    ):
        left, top, right, bottom = box
        truth = {"image_id": scene.image_id, "category_id": label, "area": area, "iscrowd": int(crowd),
                 "bbox": [left, top, right - left, bottom - top]}  # fmt: skip
        yield truth if shape is None else {**truth, "segmentation": shape}


def box_of(mask: rle.Rle | None) -> list[float]:
    """Left, top, width and height of a mask."""
    if mask is None:
        raise ValueError("no bbox")
    left, top, right, bottom = rle.box(mask)
    return [left, top, right - left, bottom - top]


def mean(precision: np.ndarray) -> float:
    """The mean of what there is."""
    values = precision[precision > -1]
    return float(values.mean()) if values.size else math.nan

