import dataclasses
import io
import re

import pytest
from rich.console import Console

from leanconv.tasks import progress, train


@pytest.fixture
def terminal(monkeypatch):
    """What a terminal was sent."""
    screen = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=screen, force_terminal=True, width=120))
    return screen


def test_one_line_tells_epoch_loss_and_accuracy(quick, tmp_path, terminal):
    train(dataclasses.replace(quick, operator="tied:blocks=2", seed=3), tmp_path)
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).rstrip().splitlines()[-1]
    assert re.search(r"tied:blocks=2, seed 3 .* epoch 3/3  loss \d\.\d+  accuracy \d+\.\d+% +\d:\d\d:\d\d$", last)


def test_it_can_be_turned_off(quick, tmp_path, terminal):
    train(quick, tmp_path, progress=False)
    assert terminal.getvalue() == ""
