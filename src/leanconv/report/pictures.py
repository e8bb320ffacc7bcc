"""Figures as files, and as parts of a page."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.figure import Figure

INK = "#1f2328"
STAND_IN = "#010203"  # a colour that nothing else has: in a page it becomes the one of the text around
NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}


@dataclass(frozen=True)
class Picture:
    """An SVG element, and what it shows."""

    caption: str
    svg: Markup


def png(figure: Figure) -> bytes:
    """A figure as a file for slides and documents, on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200)
    return buffer.getvalue()


def svg(figure: Figure, caption: str) -> Picture:
    """A figure, drawn with `STAND_IN` as its ink, as an element that takes the width and the text colour of its place.

    Several fit on one page: their identifiers are made different by the caption.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata=NO_METADATA)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(STAND_IN, "currentColor")
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    prefix = re.sub(r"\W+", "-", caption).lower()
    text = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    label = Markup('role="img" aria-label="{}"').format(caption)
    return Picture(caption, Markup(re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', label, text, count=1)))


def svg_as_drawn(figure: Figure, caption: str) -> Picture:
    """As `svg`, but no wider than the figure: for rasters, and pictures that say little."""
    picture = svg(figure, caption)
    width = Markup('<svg style="max-width: {:.2f}in" ').format(figure.get_figwidth())
    return Picture(caption, Markup(picture.svg.replace("<svg ", width, 1)))
