"""Changing any model: plan what to swap, swap it, fuse it for inference, ship it as an ONNX file or a package."""

from leanconv.surgery.exporting import export_onnx
from leanconv.surgery.fusing import Fusion, fuse
from leanconv.surgery.operators import OPERATORS, format_operator, operator_names, parse_operator
from leanconv.surgery.packaging import export_package
from leanconv.surgery.planning import Choice, Plan, plan
from leanconv.surgery.quantizing import quantize_onnx
from leanconv.surgery.swapping import swap
from leanconv.surgery.verifying import verify
from leanconv.surgery.weight_range import WeightRange

__all__ = [
    "OPERATORS",
    "Choice",
    "Fusion",
    "Plan",
    "WeightRange",
    "export_onnx",
    "export_package",
    "format_operator",
    "fuse",
    "operator_names",
    "parse_operator",
    "plan",
    "quantize_onnx",
    "swap",
    "verify",
]
