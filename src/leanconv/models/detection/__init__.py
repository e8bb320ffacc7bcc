"""Detection networks: RetinaNet, Faster, Mask and Cascade R-CNN on any network that gives feature maps."""

from leanconv.models.detection.backbone import Backbone
from leanconv.models.detection.cascade import CascadeRoIHeads, Stage
from leanconv.models.detection.detectors import detector
from leanconv.models.detection.feature_pyramid import FeaturePyramid
from leanconv.models.detection.features import feature_network
from leanconv.models.detection.flip import FlipTest
from leanconv.models.detection.upsampling import SpatialDDFUp

__all__ = [
    "Backbone", "CascadeRoIHeads", "FeaturePyramid", "FlipTest", "SpatialDDFUp", "Stage", "detector", "feature_network",
]  # fmt: skip
