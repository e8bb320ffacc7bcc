"""One table for what models cost: parameters, multiply-accumulates, memory and milliseconds, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from leanconv.errors import unknown
from leanconv.measure.cost import Cost, count
from leanconv.measure.latency import Timing, interleaved
from leanconv.measure.setting import Setting
from leanconv.table import Table

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass
class ModelProfile:
    """One model's row: its name, what it costs and, unless left out, how long a run takes."""

    name: str
    cost: Cost
    timing: Timing | None


@dataclass
class Profile:
    """What models cost under one setting. Prints as a table; `layers` breaks one model down."""

    rows: list[ModelProfile]
    setting: Setting

    def table(self) -> Table:
        """One row a model; with several, each cost with its ratio to the first model's."""
        costs = [row.cost for row in self.rows]
        columns = [
            scaled("params", "", [cost.params for cost in costs]),
            scaled("MACs", "", [cost.macs for cost in costs]),
            scaled("activations", "B", [cost.activation_bytes for cost in costs]),
            scaled("peak memory", "B", [cost.peak_bytes for cost in costs]),
        ]
        timings = [row.timing for row in self.rows if row.timing is not None]
        if timings:
            columns.append(Column("ms", [str(timing) for timing in timings], [timing.median_ms for timing in timings]))
        if len(self.rows) > 1:
            columns = [column.with_ratios() for column in columns]
        columns = [Column("model", [row.name for row in self.rows]), *columns]
        notes = [
            str(self.setting),
            "MACs: multiply-accumulates of convolutions and matrix products, forward pass of the batch. "
            "Activations: all layers' outputs. Peak memory: alive at once, besides weights and input.",
        ]
        if timings:
            notes.append(f"ms: median (quartiles) of {timings[0].rounds} interleaved rounds.")
        return side_by_side(columns, notes=notes)

    def layers(self, name: str | None = None) -> Table:
        """One row a layer of a model, the first when no name is given.

        Raises:
            ValueError: when no model has that name.
        """
        rows = {row.name: row for row in self.rows}
        if name is not None and name not in rows:
            raise unknown("model", name, rows)
        row = self.rows[0] if name is None else rows[name]
        layers, cost = row.cost.layers, row.cost
        columns = [
            Column("layer", [*(layer.name or "(model)" for layer in layers), "total"]),
            Column("kind", [*(layer.kind for layer in layers), ""]),
            Column("output", ["×".join(map(str, layer.output_shape or ["not run"])) for layer in layers] + [""]),
            scaled("params", "", [*(layer.params for layer in layers), cost.params]),
            scaled("MACs", "", [*(layer.macs for layer in layers), cost.macs]),
            Column("MACs %", [f"{100 * layer.macs / max(cost.macs, 1):.1f}" for layer in layers] + ["100.0"]),
            scaled("activations", "B", [*(layer.activation_bytes for layer in layers), cost.activation_bytes]),
        ]
        return side_by_side(columns, title=row.name, notes=[str(self.setting)])

    def __rich__(self) -> RenderableType:
        return self.table().__rich__()

    def __str__(self) -> str:
        return str(self.table())


def profile(
    models: nn.Module | Mapping[str, nn.Module],
    shape: Sequence[int] = (1, 3, 224, 224),
    *,
    latency: bool = True,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = torch.float32,
    channels_last: bool = False,
    rounds: int = 20,
    training: bool = False,
) -> Profile:
    """Measures what one model or several cost, on copies: the models stay as they are.

    Args:
        models: a model, or models by name; the first is what the others are compared with.
        shape: (N, C, H, W) of the input.
        latency: whether to time them too, by turns (see `interleaved`).
        device, dtype, channels_last: what the copies and the input are converted to.
        rounds: samples of each model's time.
        training: time forward and backward in training mode, instead of inference.

    Returns:
        A `Profile`, which prints as a table.

    Raises:
        ValueError: without models; where the shape, device or dtype can't be; when a model can't run on such input.
        TypeError: for what isn't a module.

    >>> convs = {"dense": nn.Conv2d(8, 8, 3), "grouped": nn.Conv2d(8, 8, 3, groups=4)}
    >>> dense, grouped = profile(convs, (1, 8, 16, 16), latency=False).rows
    >>> dense.cost.macs / grouped.cost.macs
    4.0
    """
    named = dict(models) if isinstance(models, Mapping) else {type(models).__name__: models}
    if not named:
        raise ValueError("models must name at least one model to profile, got none")
    for name, model in named.items():
        if not isinstance(model, nn.Module):
            raise TypeError(f"models must be torch.nn.Modules, got {type(model).__name__} for {name!r}")
    setting = Setting.of(shape, device, dtype, channels_last, training)
    costs = {
        name: count(model, shape, device=device, dtype=dtype, channels_last=channels_last, training=training)
        for name, model in named.items()
    }
    timings = timed(named, setting, rounds) if latency else {}
    return Profile([ModelProfile(name, cost, timings.get(name)) for name, cost in costs.items()], setting)


def timed(models: Mapping[str, nn.Module], setting: Setting, rounds: int) -> dict[str, Timing]:
    """How long a run of each model takes under a setting, by turns."""
    input = setting.input()
    replicas = {name: setting.replica(model) for name, model in models.items()}
    runs = {name: lambda replica=replica: setting.run(replica, input) for name, replica in replicas.items()}
    with torch.random.fork_rng(devices=[input.device] if input.is_cuda else []):
        return interleaved(runs, rounds=rounds, device=input.device)


@dataclass
class Column:
    """A column of a table: its header, its cells and, where it is a cost, the numbers behind them."""

    name: str
    cells: Sequence[str]
    values: Sequence[float] = ()

    def with_ratios(self) -> Column:
        """The same with the ratio to the first row behind each cell.

        >>> Column("ms", ["4.0", "1.0"], [4.0, 1.0]).with_ratios().cells
        ['4.0 ×1.00', '1.0 ×0.25']
        """
        first = self.values[0]
        if not first:
            return self
        pairs = zip(self.cells, self.values, strict=True)
        return replace(self, cells=[f"{cell} ×{value / first:.2f}" for cell, value in pairs])


def side_by_side(columns: Sequence[Column], *, title: str = "", notes: Sequence[str] = ()) -> Table:
    """The table made of columns of equal length."""
    rows = list(zip(*(column.cells for column in columns), strict=True))
    return Table([column.name for column in columns], rows, title=title, notes=notes)


def scaled(name: str, unit: str, values: Iterable[float]) -> Column:
    """A column in the unit, of thousands, millions and so on, that suits its largest value.

    >>> scaled("MACs", "", [40_551_040, 12_000_000])
    Column(name='MACs (M)', cells=['40.55', '12'], values=[40551040, 12000000])
    """
    values = list(values)
    step = next((step for step in (4, 3, 2, 1) if max(values) >= 1000**step), 0)
    label = ["", "k", "M", "G", "T"][step] + unit
    return Column(f"{name} ({label})" if label else name, [f"{value / 1000**step:.4g}" for value in values], values)
