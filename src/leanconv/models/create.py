"""Building a network from its name: one of leanconv's, one of timm's, or a function of the user's own."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import timm
from torch import nn

from leanconv.errors import unknown
from leanconv.nn.arguments import require_positive

TIMM_SOURCES = ("hf-hub", "hf_hub", "local-dir")
SWAPPED = "leanconv_swapped"  # builds what `save` wrote, and nothing by itself


def create(
    name: str, *, num_classes: int | None = None, in_chans: int = 3, pretrained: bool = False, **options: Any
) -> nn.Module:
    """Builds a network from its name.

    Args:
        name: a name that `timm.create_model` knows, leanconv's networks included, or the user's own class or function,
            as "module:callable" (found in the current folder too) or "path/to/file.py:callable". The latter is called
            with those of the other arguments that it accepts.
        num_classes: classes the network tells apart; None for as many as it does by itself.
        in_chans: channels of its images.
        pretrained: load the published weights, downloading them if need be.
        options: further arguments of the network.

    Raises:
        ValueError: for a name that doesn't exist, weights that don't or can't be downloaded, or numbers that can't be.
        TypeError: where the callable returns no `torch.nn.Module`, or an option isn't one of the network's.

    >>> create("cifar_resnet20", num_classes=100).fc.out_features
    100
    """
    require_positive(in_chans=in_chans, **{} if num_classes is None else {"num_classes": num_classes})
    source, colon, attribute = name.rpartition(":")
    if colon and source.partition(":")[0] not in TIMM_SOURCES:
        wanted = {"num_classes": num_classes, "in_chans": in_chans, "pretrained": pretrained}
        return call(name, find_callable(name, source, attribute), wanted, options)
    if not colon and not timm.is_model(name):
        raise unknown_model(name)
    try:
        return timm.create_model(name, pretrained, num_classes=num_classes, in_chans=in_chans, **options)
    except (AssertionError, OSError, RuntimeError) as error:
        remedy = "" if colon or not pretrained or timm.is_model_pretrained(name) else f" {published_kin(name)}"
        raise ValueError(f"model {name!r} can't be built: {error}{remedy}") from error


def list_models(pattern: str = "*", *, own: bool = False) -> list[str]:
    """Names that `create` knows, in order.

    Args:
        pattern: as in a shell: * stands for anything.
        own: only leanconv's networks.

    >>> list_models("cifar_resnet*")
    ['cifar_resnet20', 'cifar_resnet32', 'cifar_resnet44', 'cifar_resnet56']
    """
    names = timm.list_models(pattern, exclude_filters=[SWAPPED])
    return [name for name in names if timm.model_entrypoint(name).__module__.startswith("leanconv.")] if own else names


def unknown_model(name: str) -> ValueError:
    """The error for a name that is no model's: the nearest ones or, as there are a thousand, how to list them."""
    names = timm.list_models()
    if difflib.get_close_matches(name, names, n=1):
        return unknown("model", name, names)
    return ValueError(f"unknown model {name!r}: list them with: leanconv models PATTERN")


def published_kin(name: str) -> str:
    """Which networks of the same family have published weights: those with the nearest names."""
    published = timm.list_models(pretrained=True, include_tags=False)
    names = [each for each in published if family(each) == family(name)]
    near = difflib.get_close_matches(name, names, n=4, cutoff=0)
    return f"Of its family, these have some: {', '.join(near)}" if near else "None of its family has any."


def family(name: str) -> str:
    """The module that registers a network, tagged or not."""
    return timm.model_entrypoint(name.partition(".")[0]).__module__


def find_callable(name: str, source: str, attribute: str) -> Callable[..., Any]:
    """The callable that a name of the form "source:attribute" points to.

    Raises:
        ValueError: when there is no such module, file or attribute.
        TypeError: when it can't be called.
    """
    with current_folder_importable():
        try:
            module = load_file(Path(source)) if source.endswith(".py") else importlib.import_module(source)
        except (ModuleNotFoundError, FileNotFoundError) as error:
            raise ValueError(f"model {name!r}: {error}") from error
    found = getattr(module, attribute, None)
    if found is None:
        raise unknown(f"callable of model {name!r}", attribute, [n for n, v in vars(module).items() if callable(v)])
    if not callable(found):
        raise TypeError(f"model {name!r} must be callable, got {type(found).__name__}")
    return found


def load_file(path: Path) -> ModuleType:
    """Runs a Python file as a module of its own."""
    name = f"leanconv_file_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise FileNotFoundError(f"no Python file {str(path)!r}")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses look up the annotations of their module there
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def current_folder_importable() -> Iterator[None]:
    """Lets import find modules of the current folder, which an installed command leaves out."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def call(name: str, function: Callable[..., Any], wanted: dict[str, Any], options: dict[str, Any]) -> nn.Module:
    """Calls a user's callable with what it accepts of num_classes, in_chans and pretrained, and with all options.

    What it takes by `**kwargs` may go on to a function that knows fewer arguments (torchvision's networks know no
    in_chans), so only num_classes is passed that way.
    """
    parameters = inspect.signature(function).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    accepted = {key for key in wanted if key in parameters} | ({"num_classes"} if takes_any else set())
    if wanted["pretrained"] and "pretrained" not in accepted:
        raise ValueError(f"model {name!r} has no argument pretrained")
    given = {key: value for key, value in wanted.items() if key in accepted and value is not None}
    model = function(**given, **options)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model {name!r} must return a torch.nn.Module, got {type(model).__name__}")
    return model
