"""Finding objects in images: annotated images, how well they are found, and what occlusion does to that."""

from leanconv.tasks.detection.data import DetectionData, DetectionSet, open_detection
from leanconv.tasks.detection.occlusion import overlap_ratio, study_occlusion
from leanconv.tasks.detection.scores import CocoScores

__all__ = ["CocoScores", "DetectionData", "DetectionSet", "open_detection", "overlap_ratio", "study_occlusion"]
