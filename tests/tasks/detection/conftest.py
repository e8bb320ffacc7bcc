import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image


@pytest.fixture(scope="session")
def paint() -> Callable[..., Path]:
    """Writes a picture of noise, with an EXIF orientation."""

    def make(path: Path, width: int = 40, height: int = 30, seed: int = 0, orientation: int = 1) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng([seed, *path.name.encode()]).integers(0, 256, (height, width, 3), np.uint8)
        metadata = Image.Exif()
        metadata[ExifTags.Base.Orientation] = orientation
        Image.fromarray(pixels).save(path, exif=metadata)
        return path

    return make


@pytest.fixture
def coco_folder(tmp_path: Path, paint) -> Callable[..., Path]:
    """Makes a folder of 40×30 images in COCO's layout, from the annotations to train on, one list an image.

    The categories are 3 "cat" and 18 "dog". The one test image holds a cat.
    """

    def make(*images: list[dict[str, Any]], **content: Any) -> Path:
        root = tmp_path / "shapes"
        for part, lists in (("train", images), ("val", [[annotation()]])):
            entries, annotations = [], []
            for number, those in enumerate(lists, start=1):
                entries.append({"id": 10 * number, "file_name": f"{number}.png", "width": 40, "height": 30})
                paint(root / part / f"{number}.png", seed=part == "val")
                for each in those:
                    annotations.append({"id": len(annotations) + 1, "image_id": 10 * number, **each})
            whole = {"images": entries, "annotations": annotations, "categories": CATEGORIES}
            whole |= content if part == "train" else {}
            (root / f"instances_{part}.json").write_text(json.dumps(whole))
        return root

    return make


CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 3, "name": "cat"}]


def annotation(box: tuple[float, ...] = (4, 5, 10, 8), category: int = 3, **more: Any) -> dict[str, Any]:
    """An annotation of a COCO file, its mask the box."""
    left, top, width, height = box
    polygon = [left, top, left + width, top, left + width, top + height, left, top + height]
    return {"bbox": list(box), "category_id": category, "area": width * height, "iscrowd": 0,
            "segmentation": [polygon], **more}  # fmt: skip
