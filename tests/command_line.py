"""What the tests of the commands say and read."""

import csv
from pathlib import Path

import pytest

from leanconv.cli import main


def output(capsys: pytest.CaptureFixture[str], *tokens: object) -> str:
    """What a command prints."""
    main([str(token) for token in tokens])
    return capsys.readouterr().out


def complaint(capsys: pytest.CaptureFixture[str], *tokens: object) -> str:
    """The one line that a command ends with, and exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        main([str(token) for token in tokens])
    assert stopped.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("leanconv: ")
    assert text.count("\n") == 1
    return text


def csv_rows(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV file, by the names of the columns."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
