import pytest
from PIL import Image
from rich.progress import Progress

from leanconv.tasks.data import screening


@pytest.fixture
def paths(tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(12)]
    for path in paths:
        Image.new("L", (2, 2)).save(path)
    for path in paths[:7]:
        path.write_bytes(b"")
    return paths


def test_bad_files_are_found_in_every_block(paths, monkeypatch):
    monkeypatch.setattr(screening, "BLOCK", 5)
    assert screening.screen(paths, refuse=False) == dict.fromkeys(paths[:7], "the file is empty")


def test_refusing_counts_all_and_names_five(paths):
    with pytest.raises(ValueError, match=r"got 7 of 12 that aren't: .*0\.png.* and 2 more$") as raised:
        screening.screen(paths, refuse=True)
    assert str(raised.value).count(".png") == 5


@pytest.mark.parametrize(("patience", "shown"), [(-1.0, True), (60.0, False)])
def test_a_bar_is_shown_only_when_it_takes_long(paths, monkeypatch, patience, shown):
    started = []
    monkeypatch.setattr(screening, "PATIENCE_SECONDS", patience)
    monkeypatch.setattr(Progress, "start", lambda bar: started.append(bar))
    screening.screen(paths, refuse=False)
    assert bool(started) is shown
