"""Changing any model: plan what to swap, swap it, fuse it for inference."""

from leanconv.surgery.fusing import Fusion, fuse
from leanconv.surgery.operators import OPERATORS, format_operator, operator_names, parse_operator
from leanconv.surgery.planning import Choice, Plan, plan
from leanconv.surgery.swapping import swap

__all__ = [
    "OPERATORS",
    "Choice",
    "Fusion",
    "Plan",
    "format_operator",
    "fuse",
    "operator_names",
    "parse_operator",
    "plan",
    "swap",
]
