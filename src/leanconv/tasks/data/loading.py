"""Which images a network sees when: batches as a function of seed, epoch and process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from leanconv.tasks.data.images import UnreadableImage
from leanconv.tasks.seeding import derived_seed, seeded

Batch = tuple[Any, ...]


class Batched(Protocol):
    """Examples that can be had in batches."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int], /) -> Batch:
        """The examples at these positions, varied at random where they are to train on."""
        ...


@dataclass(frozen=True)
class Draw:
    """Positions of the images in a batch, and the seed of all that is random about it."""

    positions: list[int]
    seed: int


class Draws(Sampler[Draw]):
    """The batches of an epoch, as one of several processes sees them.

    In training the images are shuffled and each batch has the same size; those that fill no batch are left out until
    the next epoch. Otherwise every image comes once, in batches of nearly equal size.

    Args:
        count: of images.
        batch_size: over all processes.
        training: whether to shuffle.
        seed: of the order and of augmentation.
        rank: of this process.
        processes: that share each batch.
        divisor: in training, each process has a multiple of so many images.

    Raises:
        ValueError: there are too few images for one batch.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        training: bool,
        seed: int = 0,
        rank: int = 0,
        processes: int = 1,
        divisor: int = 1,
    ) -> None:
        share = processes * (divisor if training else 1)
        if count < share:
            raise ValueError(f"there must be at least {share} images for {processes} process(es), got {count}")
        self.count = count
        self.batch_size = min(batch_size, count // share * share) if training else batch_size
        self.training = training
        self.seed = seed
        self.rank = rank
        self.processes = processes
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.training:
            return self.count // self.batch_size
        return min(math.ceil(self.count / self.batch_size), self.count // self.processes)

    def __iter__(self) -> Iterator[Draw]:
        if self.training:
            generator = torch.Generator().manual_seed(derived_seed(self.seed, self.epoch))
            order = torch.randperm(self.count, generator=generator)
            batches = order[: len(self) * self.batch_size].split(self.batch_size)
        else:
            batches = torch.arange(self.count).tensor_split(len(self))
        for step, batch in enumerate(batches):
            seed = derived_seed(self.seed, self.epoch, step, self.rank)
            yield Draw(batch[self.rank :: self.processes].tolist(), seed)


class Batches(Dataset[Batch | str]):
    """A data set whose items are whole batches.

    For an unreadable image it gives the message of the error: raised in a worker, it would come with a traceback.
    """

    def __init__(self, images: Batched, mix: Callable[..., Batch] | None) -> None:
        self.images = images
        self.mix = mix

    def __getitem__(self, draw: Draw) -> Batch | str:
        try:
            with seeded(draw.seed):
                batch = self.images.batch(draw.positions)
                return batch if self.mix is None else self.mix(*batch)
        except UnreadableImage as error:
            return str(error)


class Loader(DataLoader):
    """A `DataLoader` over whole batches, which asks for the first one no sooner than its user does.

    Lightning makes an iterator before it tells the sampler the epoch; a plain `DataLoader` would have drawn by then.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, str):
                raise UnreadableImage(batch)
            yield batch


def loader(
    images: Batched,
    draws: Draws,
    *,
    workers: int = 0,
    mix: Callable[..., Batch] | None = None,
) -> Loader:
    """Iterates over batches, of labelled images (images [N, C, H, W], labels [N]), prepared here or by workers.

    The batches are the same for any number of workers.

    Args:
        images: to draw from.
        draws: which images when.
        workers: processes that prepare batches ahead.
        mix: mixes the images and labels of a batch, as timm's `Mixup` does.
    """
    return Loader(
        Batches(images, mix),
        batch_size=None,
        sampler=draws,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # or each epoch would take a number from the global one
    )
