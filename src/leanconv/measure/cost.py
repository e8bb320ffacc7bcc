"""What one run of a model costs: parameters, multiply-accumulates, activations and peak memory, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leanconv.measure.memory import peak_memory, tensors
from leanconv.measure.setting import Setting
from leanconv.ops.dynamic.library import count_operations


@dataclass
class LayerCost:
    """One layer's share of a `Cost`.

    A layer is a module that ran without running another (a `TiedConv2d` is one: its child only holds the weight), or
    one with parameters or multiply-accumulates of its own besides those of the modules it runs. What costs nothing, an
    identity or a ReLU in place, isn't listed.

    Args:
        name: the module's name in the model; "" is the model itself.
        kind: its class.
        output_shape: of its (first) output; None when it never ran.
        params: parameters; shared ones are counted once, at the first layer that has them.
        macs: multiply-accumulates of all its calls.
        activation_bytes: size of the outputs of all its calls, unless it computes in place or returns a view.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...] | None = None
    params: int = 0
    macs: int = 0
    activation_bytes: int = 0


@dataclass
class Cost:
    """What one run of a model costs.

    Args:
        params: parameters.
        buffers: elements of buffers, the running statistics of norms for instance.
        macs: multiply-accumulates of the convolutions and matrix products of a forward pass, for the whole batch.
        activation_bytes: size of all layers' outputs: what training keeps for the backward pass, at most.
        peak_bytes: most bytes alive at once during the run, besides the weights and the input; see `peak_memory`.
        layers: one entry a layer; their params, macs and activation_bytes add up to the totals.
    """

    params: int
    buffers: int
    macs: int
    activation_bytes: int
    peak_bytes: int
    layers: list[LayerCost]


def count(
    model: nn.Module,
    shape: Sequence[int],
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = torch.float32,
    channels_last: bool = False,
    training: bool = False,
) -> Cost:
    """Counts what a model costs by running a copy of it; the model and the random numbers stay as they are.

    Multiply-accumulates are half the operations that `torch.utils.flop_counter` counts: those of convolutions and
    matrix products. ResNet-50 has 4.089 G of them at 224 × 224.

    Args:
        model: any module that takes one image tensor.
        shape: (N, C, H, W) of the input.
        device, dtype, channels_last: what the copy and the input are converted to.
        training: run in training mode and include the backward pass in the peak of memory.

    Raises:
        ValueError: where the shape, device or dtype can't be (see `Setting`), or the model can't run on such input.

    >>> cost = count(nn.Conv2d(3, 8, 3, padding=1), (1, 3, 32, 32))
    >>> cost.params, cost.macs, cost.activation_bytes
    (224, 221184, 32768)
    """
    setting = Setting.of(shape, device, dtype, channels_last, training)
    replica, input = setting.replica(model), setting.input()
    with torch.random.fork_rng(devices=[input.device] if input.is_cuda else []):
        try:
            peak = peak_memory(lambda: setting.run(replica, input))
            layers = layer_costs(replica, input)
        except (AssertionError, RuntimeError) as error:  # timm's networks assert the size of their images
            reason = str(error).partition("\n")[0]
            kind = type(model).__name__
            raise ValueError(f"{kind} can't run on an input of shape {setting.shape}: {reason}") from error
    return Cost(
        params=sum(layer.params for layer in layers),
        buffers=sum(buffer.numel() for buffer in model.buffers()),
        macs=sum(layer.macs for layer in layers),
        activation_bytes=sum(layer.activation_bytes for layer in layers),
        peak_bytes=peak,
        layers=layers,
    )


@dataclass
class Call:
    """A module that is running: operations counted when it began, those of the modules it ran, whether it ran any."""

    began: int
    inside: int = 0
    leaf: bool = True


def layer_costs(model: nn.Module, input: Tensor) -> list[LayerCost]:
    """Runs a model, to be thrown away afterwards, with hooks on every module; returns its layers in order."""
    from torch.utils.flop_counter import FlopCounterMode  # loads triton, where it is installed

    count_operations()
    layers = {name: LayerCost(name, type(module).__name__) for name, module in model.named_modules()}
    leaves: set[str] = set()
    calls: list[Call] = []
    counter = FlopCounterMode(display=False)

    def watch(name: str, module: nn.Module) -> None:
        layer = layers[name]

        def enter(module: nn.Module, args: object) -> None:
            calls.append(Call(began=counter.get_total_flops()))

        def leave(module: nn.Module, args: object, kwargs: object, output: object) -> None:
            call = calls.pop()
            operations = counter.get_total_flops() - call.began
            layer.macs += (operations - call.inside) // 2
            if calls:
                calls[-1].inside += operations
                calls[-1].leaf = False
            results = list(tensors(output))
            layer.output_shape = tuple(results[0].shape) if results else ()
            if call.leaf:
                leaves.add(name)
                given = {tensor.untyped_storage().data_ptr() for tensor in tensors((args, kwargs))}
                new = [result for result in results if result.untyped_storage().data_ptr() not in given]
                layer.activation_bytes += sum(result.numel() * result.element_size() for result in new)

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave, with_kwargs=True)

    for name, module in model.named_modules():
        watch(name, module)
    model.requires_grad_(False)  # the counter fails on views of a parameter that asks for gradients and gets none
    with torch.no_grad(), counter:
        model(input)
    for name, parameter in model.named_parameters():
        layers[owner(name, leaves)].params += parameter.numel()
    return [layer for layer in layers.values() if layer.params or layer.macs or layer.activation_bytes]


def owner(parameter: str, leaves: set[str]) -> str:
    """The layer that a parameter counts for: the outermost leaf that holds it, else the module that has it.

    >>> owner("tied.conv.weight", {"tied"}), owner("block.scale", {"block.conv"})
    ('tied', 'block')
    """
    path = parameter.split(".")[:-1]
    above = (".".join(path[:depth]) for depth in range(len(path) + 1))
    return next((name for name in above if name in leaves), ".".join(path))
