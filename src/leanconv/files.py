"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory


def write(path: Path, content: bytes | str) -> None:
    """Puts `content` into a file; whoever reads the path finds the old content or the new, never a part.

    Args:
        path: of the file; its folder exists.
        content: all that the file shall hold; text is written as UTF-8.

    Raises:
        OSError: the disk is full or the folder can't be written; what the file held before is still there.
    """
    content = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path} ({len(content)} bytes): {error.strerror}") from error


def write_csv(path: Path, columns: Iterable[object], rows: Iterable[Iterable[object]]) -> None:
    """Writes a table as CSV, as `write` does.

    Args:
        path: of the file; its folder exists.
        columns: the first line.
        rows: the lines after it; None is an empty cell.

    Raises:
        OSError: as `write`.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write(path, text.getvalue())


@contextlib.contextmanager
def moved_into_place(folder: Path) -> Iterator[Path]:
    """Gives a temporary folder; the files in it at the end go to `folder`, those of longer names first.

    Each is whole before it takes its place. If anything is raised meanwhile, none does.

    Args:
        folder: exists.

    Raises:
        OSError: the disk is full or the folder can't be written.
    """
    try:
        with TemporaryDirectory(prefix=".leanconv-", dir=folder) as temporary:
            yield Path(temporary)
            for file in sorted(Path(temporary).iterdir(), key=lambda file: -len(file.name)):
                with open(file, "rb") as written:
                    os.fsync(written.fileno())
                os.replace(file, folder / file.name)
    except OSError as error:
        raise OSError(error.errno, f"cannot write into {folder}: {error.strerror or error}") from error


def make_folder(folder: Path) -> None:
    """Makes a folder, with those above it, unless it is there.

    Raises:
        OSError: it can't be made, or a file has that name.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(error.errno, f"cannot make the folder {folder}: {error.strerror}") from error
