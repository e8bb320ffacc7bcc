"""Changing any model: plan what to swap, swap it, fuse it for inference, ship it as an ONNX file."""

from leanconv.surgery.exporting import export_onnx
from leanconv.surgery.fusing import Fusion, fuse
from leanconv.surgery.operators import OPERATORS, format_operator, operator_names, parse_operator
from leanconv.surgery.planning import Choice, Plan, plan
from leanconv.surgery.swapping import swap
from leanconv.surgery.verifying import verify

__all__ = [
    "OPERATORS",
    "Choice",
    "Fusion",
    "Plan",
    "export_onnx",
    "format_operator",
    "fuse",
    "operator_names",
    "parse_operator",
    "plan",
    "swap",
    "verify",
]
