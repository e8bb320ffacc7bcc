"""A table as data: printed in a terminal, or written as CSV."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanconv.files import write_csv

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass
class Table:
    """Rows of values under named columns, with a title above and notes below.

    Args:
        columns: the header of each column.
        rows: one sequence of values a row; columns of quantities, but for the first, are aligned to the right.
        title: a line above the table.
        notes: lines below the table.

    >>> print(Table(["layer", "params"], [["conv1", 432]], notes=["1 layer"]))
     layer   params
    ────────────────
     conv1      432
    1 layer
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    notes: Sequence[str] = field(default_factory=list)

    def __rich__(self) -> RenderableType:
        from rich import box
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=box.SIMPLE_HEAD, title=None, show_edge=False, pad_edge=True)
        for index, column in enumerate(self.columns):
            numbers = index > 0 and self.rows and all(is_quantity(row[index]) for row in self.rows)
            names = index == 0  # to be copied, so the others fold first
            table.add_column(Text(column), justify="right" if numbers else "left", overflow="fold", no_wrap=names)
        for row in self.rows:
            table.add_row(*(Text(str(value)) for value in row))
        head = [Text(self.title, style="bold")] if self.title else []
        return Group(*head, table, *(Text(note) for note in self.notes))

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        Console(file=text, width=200, color_system=None).print(self)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def to_csv(self, path: str | Path) -> None:
        """Writes the columns and rows, as they are, to a CSV file."""
        write_csv(Path(path), self.columns, self.rows)


QUANTITY = re.compile(r"[+−-]?[\d,.]+( ?(%|×|[kMG]B?|ms|s|min|h))?( ?[±(].*)?")


def is_quantity(value: object) -> bool:
    """Whether a cell is a number, perhaps with a unit and a spread.

    >>> [is_quantity(cell) for cell in (3, "1.3 ± 0.2", "25.6 M", "3x3 64→64")]
    [True, True, True, False]
    """
    return isinstance(value, int | float) or QUANTITY.fullmatch(str(value)) is not None
