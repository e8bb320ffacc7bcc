import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import leanconv
from leanconv.tasks import Recipe, train

TINY = f"{Path(__file__).parent / 'tiny.py'}:Tiny"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Small networks gain nothing from more threads, and tests of other processes run beside them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 noisy images of 16×16 in 6 classes that a tiny network learns: red, green, blue and what lies between."""
    generator = np.random.default_rng(0)
    labels = np.tile(np.arange(6), 40)
    tints = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1]])
    images = generator.integers(0, 200, (240, 16, 16, 3)) + 30 * tints[labels][:, None, None]
    path = tmp_path_factory.mktemp("data") / "colours.npz"
    np.savez(path, images=images.astype(np.uint8), labels=labels)
    return path


@pytest.fixture(scope="session")
def quick(colours: Path) -> Recipe:
    """A recipe that trains in a moment."""
    return Recipe(
        model=TINY, data=f"arrays:{colours}", epochs=3, batch_size=32, lr=0.2, warmup_epochs=1, accelerator="cpu"
    )


@pytest.fixture(scope="session")
def finished(quick: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished training that tells the colours apart."""
    folder = tmp_path_factory.mktemp("finished")
    train(replace(quick, operator="tied:blocks=2", epochs=12), folder)
    return folder


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs lines of Python as a script of its own, with arguments, and gives back what it printed."""

    def run(lines: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "script.py"
        path.write_text(lines)
        source = str(Path(leanconv.__file__).parents[1])
        environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
        command = [sys.executable, path, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    return run
