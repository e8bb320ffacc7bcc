import re
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from leanconv.report.findings import Section, write_findings
from leanconv.report.pictures import STAND_IN, svg
from leanconv.table import Table

EVIL = "<script>alert('x')</script>&<b>"


class Elements(HTMLParser):
    """Keeps the tags, the attributes and the text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    figure = Figure()
    figure.subplots().imshow([[0.0, 1.0]])
    figure.text(0.5, 0.5, "written", color=STAND_IN)
    path = tmp_path_factory.mktemp("findings") / "report.html"
    sections = [
        Section("Pictures", [svg(figure, "One"), svg(figure, "Two")], note=f"Read {EVIL} so."),
        Section(EVIL, table=Table(["layer", EVIL], [["conv1", 0.5], [EVIL, 0.25]], notes=[f"Of {EVIL}."]), wide=True),
    ]
    write_findings(path, command="similarity", title=f"Of {EVIL}", lead=f"In {EVIL}.", sections=sections)
    return path.read_text()


def test_it_holds_its_sections_in_order(page):
    elements = Elements(page)
    text = " ".join(elements.text.split())
    parts = ["leanconv similarity", f"Of {EVIL}", f"In {EVIL}.", "Pictures", "One", "Two", f"Read {EVIL} so.", EVIL,
             "layer", "conv1 0.5", f"{EVIL} 0.25", f"Of {EVIL}.", "What was run, and where", "processor", "torch",
             "To run it again"]  # fmt: skip
    begin = 0
    for part in parts:
        begin = text.index(part, begin)
    assert elements.tags.count("svg") == 2
    assert elements.tags.count("table") == 1


def test_what_users_named_is_escaped(page):
    tags = Elements(page).tags
    assert "script" not in tags
    assert "b" not in tags


def test_it_needs_no_other_file_and_its_identifiers_are_unique(page):
    elements = Elements(page)
    assert not {"link", "iframe", "object", "embed"} & set(elements.tags)
    links = [value for name, value in elements.attributes if name in ("src", "href", "xlink:href", "srcset")]
    assert any(link.startswith("data:image/png;base64,") for link in links)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert set(re.findall(r"url\((.)", page)) <= {"#"}
    assert "@import" not in page
    identifiers = [value for name, value in elements.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))


def test_its_text_takes_the_colour_of_the_page(page):
    assert "currentColor" in page
    assert STAND_IN not in page


def test_a_page_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(OSError, match="cannot write"):
        write_findings(tmp_path / "none" / "page.html", command="x", title="x", lead="x", sections=[])
