"""Runs a model as it stands, in eval mode, and keeps what named layers gave; the model stays as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from leanconv.errors import unknown
from leanconv.modes import evaluating

Outputs = dict[str, list[Tensor]]  # by path of a layer, what each of its calls gave


def observe(
    model: nn.Module, images: Tensor, layers: Iterable[str] = (), *, all_must_run: bool = True
) -> tuple[Tensor, Outputs]:
    """Runs a model in eval mode; returns its output and those of the named layers.

    What is kept of a layer is safe from functions in place: the model goes on with a copy.

    Raises:
        ValueError: when the model can't run on such images, or doesn't run one of the layers.
        TypeError: when the model or a layer gives something else than a tensor (N, K, ...).
    """
    kept: Outputs = {name: [] for name in layers}

    def keep(name: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> Tensor:
            kept[name].append(require_tensor(f"layer {name!r}", output))
            return output.clone()

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in kept]
    try:
        with evaluating(model):
            output = model(images.clone())  # it may begin with a function in place
    except (AssertionError, RuntimeError) as error:  # timm's networks assert the size of their images
        reason = str(error).partition("\n")[0]
        kind, shape = type(model).__name__, tuple(images.shape)
        raise ValueError(f"images must suit the model, {kind} can't run on {shape}: {reason}") from error
    finally:
        for handle in handles:
            handle.remove()
    for name, calls in kept.items():
        if all_must_run and not calls:
            raise ValueError(f"layer {name!r} must run when the model does, but it didn't")
    return require_tensor("the model", output), kept


def require_tensor(giver: str, output: Any) -> Tensor:
    """The output, when it is a tensor (N, K, ...)."""
    if not isinstance(output, Tensor) or output.dim() < 2:
        came = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise TypeError(f"{giver} must give a tensor (N, K, ...), got {came}")
    return output


def require_images(images: Tensor) -> None:
    """
    Raises:
        TypeError: for what isn't a tensor of floating-point numbers.
        ValueError: for another shape than (N, C, H, W).
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images must be a tensor of floating-point numbers, got {kind}")
    if images.dim() != 4:
        raise ValueError(f"images must have the shape (N, C, H, W), got {tuple(images.shape)}")


def score(output: Tensor, target: int | Sequence[int] | Tensor | None, what: str = "class") -> Tensor:
    """The chosen output, summed over its map, if it has one, and over the images.

    Args:
        output: (N, K, ...).
        target: one of the K for all images, or one an image; None takes each image's highest.
        what: what the K are.

    Raises:
        ValueError: for a target that isn't among the K, or not as many as images.
    """
    totals = totalled(output)
    count, kinds = totals.shape
    chosen = totals.argmax(1) if target is None else torch.as_tensor(target, device=totals.device)
    if chosen.dim() > 1 or chosen.is_floating_point() or (chosen.dim() == 1 and len(chosen) != count):
        raise ValueError(f"target must be a {what}, or one for each of {count} images, got {target}")
    wrong = [number for number in chosen.reshape(-1).tolist() if not 0 <= number < kinds]
    if wrong:
        raise ValueError(f"target must be a {what} from 0 to {kinds - 1}, got {wrong[0]}")
    return totals.gather(1, chosen.long().expand(count)[:, None]).sum()


def totalled(output: Tensor) -> Tensor:
    """An output (N, K, ...), summed over its map, if it has one: (N, K)."""
    return output.flatten(2).sum(-1) if output.dim() > 2 else output


def named_layers(model: nn.Module, names: Sequence[str]) -> list[str]:
    """The paths that layers are chosen by, shell patterns such as "layer4.*.conv2" too, in the model's order.

    Raises:
        ValueError: for a name or pattern that no module has.
    """
    names = [names] if isinstance(names, str) else list(names)
    paths = [path for path, _ in model.named_modules() if path]
    for name in names:
        if not any(fnmatchcase(path, name) for path in paths):
            raise unknown("layer", name, paths)
    return [path for path in paths if any(fnmatchcase(path, name) for name in names)]


def require_layer(model: nn.Module, layer: str) -> str:
    """The path of one layer.

    Raises:
        ValueError: when no module has it, or a pattern fits several.
    """
    paths = named_layers(model, [layer])
    if len(paths) > 1:
        raise ValueError(f"layer must be one layer's path, but {layer!r} fits {len(paths)}")
    return paths[0]


@contextlib.contextmanager
def recording(images: Tensor) -> Iterator[Tensor]:
    """Gives a copy of the images that gradients can be taken for, and records them, whatever mode the caller is in."""
    with torch.inference_mode(False), torch.enable_grad():
        yield images.detach().clone().requires_grad_()


def gradients(total: Tensor, of: Tensor, *, retain_graph: bool = False) -> Tensor | None:
    """The gradients of a sum with respect to a tensor; None where it doesn't depend on it."""
    if not total.requires_grad:
        return None
    return torch.autograd.grad(total, of, retain_graph=retain_graph, allow_unused=True)[0]
