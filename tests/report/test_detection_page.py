import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from leanconv.report import detection_page
from leanconv.tasks.detection.scores import CocoScores
from leanconv.tasks.detection_recipe import DetectionRecipe


@pytest.fixture
def masks_folder(tmp_path):
    """Eight images of noise, each with one square; of these 1 and 5 are tested."""
    mask = np.zeros((24, 32), np.uint8)
    mask[4:12, 4:12] = 1
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(8):
        noise = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    index = [{"id": str(number), "split": "val" if number in (1, 5) else "train"} for number in range(8)]
    (tmp_path / "index.json").write_text(json.dumps(index))
    return tmp_path


def test_a_comparison_shows_images_that_a_training_could_read(masks_folder, tmp_path, monkeypatch):
    torn = masks_folder / "images" / "1.png"
    torn.write_bytes(torn.read_bytes()[:200])
    looked_at = []

    def detections(network, images, recipe):
        looked_at.append((network, images.image_ids))
        found = CocoScores(images)
        for index, image_id in enumerate(images.image_ids):
            target = images.target(index)
            found.update([{**target, "scores": torch.full((len(target["boxes"]),), 0.9)}], [image_id])
        return found

    recipe = DetectionRecipe(data=f"masks:{masks_folder}")
    monkeypatch.setattr(detection_page, "load_model", lambda path: (path.relative_to(tmp_path).parts[0], {}))
    monkeypatch.setattr(detection_page, "recipe_of", lambda config, **overrides: recipe)
    monkeypatch.setattr(detection_page, "detections", detections)
    trainings = [SimpleNamespace(seed=0)]
    rows = [SimpleNamespace(operator=name, trainings=trainings) for name in ("dense", "tied")]
    section = detection_page.compared_section(SimpleNamespace(rows=rows), tmp_path)
    assert looked_at == [("dense", [6]), ("tied", [6])]
    assert section.note.endswith("a score of 0.5 or more.")
    assert (tmp_path / "detections.png").is_file()
