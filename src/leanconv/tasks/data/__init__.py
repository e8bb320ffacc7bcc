"""Images with labels: where they come from, how they are varied, and in which batches a network sees them."""

from leanconv.tasks.data.images import ImageData, ImageInfo, ImageSet, UnreadableImage
from leanconv.tasks.data.loading import loader
from leanconv.tasks.data.sources import open_data

__all__ = ["ImageData", "ImageInfo", "ImageSet", "UnreadableImage", "loader", "open_data"]
