"""Images in batches, for measures that go through them more than once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from leanconv.measure.observing import require_images

Images = Tensor | Iterable[Any]


class Batches:
    """Images in batches, as often as they are asked for.

    Attributes:
        count: how many images there were when they were last gone through.
    """

    def __init__(self, images: Images, batch_size: int) -> None:
        if isinstance(images, Tensor):
            require_images(images)
            images = images.split(batch_size)
        if isinstance(images, Iterator) or not hasattr(images, "__len__"):
            raise TypeError("images must be a tensor or a collection of batches that can be gone through again, "
                            f"a list or a data loader, got {type(images).__name__}")
        self.images = images
        self.count = 0

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Tensor]:
        self.count = 0
        for batch in self.images:
            batch = batch[0] if isinstance(batch, tuple | list) else batch
            require_images(batch)
            self.count += len(batch)
            yield batch

    def example(self) -> Tensor:
        """The first image.

        Raises:
            ValueError: where there is none.
        """
        first = next(iter(self), None)
        if first is None or not len(first):
            raise ValueError("images must hold at least one image, got none")
        return first[:1]
