"""The report of a comparison: one HTML file that needs no other."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from leanconv.files import make_folder, write
from leanconv.report.cost_plot import cost_figure, cost_points
from leanconv.report.findings import Section, rendered
from leanconv.report.learning_plot import courses_of, learning_figure
from leanconv.report.pictures import INK, STAND_IN, Picture, png, svg
from leanconv.report.style import styles
from leanconv.report.words import capitalised, headline, remarks
from leanconv.tasks.comparison import Comparison


def write_report(comparison: Comparison, folder: str | Path, sections: Sequence[Section] = ()) -> Path:
    """Writes `report.html`, and its pictures also as `accuracy-cost.png` and `learning-curves.png`.

    The page stands alone: no script, nothing to load. A comparison that isn't finished is reported as far as it goes.

    Args:
        comparison: what to report.
        folder: made if need be; usually the one that the comparison is in.
        sections: below the curves.

    Returns:
        The path of report.html.

    Raises:
        OSError: the folder can't be written or the disk is full.

    >>> write_report(Comparison.load("runs/comparison"), "runs/comparison")  # doctest: +SKIP
    PosixPath('runs/comparison/report.html')
    """
    folder = Path(folder)
    make_folder(folder)
    costs: list[Picture] = []
    courses: list[Picture] = []
    if points := cost_points(comparison):
        write(folder / "accuracy-cost.png", png(cost_figure(comparison, points, ink=INK)))
        write(folder / "learning-curves.png", png(learning_figure(comparison, ink=INK)))
        costs = [
            svg(
                cost_figure(comparison, {name: found}, ink=STAND_IN),
                capitalised(f"{comparison.score.name} against {name}"),
            )
            for name, found in points.items()
        ]
        courses = [
            svg(learning_figure(comparison, [course], ink=STAND_IN), capitalised(f"{course.name} after each epoch"))
            for course in courses_of(comparison)
        ]
    path = folder / "report.html"
    write(path, page(comparison, costs, courses, sections))
    return path


def page(
    comparison: Comparison, costs: Sequence[Picture], courses: Sequence[Picture], sections: Sequence[Section] = ()
) -> str:
    """The text of the page with these pictures, and with further sections below them."""
    return rendered(
        "comparison.html",
        comparison=comparison,
        headline=headline(comparison),
        table=comparison.table(),
        remarks=[remarks(row, comparison) for row in comparison.rows],
        looks=[styles(comparison)[row.operator] for row in comparison.rows],
        costs=costs,
        courses=courses,
        sections=sections,
        trained=sum(len(row.trainings) for row in comparison.rows),
        period=period(comparison.setting["started"], comparison.setting["finished"]),
        recipe={key: value for key, value in comparison.recipe.items() if value not in (None, "", [])},
    )


def period(started: str, finished: str | None) -> str:
    """When a comparison ran, to the minute, from two times in ISO form; the second is None while it isn't finished.

    >>> period("2026-03-01T09:58:10+00:00", "2026-03-01T10:01:40+00:00")
    '2026-03-01 09:58 to 10:01 UTC'
    >>> period("2026-03-01T09:58:10+00:00", None)
    '2026-03-01 09:58 UTC, not finished'
    """
    begin = datetime.fromisoformat(started)
    if finished is None:
        return f"{begin:%Y-%m-%d %H:%M %Z}, not finished"
    end = datetime.fromisoformat(finished)
    return f"{begin:%Y-%m-%d %H:%M} to {end:{'%H:%M' if begin.date() == end.date() else '%Y-%m-%d %H:%M'} %Z}"
