"""How a model is run to be measured: on which input, where, in which precision and layout."""

from __future__ import annotations

import copy
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from leanconv.errors import unknown
from leanconv.measure.memory import tensors

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Setting:
    """The circumstances of a measurement; printed, the line that belongs below every table of milliseconds."""

    shape: tuple[int, ...]
    device: torch.device
    dtype: torch.dtype
    channels_last: bool
    training: bool

    @classmethod
    def of(
        cls,
        shape: Sequence[int] = (1, 3, 224, 224),
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = torch.float32,
        channels_last: bool = False,
        training: bool = False,
    ) -> Self:
        """Makes one from what a user writes.

        Args:
            shape: (N, C, H, W) of the input.
            device: as `torch.device` takes it.
            dtype: of weights and input: "float16", "bfloat16", "float32" or "float64", or the `torch.dtype` itself.
            channels_last: whether weights and input are laid out so.
            training: a forward and a backward pass in training mode, instead of a forward pass in inference mode.

        Raises:
            ValueError: where the shape isn't four positive whole numbers, the device isn't there or the dtype unknown.

        >>> Setting.of((8, 3, 32, 32), dtype="bfloat16").dtype
        torch.bfloat16
        """
        if len(shape) != 4 or not all(isinstance(size, int) and size > 0 for size in shape):
            raise ValueError(f"shape must be four positive whole numbers (N, C, H, W), got {tuple(shape)}")
        name = str(dtype).removeprefix("torch.")
        if name not in DTYPES:
            raise unknown("dtype", name, DTYPES)
        return cls(tuple(shape), available(device), DTYPES[name], channels_last, training)

    def replica(self, model: nn.Module) -> nn.Module:
        """A copy of a model, moved and converted for this setting: the model itself is left as it is."""
        replica = copy.deepcopy(model).to(self.device, self.dtype).train(self.training)
        replica.zero_grad(set_to_none=True)
        return replica.to(memory_format=self.memory_format)

    def input(self) -> Tensor:
        """An input with values from the standard normal distribution, the same at each call."""
        values = torch.randn(self.shape, generator=torch.Generator().manual_seed(0))
        return values.to(self.device, self.dtype, memory_format=self.memory_format)

    def run(self, model: nn.Module, input: Tensor) -> None:
        """One inference, or one forward and backward pass of the outputs' sum with the gradients dropped first."""
        if not self.training:
            with torch.no_grad():
                model(input)
            return
        model.zero_grad(set_to_none=True)
        outputs = [output.sum() for output in tensors(model(input)) if output.requires_grad]
        torch.autograd.backward(outputs)

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def __str__(self) -> str:
        return ", ".join([
            device_name(self.device),
            "×".join(map(str, self.shape)),
            str(self.dtype).removeprefix("torch."),
            "channels_last" if self.channels_last else "NCHW",
            "training: forward and backward" if self.training else "inference",
            f"torch {torch.__version__}",
        ])


def available(device: str | torch.device) -> torch.device:
    """The device, when this machine has it.

    Raises:
        ValueError: when it has not, or when there is no such thing.

    >>> available("cpu")
    device(type='cpu')
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device {str(device)!r} can't be used here: {reason}") from error
    return found


def device_name(device: str | torch.device) -> str:
    """The product name of a device and, for the CPU, the number of threads in use."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return str(device)
    threads = torch.get_num_threads()
    return f"{processor_name()}, {threads} thread{'s' if threads > 1 else ''}"


def processor_name() -> str:
    """The name of the processor, as far as the system tells."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
