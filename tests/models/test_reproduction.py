"""The count table: counted anew it is what is written, and its verdicts are those of the numbers."""

from __future__ import annotations

import doctest
import re
from contextlib import nullcontext
from pathlib import Path

import counting
import pytest
import reproduction
import torch

from leanconv.models import list_models

DOCS = Path(__file__).parents[2] / "docs"

# Parameters and operations, by the counter of the row's table, of rows that aren't held against a figure as precise.
EXACT = {
    "SE, r = 16 (B = 1)": (2_530_992,),
    "TiedSE, B = 2": (636_760,),
    "TiedSE, B = 4": (161_196,),
    "TiedSE, B = 8": (41_302,),
    "TiedSE, B = 16": (10_926,),
    "SE, weights without biases": (2_514_944,),
    "TiedSE, B = 8, weights without biases": (39_296,),
    "GCB, ratio 1/4, stages 2 to 4 (B = 1)": (10_000_909,),
    "TiedGCB, B = 2": (2_520_845,),
    "TiedGCB, B = 4": (648_589,),
    "GCB, ratio 1/16": (2_521_741,),
    "TiedGCB, ratio 1/16, B = 2": (646_349,),
    "TiedGCB, ratio 1/16, B = 4": (175_597,),
    "TiedResNet-50, TiedSE, B = 8": (23_229_934, 4_455_582_720),
    "TiedResNet-50-S": (13_943_863, 2_473_735_008),
    "TiedResNet-50": (23_188_632, 4_455_268_352),
    "TiedResNet-101": (38_860_184, 8_215_257_088),
    "TiedResNet-101-S": (21_680_852, 4_308_280_896),
    "TiedResNet-50-S, `tie_first`": (13_359_799, 2_293_101_408),
    "TiedResNet-50, `tie_first`": (22_150_296, 4_134_141_952),
    "TiedResNet-101, `tie_first`": (37_821_848, 7_894_130_688),
    "TiedResNet-101-S, `tie_first`": (21_096_788, 4_127_647_296),
    "ResNet-50, 3x3 tied, B = 2": (17_069_096, 3_164_340_224),
    "DDF-ResNet-50": (16_843_748, 2_300_884_672),
    "DDF-ResNet-101": (28_146_912, 4_079_037_888),
    "WRN-16-8, ACNet in training": (18_172_538, 2_567_656_448),
    "Ghost-VGG-16, s = 4, d = 3, first kept": (3_983_226, 81_050_112),
    "Ghost-ResNet-50, s = 2": (13_953_512, 2_151_023_360),
    "Ghost-ResNet-50, s = 4": (8_151_752, 1_181_942_912),
    "SPConv-ResNet-50, α = 1/2": (18_345_448, 2_968_312_192),
}


@pytest.fixture(scope="module")
def sections():
    return reproduction.sections()


@pytest.fixture(scope="module")
def rows(sections):
    return [row for tables in sections.values() for table in tables for row in table.rows]


@pytest.mark.slow
def test_what_is_written_is_what_is_counted(sections):
    assert (DOCS / "reproduction.md").read_text(encoding="utf-8") == reproduction.page(sections)


@pytest.mark.slow
def test_a_row_has_a_reason_where_and_only_where_a_figure_is_not_ours(rows):
    assert [row.network for row in rows if row.differs != bool(row.why)] == []
    assert sum(row.differs for row in rows) == 23


@pytest.mark.slow
def test_the_counts_are_exact(rows):
    found = {row.network: tuple(quantity.ours for quantity in row.quantities) for row in rows}
    assert {network: found[network] for network in EXACT} == EXACT


@pytest.mark.slow
def test_the_page_of_networks_has_each_network_and_its_cost():
    text = (DOCS / "networks.md").read_text(encoding="utf-8")
    assert reproduction.with_tables(text) == text
    assert sorted(re.findall(r"^\| `(\w+)` \| .+ \| [\d,]+ \| [\d,]+ \|$", text, re.MULTILINE)) == sorted(
        list_models(own=True))


@pytest.mark.slow
def test_the_code_of_the_page_of_networks_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "networks.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        with torch.device("meta") if "mixer=" in block else nullcontext():  # many networks, none of which runs
            exec(block, names)
    assert capsys.readouterr().out == "[8, 12, 20, 56, 80] [2, 4, 8, 16, 32]\nTrue\n"
    assert names["network"].pretrained_cfg["label_names"][9] == "flower 9"
    assert names["other"].num_classes == 7


@pytest.mark.parametrize(
    ("figure", "ours", "baseline", "expected"),
    [
        ("16.8M", 16_843_748, None, "✓"),
        ("16.9M", 16_843_748, None, "✗"),
        ("16.84M", 16_843_748, None, "✓"),
        ("16.8M", 16_850_000, None, "✓ cut"),
        ("16.8M", 16_900_000, None, "✗"),
        ("16.8M", 16_749_999, None, "✗"),
        ("16.80M", 16_843_748, None, "✗"),
        ("2.3B", 2_300_884_672, None, "✓"),
        ("2.3 G", 2_399_999_999, None, "✓ cut"),
        ("42M", 42_500_000, None, "✓ cut"),
        ("60 %", 605, 1000, "✓ cut"),
        ("60 %", 604, 1000, "✓"),
        ("10 % fewer", 904, 1000, "✓"),
        ("10 % fewer", 906, 1000, "✗"),
        ("64× fewer", 1, 64, "✓"),
        ("64× fewer", 100, 6300, "✗"),
        ("fewer", 999, 1000, "✓"),
        ("fewer", 1000, 1000, "✗"),
    ],
)
def test_a_verdict_is_that_of_the_digits(figure, ours, baseline, expected):
    assert counting.verdict(figure, ours, baseline) == expected


@pytest.mark.parametrize(("figure", "message"), [("16.8", "must be a number and a unit"), ("54 %", "baseline must be")])
def test_figures_that_say_nothing_are_refused(figure, message):
    with pytest.raises(ValueError, match=message):
        counting.verdict(figure, 1)


def test_examples():
    assert doctest.testmod(counting).failed == 0
