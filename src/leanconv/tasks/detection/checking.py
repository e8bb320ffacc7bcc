"""What is wrong with annotated images: the whole list, before a training stumbles over it."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from leanconv.files import write_csv
from leanconv.steps import Step, unwatched
from leanconv.table import Table
from leanconv.tasks.data.screening import reason_against
from leanconv.tasks.detection.data import head_problem
from leanconv.tasks.detection.problems import Kind, Problem
from leanconv.tasks.detection.scenes import Scene
from leanconv.tasks.detection.sources import read_source

if TYPE_CHECKING:
    from rich.console import RenderableType

EXAMPLES = 3


@dataclass(frozen=True)
class Check:
    """What is wrong with a source; printed, a table.

    Attributes:
        source: as it was named.
        counts: what there is, for people.
        problems: all that were found.
    """

    source: str
    counts: str
    problems: tuple[Problem, ...]

    @property
    def fine(self) -> bool:
        """Whether nothing is wrong. Images without annotations are no mistake."""
        return all(problem.kind.harmless for problem in self.problems)

    def table(self) -> Table:
        """How many problems of each kind there are, what becomes of them, and the first ones."""
        rows = []
        for kind in Kind:
            found = [problem for problem in self.problems if problem.kind is kind]
            if found:
                examples = "\n".join(map(str, found[:EXAMPLES]))
                more = f"\nand {len(found) - EXAMPLES} more" if len(found) > EXAMPLES else ""
                rows.append([kind.title, len(found), kind.consequence, examples + more])
        return Table(["problem", "count", "in a training", "where"], rows, self.title)

    @property
    def title(self) -> str:
        """What was looked at."""
        return f"{self.source}: {self.counts}"

    def save(self, path: Path) -> None:
        """Writes all problems as CSV: problem, file, detail.

        Raises:
            OSError: it can't be written.
        """
        rows = [(problem.kind.title, problem.file, problem.detail) for problem in self.problems]
        write_csv(path, ("problem", "file", "detail"), rows)

    def __rich__(self) -> RenderableType:
        return self.table() if self.problems else str(self)

    def __str__(self) -> str:
        return str(self.table()) if self.problems else f"{self.title}\nnothing is wrong"


def check(source: str, *, step: Step = unwatched) -> Check:
    """Reads all annotations of a source, decodes all its images and masks, and lists what is wrong.

    Args:
        source: as `open_detection` takes it.
        step: is told how much is done of how much.

    Raises:
        ValueError: the source isn't there, or its annotations can't be read at all.
    """
    found = read_source(source)
    scenes = found.scenes
    problems = list(found.problems)
    files: dict[str, Scene] = {}
    with warnings.catch_warnings(), ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1))) as threads:
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata; only whether pixels come out matters
        try:
            for done, (scene, (wrong, digest)) in enumerate(
                zip(scenes, threads.map(examined, scenes), strict=True), start=1
            ):
                problems += wrong
                if digest and (first := files.setdefault(digest, scene)) is not scene:
                    problems.append(Problem(Kind.SAME_PICTURE, scene.path.name, f"as {told(first, scene)}"))
                step(done, len(scenes))
        finally:
            threads.shutdown(cancel_futures=True)
    instances = sum(int((~scene.crowd).sum()) for scene in scenes)
    crowds = sum(int(scene.crowd.sum()) for scene in scenes)
    counts = f"{len(scenes)} images, {instances} instances{' with masks' if found.has_masks else ''}, "
    counts += f"{crowds} crowd regions, {found.variety}"
    return Check(source, counts, tuple(problems))


def examined(scene: Scene) -> tuple[Sequence[Problem], str]:
    """What is wrong with an image's pixels and masks, and a fingerprint of its file."""
    if reason := reason_against(scene.path):
        return [Problem(Kind.UNREADABLE, scene.path.name, reason)], ""
    problems: list[Problem] = []
    scene.sound(problems)
    if (wrong := head_problem(scene)) is not None:
        problems.append(wrong)
    return problems, hashlib.sha256(scene.path.read_bytes()).hexdigest()


def told(path_of: Scene, beside: Scene) -> str:
    """The name of an image, with its folder where that is another one than of the image beside."""
    path = path_of.path
    return path.name if path.parent == beside.path.parent else f"{path.parent.name}/{path.name}"
