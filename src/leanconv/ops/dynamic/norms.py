"""The normalisation of both filters, for kernels that do it on the way."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from leanconv.ops.dynamic.filter_norm import filter_norm


class Norms(NamedTuple):
    """How raw filters are normalised before they are combined: FilterNorm's α and β for each, and its eps.

    Args:
        channel_scale, spatial_scale: α, a vector with a value for each row of the filter's second dimension (times the
            taps, for the channel filter), or None for a filter that is taken as it is.
        channel_shift, spatial_shift: β, or None for none.
        eps: as in `filter_norm`.
    """

    channel_scale: Tensor | None = None
    channel_shift: Tensor | None = None
    spatial_scale: Tensor | None = None
    spatial_shift: Tensor | None = None
    eps: float | None = None

    def apply(
        self, channel_filter: Tensor | None, spatial_filter: Tensor | None, taps: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """Normalises both filters by the definition."""
        if channel_filter is not None and self.channel_scale is not None:
            flat = channel_filter.flatten(1)
            normed = filter_norm(flat, taps, self.channel_scale, self.channel_shift, eps=self.eps)
            channel_filter = normed.view(channel_filter.shape)
        if spatial_filter is not None and self.spatial_scale is not None:
            spatial_filter = filter_norm(spatial_filter, taps, self.spatial_scale, self.spatial_shift, eps=self.eps)
        return channel_filter, spatial_filter
