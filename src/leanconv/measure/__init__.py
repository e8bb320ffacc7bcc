"""What a model costs: parameters, multiply-accumulates, memory and milliseconds; and what it has learned."""

from leanconv.measure.cam import grad_cam
from leanconv.measure.cost import Cost, LayerCost, count
from leanconv.measure.guided import guided_backprop
from leanconv.measure.latency import Timing, interleaved
from leanconv.measure.layer_similarity import LayerSimilarity, Similarity
from leanconv.measure.memory import peak_memory
from leanconv.measure.profiling import ModelProfile, Profile, profile
from leanconv.measure.setting import Setting, device_name
from leanconv.measure.similarity import filter_similarity, map_similarity, weight_similarity

__all__ = [
    "Cost",
    "LayerCost",
    "LayerSimilarity",
    "ModelProfile",
    "Profile",
    "Setting",
    "Similarity",
    "Timing",
    "count",
    "device_name",
    "filter_similarity",
    "grad_cam",
    "guided_backprop",
    "interleaved",
    "map_similarity",
    "peak_memory",
    "profile",
    "weight_similarity",
]
