"""A page of what was found in networks: sections of pictures and tables, in one HTML file that needs no other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import jinja2

from leanconv.files import write
from leanconv.report.pictures import Picture
from leanconv.report.words import capitalised
from leanconv.table import Table
from leanconv.tasks.circumstances import command as command_line
from leanconv.tasks.circumstances import machine, versions


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Args:
        title: above it.
        pictures: side by side, as many as fit.
        table: below the pictures.
        note: how to read them, between the two.
        wide: whether the pictures need half of the page each, not a third.
    """

    title: str
    pictures: Sequence[Picture] = ()
    table: Table | None = None
    note: str = ""
    wide: bool = False


def write_findings(path: Path, *, command: str, title: str, lead: str, sections: Sequence[Section]) -> None:
    """Writes a page that stands alone: no script, nothing to load.

    Args:
        path: of the page.
        command: that makes it, such as "similarity".
        title: of the page.
        lead: what was found, in a sentence or two.
        sections: from top to bottom.

    Raises:
        OSError: it can't be written; one of that name stays as it was.
    """
    text = rendered(
        "findings.html",
        command=command,
        title=title,
        lead=lead,
        sections=sections,
        when=f"{datetime.now(UTC):%Y-%m-%d %H:%M %Z}",
        machine=machine("cpu"),
        versions=versions(),
        line=command_line(),
    )
    write(path, text)


def rendered(template: str, **values: object) -> str:
    """The text of a page; what users named, layers and operators for instance, is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["capitalised"] = capitalised
    return environment.get_template(template).render(version=versions()["leanconv"], **values)
