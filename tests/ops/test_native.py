"""The compiler at first use: what is kept, what is refused, and what runs where there is nothing to be had."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import textwrap
import warnings

import pytest

from leanconv.ops import native

compiled = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="there is no C compiler")

@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "answer.h").write_text("#define ANSWER 42\n")
    path = folder / "answer.c"
    path.write_text('#include "answer.h"\n#include "parallel.h"\n'
                    'int answer(void) { return ANSWER + share(0, 0, 0, 0, 0, 0); }\n')
    return path


@pytest.fixture
def start(tmp_path, source, monkeypatch):
    """Loads the source as a new process would, and gives what it answers, what is reported, and the warnings."""

    def run(**environment):
        for name in ("CC", "LEANCONV_NATIVE", "LEANCONV_NATIVE_FLAGS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in ({"XDG_CACHE_HOME": str(tmp_path / "cache")} | environment).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(native, "_loaded", {})
        native.flags_of_environment.cache_clear()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            library = native.load(source)
            assert native.load(source) is library
        (report,) = native.report()
        return library and library.answer(), report, [str(warning.message) for warning in caught]

    yield run
    native.flags_of_environment.cache_clear()


def kept(tmp_path):
    return sorted((tmp_path / "cache" / "leanconv").iterdir())


@compiled
def test_compiled_once_and_kept_for_the_user_alone(tmp_path, start, source) -> None:
    assert start()[0] == 42
    files = kept(tmp_path)
    assert len(files) == 1
    assert files[0].stat().st_mode & 0o077 == 0
    assert files[0].parent.stat().st_mode & 0o777 == 0o700
    before = files[0].stat().st_mtime_ns
    answer, report, warned = start()
    assert (answer, report.reason, report.seconds, warned) == (42, None, 0, [])
    assert kept(tmp_path) == files
    assert files[0].stat().st_mtime_ns == before
    (source.parent / "answer.h").write_text("#define ANSWER 43\n")
    assert start()[0] == 43
    assert start(LEANCONV_NATIVE_FLAGS="-O1")[0] == 43
    assert len(kept(tmp_path)) == 3


@compiled
def test_a_broken_file_is_made_anew(tmp_path, start, source, monkeypatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    folder = tmp_path / "cache" / "leanconv"
    folder.mkdir(parents=True, mode=0o700)
    name = f"answer-{native.fingerprint(source, native.find_compiler(), (*native.FLAGS, '-O1'))}.so"
    (folder / name).write_bytes(b"not a library")
    answer, report, _ = start(LEANCONV_NATIVE_FLAGS="-O1")
    assert (answer, report.library) == (42, folder / name)
    assert report.seconds > 0


@compiled
def test_two_processes_at_once(tmp_path, source) -> None:
    script = ("import sys; from pathlib import Path; from leanconv.ops import native; "
              "sys.exit(native.load(Path(sys.argv[1])).answer() - 42)")
    environment = {name: value for name, value in os.environ.items() if name != "LEANCONV_NATIVE"}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    processes = [subprocess.Popen([sys.executable, "-c", script, str(source)], env=environment) for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert len(kept(tmp_path)) == 1


@compiled
@pytest.mark.parametrize("fault", ["others may write", "a file is there", "a link"])
def test_a_cache_that_cannot_be_used(tmp_path, start, fault) -> None:
    folder = tmp_path / "cache" / "leanconv"
    folder.parent.mkdir()
    if fault == "others may write":
        folder.mkdir()
        folder.chmod(0o777)
    elif fault == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.write_text("")
    answer, report, warned = start()
    assert answer == 42
    assert len(warned) == 1
    assert "compiled for this process alone" in warned[0]
    assert "can't be used" in report.reason
    assert not report.library.exists()
    if folder.is_dir():
        assert not list(folder.iterdir())


@compiled
def test_files_of_a_trusted_folder_are_looked_at_too(tmp_path, start) -> None:
    start()
    kept(tmp_path)[0].chmod(0o777)
    answer, report, warned = start()
    assert (answer, len(warned)) == (42, 1)
    assert "can be written by others" in report.reason


@compiled
def test_a_folder_of_another_user(tmp_path, start, monkeypatch) -> None:
    start()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    answer, report, _ = start()
    assert answer == 42
    assert "belongs to another user" in report.reason


@compiled
def test_a_folder_that_cannot_be_written(tmp_path, start, monkeypatch) -> None:
    original = native.tempfile.mkstemp

    def refuse(*arguments, dir, **options):
        if "cache" in str(dir):
            raise OSError(30, "Read-only file system")
        return original(*arguments, dir=dir, **options)

    monkeypatch.setattr(native.tempfile, "mkstemp", refuse)
    answer, report, warned = start()
    assert (answer, len(warned)) == (42, 1)
    assert "Read-only file system" in report.reason


def test_a_compiler_that_fails_is_told_once(tmp_path, start) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'fatal error: out of ink' >&2\nexit 1\n")
    broken.chmod(0o700)
    answer, report, warned = start(CC=str(broken))
    assert (answer, len(warned)) == (None, 1)
    assert "out of ink" in warned[0]
    assert "out of ink" in report.reason
    assert not kept(tmp_path)


def test_a_compiler_that_is_named_and_is_not_there(start) -> None:
    answer, _, warned = start(CC="no-such-compiler")
    assert (answer, len(warned)) == (None, 1)
    assert "no-such-compiler" in warned[0]


def test_no_compiler_is_no_fault(tmp_path, start) -> None:
    answer, report, warned = start(PATH=str(tmp_path))
    assert (answer, warned) == (None, [])
    assert "no C compiler" in report.reason


def test_turned_off(start) -> None:
    answer, report, warned = start(LEANCONV_NATIVE="0")
    assert (answer, warned) == (None, [])
    assert "LEANCONV_NATIVE" in report.reason


def test_a_compiler_that_hangs(tmp_path, monkeypatch, source) -> None:
    monkeypatch.setattr(native, "TIME_LIMIT", 0.2)
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o700)
    with pytest.raises(native.Unavailable, match=r"longer than 0\.2 s"):
        native.compile_to(source, tmp_path / "slow.so", (str(slow),), ())
    assert not list(tmp_path.glob("*.so"))


@compiled
def test_warm_start_starts_no_process(start, monkeypatch) -> None:
    start()
    monkeypatch.setattr(subprocess, "run", None)
    answer, report, _ = start()
    assert (answer, report.seconds) == (42, 0)


@compiled
def test_one_openmp_runtime_and_its_threads() -> None:
    """The kernels bring no runtime of their own: a second one would fight with PyTorch's for the cores."""
    script = textwrap.dedent("""
        import torch
        from leanconv.ops import ddf, native
        torch.set_num_threads(2)
        torch.randn(1000, 1000) @ torch.randn(1000, 1000)
        before = native.openmp_runtimes()
        ddf(torch.randn(2, 16, 20, 20), torch.randn(2, 16, 3, 3), torch.randn(2, 9, 20, 20))
        assert native.report()[0].reason is None, native.report()
        assert native.openmp_runtimes() == before, native.openmp_runtimes()
        assert len(before) == 1, before
        launch, threads = native.team()
        assert launch and threads == 2
        import os
        child = os.fork()
        if not child:
            assert native.team() == (0, 1)
            ddf(torch.randn(2, 16, 20, 20), torch.randn(2, 16, 3, 3), torch.randn(2, 9, 20, 20))
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    """)
    environment = {name: value for name, value in os.environ.items() if name != "LEANCONV_NATIVE"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=240)


@compiled
def test_using_is_undone(source, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with native.using(("-O1",)):
        assert isinstance(native.load(source), ctypes.CDLL)
        with native.using(None):
            assert native.load(source) is None
        assert native.load(source) is not None
