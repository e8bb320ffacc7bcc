import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from leanconv.report import write_report
from leanconv.report.findings import Section
from leanconv.table import Table

NEVER_CLOSED = {"meta", "link", "img", "br", "hr"}


class Elements(HTMLParser):
    """Checks that elements are closed in order, and keeps text, attributes and identifiers."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in NEVER_CLOSED:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(path) -> Elements:
    elements = Elements()
    elements.feed(path.read_text())
    elements.close()
    assert elements.open == []
    return elements


@pytest.fixture(scope="module")
def rows(row):
    dense = row("dense", [97.0, 98.0], 4000, 8_000_000, 1.0)
    return [dense, row("tied:blocks=2", [96.8, 97.6], 1000, 4_000_000, 0.5)]


@pytest.fixture(scope="module")
def folder(rows, comparison, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "new"
    assert write_report(comparison(*rows), folder) == folder / "report.html"
    return folder


def test_the_page_has_the_numbers_and_the_circumstances(folder):
    text = " ".join(read(folder / "report.html").text.split())
    for part in (
        "97.50 ± 0.71", "97.20 ± 0.57", "4.0× fewer", "2.0× faster", "0.3 points less, within the spread of 2 seeds",
        "cifar_resnet20 on digits", "2026-03-01 09:58 to 10:01 UTC", "handwritten digits: 100 images",
        "A processor", "16.0 GiB", "torch 2.14.1", "epochs 3", "seeds 0, 1", "leanconv compare --epochs 3",
    ):  # fmt: skip
        assert part in text, part
    assert "None" not in text
    assert "isn't finished" not in text


def test_the_page_needs_no_other_file(folder):
    page = read(folder / "report.html")
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    links = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "srcset", "data")]
    assert links
    assert all(link.startswith("#") for link in links)
    text = (folder / "report.html").read_text()
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}


def test_the_pictures_point_at_their_own_parts(folder):
    page = read(folder / "report.html")
    identifiers = [value for name, value in page.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    targets = {value[1:] for name, value in page.attributes if name == "xlink:href"}
    targets |= set(re.findall(r"url\(#([^)]+)\)", (folder / "report.html").read_text()))
    assert targets
    assert targets <= set(identifiers)
    assert page.tags.count("svg") == 5
    assert "currentColor" in (folder / "report.html").read_text()


def test_the_pictures_are_files_too(folder):
    for name, panels in (("accuracy-cost.png", 3), ("learning-curves.png", 2)):
        with Image.open(folder / name) as picture:
            assert picture.width > 600 * panels
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 50


def test_what_users_named_is_escaped(row, comparison, tmp_path):
    evil = "<script>alert('x')</script>--><b>"
    rows = [row("dense", [97.0, 98.0]), row(evil, [96.8, 97.6], 500, 500_000)]
    page = read(write_report(comparison(*rows, model=evil, data=f"imagefolder:{evil}"), tmp_path))
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert page.text.count(evil) >= 4


@pytest.mark.parametrize(("found", "milliseconds", "pictures", "warning"), [
    ([[], []], None, 0, "0 of 4 trainings are done. Repeat"),
    ([[97.0], []], None, 3, "1 of 4 trainings are done. Repeat"),
    ([[97.0, 98.0], [97.0, 96.0]], None, 3, "4 of 4 trainings are done, times are not measured yet. Repeat"),
])  # fmt: skip
def test_what_is_not_finished_is_reported_as_far_as_it_goes(
    row, comparison, tmp_path, found, milliseconds, pictures, warning
):
    rows = [row(name, accuracies, milliseconds=milliseconds)
            for name, accuracies in zip(("dense", "tied"), found, strict=True)]
    page = read(write_report(comparison(*rows), tmp_path))
    assert page.tags.count("svg") == pictures
    assert warning in " ".join(page.text.split())
    assert (tmp_path / "accuracy-cost.png").exists() == bool(pictures)


def test_further_sections_stand_above_the_circumstances(row, comparison, tmp_path):
    sections = [Section("Where it looks", note="Missing: tied: <no> maps."), Section("More", (), Table(["a"], [["b"]]))]
    text = " ".join(read(write_report(comparison(row("dense", [])), tmp_path, sections)).text.split())
    begin = 0
    for part in ("What each operator gives", "Where it looks Missing: tied: <no> maps. More a b", "What was run"):
        begin = text.index(part, begin)
