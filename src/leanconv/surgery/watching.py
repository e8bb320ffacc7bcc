"""Which layer's output goes where, learned by watching one forward pass.

Every tensor function that the model calls is seen (a `TorchFunctionMode`), functional ones and those of modules alike,
so nothing has to be traceable: any model that runs can be watched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from leanconv.modes import evaluating

ADDITIONS = {"add", "add_", "__add__", "__iadd__", "__radd__"}
CONVOLUTIONS = {"conv1d", "conv2d", "conv3d", "linear", "matmul"}

Value = tuple[int, int]  # a tensor at one time: an in-place function makes a new value of the same tensor


def value_of(tensor: Tensor) -> Value:
    return id(tensor), tensor._version


@dataclass
class Use:
    """One function that took a tensor: its name, the path of the module that called it, and what it gave."""

    function: str
    module: str
    results: list[Value] = field(default_factory=list)


@dataclass
class Flow:
    """What became of each watched layer's output in a forward pass.

    Args:
        outputs: by layer path, the value of each call.
        uses: by value, the functions that took it.
        depth: by value, how many convolutions and matrix products lie on the longest way to it.
        additions: the operands of each addition.
        tensors: by value, the tensor; kept so that no id is given twice.
    """

    outputs: dict[str, list[Value]] = field(default_factory=dict)
    uses: dict[Value, list[Use]] = field(default_factory=dict)
    depth: dict[Value, int] = field(default_factory=dict)
    additions: list[list[Value]] = field(default_factory=list)
    tensors: dict[Value, Tensor] = field(default_factory=dict)

    def single_use(self, layer: str) -> Use | None:
        """The one function that takes the layer's output, or None where it is called or used more or less than once."""
        outputs = self.outputs.get(layer, [])
        uses = self.uses.get(outputs[0], []) if len(outputs) == 1 else []
        return uses[0] if len(uses) == 1 else None


class Watcher(TorchFunctionMode):
    """Records in `flow` each tensor function called while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = Flow()
        self.path = [""]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        values = list(dict.fromkeys(map(value_of, inputs)))
        result = func(*args, **kwargs)
        results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if not results:  # it asked for a shape or a type: no use of the value
            return result
        flow, name = self.flow, getattr(func, "__name__", "")
        for value in values:
            flow.uses.setdefault(value, []).append(Use(name, self.path[-1], [value_of(tensor) for tensor in results]))
        if name in ADDITIONS:
            flow.additions.append(values)
        depth = max((flow.depth.get(value, 0) for value in values), default=0)
        for tensor in results:
            flow.depth[value_of(tensor)] = depth + (name in CONVOLUTIONS)
        flow.tensors |= {value_of(tensor): tensor for tensor in (*inputs, *results)}
        return result


def watch(model: nn.Module, example: Tensor) -> Flow:
    """Runs a model once in eval mode and returns the flow of its tensors.

    Raises:
        ValueError: for an example that the model doesn't take.
    """
    watcher = Watcher()

    def enter(name: str) -> Callable[..., None]:
        return lambda module, inputs: watcher.path.append(name)

    def leave(name: str) -> Callable[..., None]:
        def record(module: nn.Module, inputs: Any, output: Any) -> None:
            watcher.path.pop()
            if isinstance(output, Tensor):
                watcher.flow.outputs.setdefault(name, []).append(value_of(output))
                watcher.flow.tensors[value_of(output)] = output

        return record

    handles = []
    for name, module in model.named_modules():
        handles += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave(name))]
    try:
        with torch.no_grad(), evaluating(model), watcher:
            answer = model(example)
    except (RuntimeError, TypeError, AssertionError, IndexError) as error:
        raise ValueError(f"example must be an input of the model, got shape {tuple(example.shape)}: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
    for leaf in tree_leaves(answer):
        if isinstance(leaf, Tensor):
            watcher.flow.uses.setdefault(value_of(leaf), []).append(Use("return", ""))
    return watcher.flow


def norm_after(model: nn.Module, flow: Flow, layers: Iterable[str]) -> dict[str, str]:
    """By path of a layer, the path of the norm that alone takes its output, for those of `layers` that have one."""
    called_once = {name for name in norm_paths(model) if len(flow.outputs.get(name, [])) == 1}
    uses = {name: flow.single_use(name) for name in layers}
    return {name: use.module for name, use in uses.items()
            if use is not None and use.function == "batch_norm" and use.module in called_once}


def exit_norms(model: nn.Module, flow: Flow) -> list[str]:
    """The last norm of each residual branch: its output goes into an addition alone, deeper than the shortcut's."""
    owner = {flow.outputs[name][0]: name for name in norm_paths(model) if flow.single_use(name) is not None}
    deepest = [max(values, key=lambda value: flow.depth.get(value, 0)) for values in flow.additions if len(values) > 1]
    return [owner[value] for value in deepest if value in owner]


def norm_paths(model: nn.Module) -> set[str]:
    """The paths of a model's batch and instance norms, of whatever type."""
    return {name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._NormBase)}


def default_example(model: nn.Module) -> Tensor:
    """One random image of the size that a model is made for: its own default configuration's, else 224 by 224.

    Raises:
        ValueError: for a model without a convolution: nobody can say what it takes.
    """
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        raise ValueError("example must be given for a model without an nn.Conv2d: nothing tells the input's shape")
    configuration = getattr(model, "pretrained_cfg", None) or {}
    height, width = configuration.get("input_size", (3, 224, 224))[1:]
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, first.in_channels, height, width, generator=generator)
    return image.to(first.weight.device, first.weight.dtype)
