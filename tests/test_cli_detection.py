"""The commands on annotated images: check and occlusion."""

import json

import numpy as np
import pytest
from command_line import complaint, csv_rows
from PIL import Image

from leanconv.cli import main


@pytest.fixture
def source(tmp_path):
    """Two images, one with a pair of boxes that overlap by half, and predictions that miss one of these."""
    annotations, results = [], []
    for number, boxes in ((1, [[2, 2, 8, 8]]), (2, [[2, 2, 8, 8], [6, 2, 8, 8]])):
        (tmp_path / "images").mkdir(exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "images" / f"{number}.png")
        for box in boxes:
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 7, "bbox": box,
                                "area": 64, "iscrowd": 0})  # fmt: skip
            results.append({"image_id": number, "category_id": 7, "bbox": box, "score": 0.9})
    images = [{"id": number, "file_name": f"{number}.png", "width": 24, "height": 20} for number in (1, 2)]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "cat"}]}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "predictions.json").write_text(json.dumps(results))
    (tmp_path / "poor.json").write_text(json.dumps(results[:2]))
    return f"coco:{tmp_path / 'images'},{tmp_path / 'truth.json'}"


def test_a_sound_source_is_checked(source, tmp_path, capsys):
    main(["check", source, "--out", str(tmp_path / "out")])
    assert "nothing is wrong" in capsys.readouterr().out
    assert csv_rows(tmp_path / "out" / "problems.csv") == []


def test_problems_are_listed_and_end_with_1(source, tmp_path, capsys):
    (tmp_path / "images" / "1.png").write_bytes(b"none")
    with pytest.raises(SystemExit) as stopped:
        main(["check", source, "--out", str(tmp_path / "out")])
    assert stopped.value.code == 1
    assert "unreadable image" in capsys.readouterr().out
    [row] = csv_rows(tmp_path / "out" / "problems.csv")
    assert (row["problem"], row["file"]) == ("unreadable image", "1.png")
    with pytest.raises(SystemExit) as stopped:
        main(["check", "coco:nowhere"])
    assert stopped.value.code == 2


def test_models_are_scored_by_occlusion(source, tmp_path, capsys):
    out = tmp_path / "out"
    main(["occlusion", source, "--all-images", "--predictions", f"good={tmp_path / 'good'}",
          f"poor={tmp_path / 'poor.json'}", "--out", str(out)])  # fmt: skip
    text = capsys.readouterr().out
    assert "ratios r measured on boxes: mean 0.25, highest 0.50" in text
    lines = {(row["model"], row["from"], row["below"]): row for row in csv_rows(out / "occlusion.csv")}
    assert float(lines["good", "0.4", "0.6"]["ap75"]) == 1
    assert float(lines["poor", "0.4", "0.6"]["ap75"]) == pytest.approx(51 / 101)
    assert lines["poor", "0.0", ""]["images"] == "2"
    assert (out / "occlusion.png").stat().st_size > 10_000
    page = (out / "report.html").read_text()
    assert "Detection under occlusion" in page
    assert page.count("<svg") == 4


def test_the_bins_and_the_counted_finds_are_chosen(source, tmp_path, capsys):
    found = f"good={tmp_path / 'good'}"
    tokens = ["occlusion", source, "--all-images", "--predictions", found, "--out", str(tmp_path / "o")]
    main([*tokens, "--edges", "0", "0.5", "1", "--detections", "1"])
    lines = {(row["from"], row["below"]): row for row in csv_rows(tmp_path / "o" / "occlusion.csv")}
    assert list(lines) == [("0.0", "0.5"), ("0.5", "1.0"), ("0.0", ""), ("0.5", "")]
    assert float(lines["0.0", "0.5"]["ap75"]) == 1
    assert float(lines["0.5", "1.0"]["ap75"]) == pytest.approx(51 / 101)  # one of two counts
    assert "edges must ascend from 0 to 1, got 0, 2" in complaint(capsys, *tokens, "--edges", 0, 2)


@pytest.mark.parametrize("words", [["good.json"], ["=x.json"], ["a=x.json", "a=y.json"]])
def test_predictions_must_be_named(source, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["occlusion", source, "--predictions", *words])
    assert stopped.value.code == 2
    assert "NAME=FILE.json" in capsys.readouterr().err
