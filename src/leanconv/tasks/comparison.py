"""A comparison: one network with each operator, trained alike, and what each gives for what it costs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from leanconv.files import write, write_csv
from leanconv.measure.latency import Timing
from leanconv.measure.profiling import Column, scaled, side_by_side
from leanconv.table import Table
from leanconv.tasks.task import SCORES, Score
from leanconv.tasks.training_recipe import DEFAULT_TASK

if TYPE_CHECKING:
    from rich.console import RenderableType

BATCHES = {"classification": (1, 32), "detection": (1,)}  # that are timed
RESULTS = "results.json"


@dataclass(frozen=True)
class Training:
    """One finished training.

    Args:
        seed: of weights, order of the images and augmentation.
        score: on the test data after the last epoch, in the unit of the task's `Score`.
        seconds: that it took.
        curve: `train_loss`, and `test_score` in its unit, after each epoch; None for what isn't finite.
    """

    seed: int
    score: float
    seconds: float
    curve: Mapping[str, Sequence[float | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """What one operator gives and what it costs.

    Args:
        operator: its name with its settings, or "dense".
        params: of the network with its norms folded, each tied filter counted once.
        macs: multiply-accumulates for one image.
        trainings: those that are finished, one a seed.
        latency: milliseconds an image takes in the fused network, by the size of the batch; empty until it is measured.
    """

    operator: str
    params: int
    macs: int
    trainings: Sequence[Training] = ()
    latency: Mapping[int, Timing] = field(default_factory=dict)

    @property
    def score(self) -> float | None:
        """The mean over the seeds; None before the first training is finished."""
        return statistics.fmean(training.score for training in self.trainings) if self.trainings else None

    @property
    def spread(self) -> float | None:
        """The sample standard deviation over the seeds; None for fewer than two."""
        return statistics.stdev(training.score for training in self.trainings) if len(self.trainings) > 1 else None

    @property
    def train_seconds(self) -> float | None:
        """The mean over the seeds; None before the first training is finished."""
        return statistics.fmean(training.seconds for training in self.trainings) if self.trainings else None

    def plain(self) -> dict[str, Any]:
        """Everything, with values that JSON knows."""
        return {
            "operator": self.operator,
            "score": self.score,
            "spread": self.spread,
            "params": self.params,
            "macs": self.macs,
            "latency": {str(batch): vars(timing) for batch, timing in self.latency.items()},
            "train_seconds": self.train_seconds,
            "trainings": [vars(training) for training in self.trainings],
        }

    def flat(self, batches: Sequence[int]) -> dict[str, Any]:
        """The numbers as one line of a CSV file; None where there is none yet."""
        line = {name: value for name, value in self.plain().items() if name not in ("latency", "trainings")}
        for batch in batches:
            timing = self.latency.get(batch)
            line[f"ms_b{batch}"] = timing and timing.median_ms
            line[f"ms_b{batch}_low"] = timing and timing.low_ms
            line[f"ms_b{batch}_high"] = timing and timing.high_ms
        return line | {"trainings": len(self.trainings)}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """The inverse of `plain`."""
        return cls(
            plain["operator"],
            plain["params"],
            plain["macs"],
            [Training(**training) for training in plain["trainings"]],
            {int(batch): Timing(**timing) for batch, timing in plain["latency"].items()},
        )


@dataclass(frozen=True)
class Comparison:
    """What each operator gives for what it costs. Prints as a table; its folder holds all of it.

    Args:
        rows: one an operator.
        seeds: that each operator is trained with.
        recipe: what is trained and how: the keys of a `Recipe`, but operator and seed.
        setting: under which circumstances: `data` and `latency` (a line each), `machine`, `versions`, `command`,
            `started`, `finished`.
    """

    rows: Sequence[Row]
    seeds: Sequence[int]
    recipe: Mapping[str, Any]
    setting: Mapping[str, Any]

    @property
    def score(self) -> Score:
        """What the trainings are judged by."""
        return SCORES[self.recipe.get("task", DEFAULT_TASK)]

    @property
    def batches(self) -> tuple[int, ...]:
        """The sizes of batches that are timed."""
        return BATCHES[self.recipe.get("task", DEFAULT_TASK)]

    @property
    def wanted(self) -> int:
        """How many trainings there are to be."""
        return len(self.rows) * len(self.seeds)

    @property
    def finished(self) -> bool:
        """Whether every operator is trained with every seed, and timed."""
        return all(len(row.trainings) == len(self.seeds) and row.latency for row in self.rows)

    @property
    def baseline(self) -> Row:
        """The row that the others are held against: "dense" where there is one, else the first."""
        return next((row for row in self.rows if row.operator == "dense"), self.rows[0])

    def table(self) -> Table:
        """One row an operator, and below it what the numbers are."""
        columns = [
            Column("operator", [row.operator for row in self.rows]),
            Column(self.score.title, [mean_and_spread(row) for row in self.rows]),
            scaled("params", "", [row.params for row in self.rows]),
            scaled("MACs", "", [row.macs for row in self.rows]),
            *(Column(f"ms b{batch}", [milliseconds(row, batch) for row in self.rows]) for batch in self.batches),
            Column("train s", ["–" if row.train_seconds is None else f"{row.train_seconds:.1f}" for row in self.rows]),
        ]
        return side_by_side(columns, title=f"{self.recipe['model']} on {self.recipe['data']}", notes=self.notes())

    def notes(self) -> list[str]:
        """What the numbers of the table are, in lines."""
        recipe, seeds = self.recipe, ", ".join(map(str, self.seeds))
        over = f"mean ± standard deviation over seeds {seeds}" if len(self.seeds) > 1 else f"seed {seeds}"
        return [
            f"{self.score.name}: on the test data after the last epoch, {over}; {self.setting['data']}",
            f"training: epochs {recipe['epochs']}, batch size {recipe['batch_size']}, {recipe['optimizer']}, "
            f"lr {recipe['lr']:g} {recipe['schedule']}, {recipe['precision']}; train s: mean of a training",
            f"ms {', '.join(f'b{batch}' for batch in self.batches)}: per image in batches of "
            f"{' and '.join(map(str, self.batches))}, fused, median of interleaved rounds; {self.setting['latency']}",
        ]

    def save(self, folder: Path) -> None:
        """Writes `results.json`, which holds everything, and `results.csv`, one line an operator.

        Raises:
            OSError: the disk is full or the folder can't be written; the files are as they were.
        """
        rows = [row.plain() for row in self.rows]
        everything = {"rows": rows, "seeds": self.seeds, "recipe": self.recipe, "setting": self.setting}
        write(folder / RESULTS, json.dumps(everything, indent=1, allow_nan=False) + "\n")
        lines = [row.flat(self.batches) for row in self.rows]
        write_csv(folder / "results.csv", lines[0].keys(), (line.values() for line in lines))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Reads a comparison back from its folder.

        Raises:
            ValueError: the folder holds none, or a damaged one.
        """
        path = Path(folder) / RESULTS
        if not path.is_file():
            raise ValueError(f"folder must hold a comparison, got {str(folder)!r} without a results.json")
        try:
            stored = json.loads(path.read_text())
            if stored["recipe"].get("task") == "depth":
                raise ValueError("it compares networks for depth, not operators")
            rows = [Row.of(row) for row in stored["rows"]]
            return cls(rows, stored["seeds"], stored["recipe"], stored["setting"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} isn't the result of a comparison of operators: {error!r}") from error

    def __rich__(self) -> RenderableType:
        return self.table().__rich__()

    def __str__(self) -> str:
        return str(self.table())


def mean_and_spread(row: Row) -> str:
    """The score of a row as tables show it.

    >>> mean_and_spread(Row("dense", 1, 1, [Training(0, 97.0, 1.0), Training(1, 98.0, 1.0)]))
    '97.50 ± 0.71'
    """
    if row.score is None:
        return "–"
    return f"{row.score:.2f}" + ("" if row.spread is None else f" ± {row.spread:.2f}")


def milliseconds(row: Row, batch: int) -> str:
    """The median time of a row as tables show it, with three digits that count.

    >>> milliseconds(Row("dense", 1, 1, latency={1: Timing(1.23456, 1.2, 1.3, 20)}), 1)
    '1.23'
    """
    return f"{row.latency[batch].median_ms:#.3g}".rstrip(".") if batch in row.latency else "–"
