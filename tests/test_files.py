import pytest

from leanconv.files import make_folder, write


def test_write_replaces_and_leaves_nothing_else(tmp_path):
    write(tmp_path / "a.txt", "old")
    write(tmp_path / "a.txt", "néw")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "néw"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_failed_write_keeps_the_old_content(tmp_path, monkeypatch):
    write(tmp_path / "a.txt", "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*a.txt \(3 bytes\): No space left on device"):
        write(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(FileExistsError, match="cannot make the folder"):
        make_folder(tmp_path / "run")
    with pytest.raises(NotADirectoryError, match="cannot make the folder"):
        make_folder(tmp_path / "run" / "deeper")
