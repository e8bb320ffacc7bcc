"""What a finished training gave, as it stands in its folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from leanconv.files import write

FILE = "result.json"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished training gave.

    Attributes:
        scores: on the test data after the last epoch, by name; of classification `accuracy` (0 to 1), `loss` and, for
            more than five classes, `top5`; None for what can't be told.
        seconds: of training with the tests after each epoch, summed over resumed runs.
        epochs: how many were trained.
        params: of the network.
        seed: of the recipe.
        device: what trained last.
        threads: of PyTorch on the CPU.
        versions: of Python and the libraries that trained.
    """

    scores: dict[str, Any]
    seconds: float
    epochs: int
    params: int
    seed: int
    device: str
    threads: int
    versions: dict[str, str]

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Reads the result of a run folder.

        Raises:
            ValueError: the training in the folder isn't finished, or its result.json is damaged.
        """
        path = Path(folder) / FILE
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            raise ValueError(f"{folder} must hold a finished training, got no {FILE}") from None
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} must be a result that leanconv wrote: {error}") from error

    def save(self, folder: Path) -> None:
        """Writes result.json."""
        write(folder / FILE, json.dumps(asdict(self), indent=1))
