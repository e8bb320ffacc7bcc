"""Weights in files: reading what others saved, and giving it to a network whole or not at all."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import timm.models
import torch
from torch import Tensor, nn

Filter = Callable[..., dict[str, Tensor]]


def load_state(model: nn.Module, file: str | Path) -> None:
    """Gives a network the weights of a file: all of them or, when one doesn't fit, none.

    Reads what leanconv, timm, torchvision and papers' authors publish: .safetensors, and whatever `torch.save` wrote
    (.pth, .pt, .th, .bin), of which only tensors are read, no code. Weights that lie under "state_dict" or "model" are
    found there, averaged ones ("state_dict_ema", "model_ema") first; the prefixes "module." and "_orig_mod." go.
    Where names don't fit, the `checkpoint_filter_fn` next to the network's class renames them, as in timm.

    Args:
        model: any module, on any device.
        file: its weights.

    Raises:
        ValueError: the file can't be read, or tensors are missing, left over or of another shape; the message lists
            them.

    >>> import tempfile
    >>> trained, fresh = nn.Linear(2, 1), nn.Linear(2, 1)
    >>> with tempfile.NamedTemporaryFile(suffix=".pth") as file:
    ...     torch.save({"epoch": 3, "state_dict": trained.state_dict()}, file.name)
    ...     load_state(fresh, file.name)
    >>> torch.equal(fresh.weight, trained.weight)
    True
    """
    tensors = read_state(file)
    rename = checkpoint_filter(model)
    if rename and misfits(model, tensors):
        with contextlib.suppress(KeyError):  # of another network: timm's look for tensors by name
            tensors = rename(tensors)
    put(model, tensors, file)


def read_state(file: str | Path) -> dict[str, Tensor]:
    """The tensors of a file, by the names of the network that they were saved from; see `load_state`.

    Raises:
        ValueError: there is no such file, or it is damaged, or holds something else.
    """
    if not Path(file).is_file():
        raise ValueError(f"cannot read weights from {file}: there is no such file")
    try:
        state = timm.models.load_state_dict(str(file))
    except Exception as error:  # damaged and foreign files fail at any place, with any error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"cannot read weights from {file}: {reason}") from error
    strangers = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if strangers or not state:
        raise ValueError(f"{file} must hold tensors by their names, got {shortened(strangers) or 'nothing'}")
    return state


def checkpoint_filter(model: nn.Module) -> Filter | None:
    """What renames the tensors of a network's published weights, by timm's custom a function next to its class."""
    for kind in type(model).__mro__:
        rename = getattr(sys.modules.get(kind.__module__), "checkpoint_filter_fn", None)
        if rename is not None:
            alone = len(inspect.signature(rename).parameters) == 1
            return lambda tensors: rename(dict(tensors), *(() if alone else (model,)))
    return None


def put(model: nn.Module, tensors: Mapping[str, Tensor], source: object) -> None:
    """Gives a network tensors: all of them or, when one doesn't fit, none.

    Args:
        model: the network.
        tensors: its state dict; the counters of batch norms may be missing, as in files older than they are.
        source: where the tensors are from, for the message.

    Raises:
        ValueError: tensors are missing, left over or of another shape; the message lists them.
    """
    if found := misfits(model, tensors):
        raise ValueError(f"the tensors in {source} must be those of the network, got {found}")
    model.load_state_dict(dict(tensors), strict=False)


def misfits(model: nn.Module, tensors: Mapping[str, Tensor]) -> str:
    """Which tensors are missing, left over or of another shape; empty where all fit a network."""
    wanted = model.state_dict()
    names = {
        "missing": [name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")],
        "left over": [name for name in tensors if name not in wanted],
        "of another shape": [
            f"{name} {list(tensors[name].shape)} for {list(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in tensors and tensors[name].shape != tensor.shape
        ],
    }
    return ", ".join(f"{len(found)} {what} ({shortened(found)})" for what, found in names.items() if found)


def shortened(names: list[str]) -> str:
    """The first of many names.

    >>> shortened(list("abcdefghijk"))
    'a, b, c, d, e, f, g, h and 3 more'
    """
    return ", ".join(map(str, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def owned(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Copies of tensors as safetensors takes them: on the CPU, contiguous, each with memory of its own."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
