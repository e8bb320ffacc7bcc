"""What a test found, as files and a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leanconv.files import make_folder
from leanconv.report.findings import Section, write_findings


def write_evaluation(evaluation: Any, folder: str | Path) -> Path:
    """Writes what a test found: tables as CSV, detections as COCO wants them, pictures, and `report.html`.

    Args:
        evaluation: of a classifier, a detector or a network for depth, as `leanconv.tasks.evaluate` gives it.
        folder: made if need be.

    Returns:
        The path of report.html.

    Raises:
        OSError: the folder can't be written or the disk is full.
    """
    from leanconv.tasks.depth.evaluation import Evaluation as DepthEvaluation
    from leanconv.tasks.detection.evaluation import Evaluation as DetectionEvaluation

    folder = Path(folder)
    make_folder(folder)
    if isinstance(evaluation, DepthEvaluation):
        from leanconv.report.depth_page import write_depth_report

        return write_depth_report(evaluation, folder, command="eval")
    if isinstance(evaluation, DetectionEvaluation):
        from leanconv.report.detection_page import write_detection_report

        return write_detection_report(evaluation, folder)
    table = evaluation.table()
    table.to_csv(folder / "classes.csv")
    path = folder / "report.html"
    write_findings(
        path,
        command="eval",
        title="A test",
        lead=f"{evaluation.accuracy:.2%} of {evaluation.images} images are classified right.",
        sections=[Section("Accuracy on each class", table=table)],
    )
    return path
