"""What a model costs: parameters, multiply-accumulates, memory and milliseconds; and what it has learned."""

from leanconv.measure.accuracy import accuracy
from leanconv.measure.cam import grad_cam
from leanconv.measure.cost import Cost, LayerCost, count
from leanconv.measure.guided import guided_backprop
from leanconv.measure.latency import Timing, interleaved
from leanconv.measure.layer_similarity import LayerSimilarity, Similarity
from leanconv.measure.memory import peak_memory
from leanconv.measure.profiling import ModelProfile, Profile, profile
from leanconv.measure.reconstruction import MapPair, Reconstruction, reconstruction_error
from leanconv.measure.robustness import DISTORTIONS, Robustness, robustness
from leanconv.measure.setting import Setting, device_name
from leanconv.measure.similarity import filter_similarity, map_similarity, weight_similarity
from leanconv.measure.skeleton import KernelSkeleton, LayerSkeleton, kernel_skeleton
from leanconv.measure.zeroing import UNCHANGED, Zeroing, ZeroingCurves, zeroing_curves

__all__ = [
    "DISTORTIONS",
    "UNCHANGED",
    "Cost",
    "KernelSkeleton",
    "LayerCost",
    "LayerSimilarity",
    "LayerSkeleton",
    "MapPair",
    "ModelProfile",
    "Profile",
    "Reconstruction",
    "Robustness",
    "Setting",
    "Similarity",
    "Timing",
    "Zeroing",
    "ZeroingCurves",
    "accuracy",
    "count",
    "device_name",
    "filter_similarity",
    "grad_cam",
    "guided_backprop",
    "interleaved",
    "kernel_skeleton",
    "map_similarity",
    "peak_memory",
    "profile",
    "reconstruction_error",
    "robustness",
    "weight_similarity",
    "zeroing_curves",
]
