"""Numbers in CSV files, written as they come."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from leanconv.files import write_csv

if TYPE_CHECKING:
    from leanconv.measure import Zeroing
    from leanconv.tasks.specimen import Specimen

COLUMNS = ("model", "region", "sparsity", "seed", "accuracy", "digest")


class Record:
    """The accuracies in a CSV file: those of earlier runs that still hold, and each new one as it comes.

    Args:
        path: of the file.
        digests: of each network with all that its accuracies depend on; lines with another digest are left out.

    Raises:
        ValueError: there is a file that isn't such a record.
    """

    def __init__(self, path: Path, digests: Mapping[str, str]) -> None:
        self.path = path
        self.digests = digests
        self.lines: list[Mapping[str, str]] = []
        if path.exists():
            with open(path, newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                if tuple(reader.fieldnames or ()) != COLUMNS:
                    raise ValueError(f"{path} must be one that this command wrote, got another: choose another --out")
                self.lines = [line for line in reader if digests.get(line["model"]) == line["digest"]]

    def known(self, name: str) -> dict[Zeroing, float]:
        """The accuracies of a network."""
        from leanconv.measure import Zeroing

        return {
            Zeroing(line["region"], float(line["sparsity"]), int(line["seed"])): float(line["accuracy"])
            for line in self.lines
            if line["model"] == name
        }

    def add(self, name: str, point: Zeroing, accuracy: float) -> None:
        """Adds a line and writes the file."""
        cells = (name, *map(str, point), str(accuracy), self.digests[name])
        self.lines.append(dict(zip(COLUMNS, cells, strict=True)))
        write_csv(self.path, COLUMNS, [list(line.values()) for line in self.lines])


def digest(specimen: Specimen, layers: Sequence[str] | None, kernel_size: int | None) -> str:
    """A short word for the network, its weights, the images and the layers: another one where any of them differs."""
    import torch

    images = specimen.images
    total = hashlib.sha256(repr((str(specimen.network), images.mean, images.std, layers, kernel_size)).encode())
    for tensor in (*specimen.network.state_dict().values(), images.pixels(range(len(images))), images.labels):
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()[:12]
