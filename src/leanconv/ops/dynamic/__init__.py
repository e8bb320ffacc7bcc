"""Decoupled dynamic filters: `reference` is the definition, `cpu` and `gpu` launch the kernels that equal it."""

from leanconv.ops.dynamic import library  # noqa: F401  (registers the operators)
from leanconv.ops.dynamic.ddf import ddf, ddf_up
from leanconv.ops.dynamic.filter_norm import filter_norm

__all__ = ["ddf", "ddf_up", "filter_norm"]
