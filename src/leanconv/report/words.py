"""What the numbers of a comparison say, in sentences that claim no more than the numbers do."""

from __future__ import annotations

import math

from leanconv.measure.latency import Timing
from leanconv.tasks.comparison import Comparison, Row, mean_and_spread
from leanconv.tasks.task import Score

SAME = 0.01  # counts that differ by a smaller share are about the same


def headline(comparison: Comparison) -> str:
    """The comparison in a sentence or two.

    The first speaks of the operator with the fewest MACs that holds the score of the baseline; where none does, of the
    best one with fewer MACs, or else of the best. The second, of one that beats the baseline.
    """
    base, score = comparison.baseline, comparison.score
    others = [row for row in comparison.rows if row.trainings and row is not base]
    if not base.trainings or not others:
        finished = sum(len(row.trainings) for row in comparison.rows)
        return f"Nothing to compare yet: {finished} of {comparison.wanted} trainings are finished."
    leaner = [row for row in others if row.macs < (1 - SAME) * base.macs]
    holding = [row for row in leaner if holds(row, base)]
    best_of_all = max(others, key=lambda row: gain(row, base))
    best = max(leaner or others, key=lambda row: gain(row, base))
    if holding:
        best = min(holding, key=lambda row: row.macs)
    words = f"{score_sentence(best, base, score)} {costs_sentence(best, base)}"
    if best_of_all is not best and beats(best_of_all, base):
        words += f" {score_sentence(best_of_all, base, score)}"
    return words


def remarks(row: Row, comparison: Comparison) -> list[str]:
    """How a row compares with the baseline, a remark for each column of `Comparison.table`; empty for what can't be."""
    base, batches = comparison.baseline, comparison.batches
    if row is base:
        return [""] * (5 + len(batches))
    both_trained = row.trainings and base.trainings
    scored = f"{difference(row, base)}, {certainty(row, base)}" if both_trained else ""
    times = [faster(row.latency[b], base.latency[b]) if row.latency and base.latency else "" for b in batches]
    return ["", scored, fewer(row.params, base.params), fewer(row.macs, base.macs), *times, ""]


def gain(row: Row, base: Row) -> float:
    """How much better than the baseline's the score is."""
    return (row.score or 0.0) - (base.score or 0.0)


def spread_of_gain(row: Row, base: Row) -> float | None:
    """Standard deviation of the difference of one training of each, √(s² + s₀²); None for fewer than two seeds.

    >>> from leanconv.tasks.comparison import Training
    >>> rows = [Row(name, 1, 1, [Training(0, low, 1.0), Training(1, high, 1.0)])
    ...         for name, low, high in [("tied", 90.0, 96.0), ("dense", 91.0, 99.0)]]
    >>> round(spread_of_gain(*rows), 3)  # √(18 + 32)
    7.071
    """
    if row.spread is None or base.spread is None:
        return None
    return math.hypot(row.spread, base.spread)


def holds(row: Row, base: Row) -> bool:
    """Whether a row isn't worse than the baseline, beyond the spread where that is known."""
    return gain(row, base) >= -(spread_of_gain(row, base) or 0.0)


def beats(row: Row, base: Row) -> bool:
    """Whether a row is better than the baseline, beyond a spread that is known."""
    spread = spread_of_gain(row, base)
    return spread is not None and gain(row, base) > spread


def score_sentence(row: Row, base: Row, score: Score) -> str:
    """Two scores compared: "tied reaches 95.8 ± 0.8 % where dense reaches 97.6 ± 0.5 %: 1.8 points less, ..."."""
    ours, theirs = (f"{mean_and_spread(each)} {score.unit}".rstrip() for each in (row, base))
    kind = "" if score.unit == "%" else f" {score.name}"
    return (
        f"{row.operator} reaches{kind} {ours} where {base.operator} reaches {theirs}: "
        f"{difference(row, base)}, {certainty(row, base)}."
    )


def difference(row: Row, base: Row) -> str:
    """The gain in words, as the difference of the rounded scores that a reader sees beside it."""
    change = round(row.score or 0.0, 2) - round(base.score or 0.0, 2)
    amount = f"{abs(change):.2g}"
    if abs(change) < 0.005:
        return "the same"
    return f"{amount} point{'' if amount == '1' else 's'} {'less' if change < 0 else 'more'}"


def certainty(row: Row, base: Row) -> str:
    """What the spread says of the gain."""
    spread = spread_of_gain(row, base)
    if spread is None:
        return "one seed each: the spread is unknown"
    seeds = min(len(row.trainings), len(base.trainings))
    return f"{'within' if abs(gain(row, base)) <= spread else 'beyond'} the spread of {seeds} seeds"


def costs_sentence(row: Row, base: Row) -> str:
    """Counts and times compared: "It has 4.0× fewer parameters and 2.0× fewer MACs, and runs ..."."""
    counts = f"It has {fewer(row.params, base.params)} parameters and {fewer(row.macs, base.macs)} MACs"
    speeds = {b: faster(row.latency[b], base.latency[b]) for b in row.latency if b in base.latency}
    if not speeds:
        return f"{counts}."
    if len(set(speeds.values())) == 1:
        return f"{counts}, and runs {next(iter(speeds.values()))}."
    runs = ", ".join(f"{speed} in batches of {batch}" for batch, speed in speeds.items())
    return f"{counts}, and runs {runs}."


def fewer(count: int, base: int) -> str:
    """A count compared with another.

    >>> fewer(25, 100), fewer(101, 100), fewer(90, 100), fewer(250, 100)
    ('4.0× fewer', '1% more', '10% fewer', '2.5× as many')
    >>> fewer(1000, 1000), fewer(1001, 1000)
    ('as many', 'about as many')
    """
    if abs(count - base) < SAME * base:
        return "as many" if count == base else "about as many"
    if count < base:
        return f"{factor(base / count)}× fewer" if base >= 1.5 * count else f"{1 - count / base:.0%} fewer"
    return f"{factor(count / base)}× as many" if count >= 1.5 * base else f"{count / base - 1:.0%} more"


def factor(ratio: float) -> str:
    """A ratio with two digits that count.

    >>> factor(1.04), factor(3.96), factor(15.4)
    ('1.04', '4.0', '15')
    """
    return f"{ratio:.2f}" if ratio < 1.1 else f"{ratio:.1f}" if ratio < 9.95 else f"{ratio:.0f}"


def faster(time: Timing, base: Timing) -> str:
    """A time compared with another: "as fast" where their quartiles overlap.

    >>> faster(Timing(1.0, 0.9, 1.1, 20), Timing(2.0, 1.8, 2.2, 20))
    '2.0× faster'
    >>> faster(Timing(1.0, 0.9, 1.1, 20), Timing(1.1, 1.05, 1.2, 20))
    'as fast'
    """
    if time.low_ms <= base.high_ms and base.low_ms <= time.high_ms:
        return "as fast"
    ratio = base.median_ms / time.median_ms
    return f"{factor(ratio)}× faster" if ratio > 1 else f"{factor(1 / ratio)}× slower"


def capitalised(words: str) -> str:
    """Words with a capital first letter, the others as they are.

    >>> capitalised("accuracy against MACs")
    'Accuracy against MACs'
    """
    return words[:1].upper() + words[1:]
