"""Joint depth upsampling: scenes, what is asked of a method, simple methods, and how far off an answer is."""

from leanconv.tasks.depth.examples import Batch, Crops, Examples, WholeImages
from leanconv.tasks.depth.images import DepthData, DepthSet, Scene, depth_statistics
from leanconv.tasks.depth.methods import BASELINES, Upsampler
from leanconv.tasks.depth.protocol import low_resolution, mean_square, rmse
from leanconv.tasks.depth.scores import DepthRMSE
from leanconv.tasks.depth.sources import open_depth

__all__ = [
    "BASELINES", "Batch", "Crops", "DepthData", "DepthRMSE", "DepthSet", "Examples", "Scene", "Upsampler",
    "WholeImages", "depth_statistics", "low_resolution", "mean_square", "open_depth", "rmse",
]  # fmt: skip
