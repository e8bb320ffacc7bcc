"""What a model costs: parameters, multiply-accumulates, memory and milliseconds."""

from leanconv.measure.cost import Cost, LayerCost, count
from leanconv.measure.latency import Timing, interleaved
from leanconv.measure.memory import peak_memory
from leanconv.measure.profiling import ModelProfile, Profile, profile
from leanconv.measure.setting import Setting, device_name

__all__ = [
    "Cost",
    "LayerCost",
    "ModelProfile",
    "Profile",
    "Setting",
    "Timing",
    "count",
    "device_name",
    "interleaved",
    "peak_memory",
    "profile",
]
