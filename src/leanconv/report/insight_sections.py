"""The parts of a comparison's report that look into its networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from leanconv.files import write
from leanconv.measure import Similarity
from leanconv.report.cam_plot import Look, cam_figure, cam_picture, how_to_read
from leanconv.report.findings import Section
from leanconv.report.insight import Insight, in_a_line
from leanconv.report.pictures import INK, STAND_IN, png, svg_as_drawn
from leanconv.report.similarity_plot import similarity_figure
from leanconv.report.style import styles
from leanconv.table import Table
from leanconv.tasks.comparison import Comparison


def insight_sections(comparison: Comparison, found: Mapping[str, Insight], folder: Path) -> list[Section]:
    """Two sections on what was found, by operator; their pictures are written as `similarity.png` and `cam.png` too.

    A section says what is missing, and why.
    """
    if not found:
        return []
    similarities = {operator: insight.similarity for operator, insight in found.items() if insight.similarity}
    looks = {operator: insight.look for operator, insight in found.items() if insight.look}
    parts: dict[str, tuple[str, Callable[[], Section]]] = {
        "similarity": ("How alike its filters are", lambda: similarity_section(comparison, similarities, folder)),
        "look": ("Where it looks", lambda: look_section(looks, folder)),
    }
    sections = []
    for part, (title, make) in parts.items():
        missing = [f"{operator}: {each.reasons[part]}" for operator, each in found.items() if part in each.reasons]
        section = Section("")
        try:
            section = make() if len(missing) < len(found) else section
        except Exception as error:  # the rest of the report is worth more
            missing.append(in_a_line(error))
        note = " ".join(filter(None, [section.note, *(f"Missing: {reason}." for reason in missing)]))
        sections.append(replace(section, title=title, note=note))
    return sections


def similarity_section(comparison: Comparison, similarities: Mapping[str, Similarity], folder: Path) -> Section:
    """How alike the filters are: all together, and from layer to layer."""
    looks = styles(comparison)
    write(folder / "similarity.png", png(similarity_figure(similarities, looks, ink=INK)))
    figure = similarity_figure(similarities, looks, ink=STAND_IN)
    rows = [[operator, f"{similarity.mean:.3f}"] for operator, similarity in similarities.items()]
    (first, *_) = similarities.values()
    filters = max(len(layer.channels) for layer in first.layers)
    note = (
        "What two filters of a layer look for, by guided backpropagation, and how alike that is: 1 is the same, 0 has "
        f"nothing in common. Of up to {filters} filters a layer, in the network of the first seed, ± standard error. "
    )
    caption = "Similarity of the filters: all pairs, and the mean of each layer"
    table = Table(["operator", "mean similarity"], rows)
    return Section("", [svg_as_drawn(figure, caption)], table, note + first.notes[0])


def look_section(looks: Mapping[str, Look], folder: Path) -> Section:
    """Where the networks find the evidence for the class that they choose."""
    (first, *_) = looks.values()
    rows = len(first.images)
    write(folder / "cam.png", png(cam_figure(looks, rows=rows, ink=INK)))
    panel = cam_picture(looks, "Class activation maps", rows=rows)
    return Section("", [panel], note=f"{how_to_read(looks)} The networks are those of the first seed.")
