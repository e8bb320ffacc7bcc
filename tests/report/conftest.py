from collections.abc import Callable, Sequence

import pytest

from leanconv.measure import Timing
from leanconv.tasks.comparison import Comparison, Row, Training


@pytest.fixture(scope="session")
def row() -> Callable[..., Row]:
    """Makes a row from the accuracy of each of its trainings, and from what it costs."""

    def make(
        operator: str,
        accuracies: Sequence[float],
        params: int = 1000,
        macs: int = 1_000_000,
        milliseconds: float | None = 1.0,
    ) -> Row:
        trainings = [
            Training(
                seed,
                accuracy,
                10.0 + seed,
                {
                    "train_loss": [2.0, 1.0, 0.5],
                    "test_loss": [2.0, None, 0.6],
                    "test_score": [10.0, accuracy - 5, accuracy],
                },
            )
            for seed, accuracy in enumerate(accuracies)
        ]
        timings = {}
        if milliseconds is not None:
            for batch, time in ((1, 4 * milliseconds), (32, milliseconds)):
                timings[batch] = Timing(time, 0.98 * time, 1.02 * time, 20)
        return Row(operator, params, macs, trainings, timings)

    return make


@pytest.fixture(scope="session")
def comparison() -> Callable[..., Comparison]:
    """Makes a comparison of rows, with two seeds."""

    def make(*rows: Row, **recipe: object) -> Comparison:
        defaults = {"model": "cifar_resnet20", "data": "digits", "epochs": 3, "batch_size": 64, "optimizer": "sgd",
                    "lr": 0.1, "schedule": "cosine", "precision": "fp32", "weights": None}  # fmt: skip
        setting = {
            "data": "handwritten digits: 100 images",
            "latency": "A processor, 2 threads",
            "machine": {"processor": "A processor", "memory": "16.0 GiB"},
            "versions": {"leanconv": "0.1.0", "torch": "2.14.1"},
            "command": "leanconv compare --epochs 3",
            "started": "2026-03-01T09:58:10+00:00",
            "finished": "2026-03-01T10:01:40+00:00",
        }
        return Comparison(rows, [0, 1], {**defaults, **recipe}, setting)

    return make
