"""The peak of live tensor memory: what a function holds at once, on any device, to the byte."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def peak_memory(function: Callable[[], object]) -> int:
    """The highest number of bytes of tensors that a function, backward passes included, holds at the same time.

    Counts the memory of tensors that come to life inside; what existed before costs nothing. Views and in-place
    operations take no memory. What a kernel takes and gives back within one operation isn't seen.

    Args:
        function: called once, without arguments.

    Returns:
        Bytes.

    >>> ones = torch.ones(1000)
    >>> peak_memory(lambda: (ones + 1) * 2)
    8000
    """
    with LiveMemory() as memory:
        function()
    return memory.peak


class LiveMemory(TorchDispatchMode):
    """Follows the storages of tensors from the operation that makes them until they are freed.

    Attributes:
        current: bytes alive now.
        peak: the highest value of current.
    """

    def __init__(self) -> None:
        super().__init__()
        self.current = 0
        self.peak = 0
        self._sizes: dict[int, int] = {}
        self._references: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for tensor in tensors((args, kwargs)):
            self._watch(tensor, counts=False)
        output = func(*args, **kwargs)
        for tensor in tensors(output):
            self._watch(tensor, counts=True)
        self.peak = max(self.peak, self.current)
        return output

    def _watch(self, tensor: Tensor, *, counts: bool) -> None:
        """Notes the storage of a tensor, unless it is known; one that an operation was given costs nothing."""
        if tensor.layout is not torch.strided:
            return
        storage = tensor.untyped_storage()
        # PyTorch keeps the Python object of a storage as long as the storage lives, so that its id names it.
        key = id(storage)
        if key not in self._references:
            self._sizes[key] = storage.nbytes() if counts else 0
            self._references[key] = weakref.ref(storage, partial(self._free, key))
            self.current += self._sizes[key]

    def _free(self, key: int, _: object) -> None:
        self.current -= self._sizes.pop(key)
        del self._references[key]


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples and dictionaries.

    >>> len(list(tensors([torch.ones(1), {"a": (torch.ones(2), "b")}])))
    2
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)
