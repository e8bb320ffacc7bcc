import pytest

from leanconv.report.words import headline, remarks


def test_the_headline_names_the_leanest_that_holds_the_accuracy(row, comparison):
    dense = row("dense", [97.0, 98.0], 4000, 8_000_000, 1.0)
    half = row("tied:blocks=2", [96.8, 97.6], 1000, 4_000_000, 0.5)
    quarter = row("tied:blocks=4", [94.0, 94.2], 250, 2_000_000, 0.25)
    assert headline(comparison(dense, half, quarter)) == (
        "tied:blocks=2 reaches 97.20 ± 0.57 % where dense reaches 97.50 ± 0.71 %: 0.3 points less, within the spread "
        "of 2 seeds. It has 4.0× fewer parameters and 2.0× fewer MACs, and runs 2.0× faster."
    )


def test_when_none_holds_the_accuracy_it_says_what_is_lost(row, comparison):
    dense = row("dense", [97.9, 98.1], 4000, 8_000_000)
    half = row("tied:blocks=2", [95.0, 95.2], 1000, 4_000_000, None)
    quarter = row("tied:blocks=4", [91.0, 91.2], 250, 2_000_000, None)
    assert headline(comparison(dense, half, quarter)) == (
        "tied:blocks=2 reaches 95.10 ± 0.14 % where dense reaches 98.00 ± 0.14 %: 2.9 points less, beyond the spread "
        "of 2 seeds. It has 4.0× fewer parameters and 2.0× fewer MACs."
    )


def test_what_beats_the_baseline_is_named_too(row, comparison):
    dense = row("dense", [90.0, 90.2], 4000, 8_000_000)
    half = row("tied", [90.0, 90.2], 1000, 4_000_000)
    attention = row("tied-se", [93.0, 93.2], 4100, 8_100_000)
    said = headline(comparison(dense, half, attention))
    assert said.startswith("tied reaches 90.10 ± 0.14 % where dense reaches 90.10 ± 0.14 %: the same, within the ")
    assert said.endswith("tied-se reaches 93.10 ± 0.14 % where dense reaches 90.10 ± 0.14 %: 3 points more, "
                         "beyond the spread of 2 seeds.")  # fmt: skip


def test_a_single_seed_proves_nothing(row, comparison):
    dense, tied = row("dense", [97.0], 4000, 8_000_000), row("tied", [99.0], 1000, 4_000_000)
    said = headline(comparison(dense, tied))
    assert said.startswith("tied reaches 99.00 % where dense reaches 97.00 %: 2 points more, one seed each: the spread "
                           "is unknown. It has")  # fmt: skip


def test_without_dense_the_first_is_the_baseline(row, comparison):
    assert "where tied reaches" in headline(comparison(row("tied", [90.0, 91.0]), row("ghost", [90.0, 91.0])))


@pytest.mark.parametrize(("found", "trained"), [([[], []], 0), ([[97.0], []], 1), ([[], [97.0]], 1)])
def test_nothing_is_said_of_what_is_not_trained(row, comparison, found, trained):
    rows = [row(name, accuracies) for name, accuracies in zip(("dense", "tied"), found, strict=True)]
    assert headline(comparison(*rows)) == f"Nothing to compare yet: {trained} of 4 trainings are finished."


def test_remarks_stand_below_the_columns_of_the_table(row, comparison):
    dense = row("dense", [97.0, 98.0], 4000, 8_000_000, 1.0)
    tied = row("tied", [90.0, 91.0], 1000, 4_000_000, 1.5)
    result = comparison(dense, tied)
    table = result.table()
    assert remarks(dense, result) == [""] * len(table.columns)
    assert dict(zip(table.columns, remarks(tied, result), strict=True)) == {
        "operator": "",
        "accuracy (%)": "7 points less, beyond the spread of 2 seeds",
        "params (k)": "4.0× fewer",
        "MACs (M)": "2.0× fewer",
        "ms b1": "1.5× slower",
        "ms b32": "1.5× slower",
        "train s": "",
    }
    assert remarks(row("tied", [], 1000, 4_000_000, None), result) == ["", "", "4.0× fewer", "2.0× fewer", "", "", ""]


def test_a_score_without_a_unit_is_named(row, comparison):
    first, second = row("dense", [9.0, 9.4], 4000, 8_000_000, 1.0), row("tied", [5.0, 5.2], 1000, 4_000_000, 0.5)
    result = comparison(first, second, task="detection")
    assert "tied reaches AP 5.10 ± 0.14 where dense reaches 9.20 ± 0.28: 4.1 points less, beyond" in headline(result)
    assert result.table().columns[1] == "AP"
