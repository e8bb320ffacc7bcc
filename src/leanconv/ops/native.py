"""Kernels in C, compiled by the machine's own compiler at their first use.

    library = native.load(Path(__file__).with_name("kernels.c"))     # a ctypes.CDLL, or None: then run the reference
    launch, threads = native.team()                                  # what parallel.h, beside this file, wants

`load` is cheap after its first call and may be called each time. The compiled file lies in a folder of the user's own
(`$XDG_CACHE_HOME/leanconv`, else `~/.cache/leanconv`) under a name that holds the hash of the source, of the headers
beside it and beside this file, of the compiler, the flags and the processor. Where that folder can't be trusted or
written, the kernels are compiled for this process alone, with a warning. Where the compiler fails there is one
warning, and the reference runs; where there is no compiler at all it runs without one. `report()` says what was
decided, and why.

Sources include no OpenMP: threads come from the runtime that PyTorch has loaded already, by its address, because a
second runtime in a process would compete with the first for the cores.

Environment, read at the first use: LEANCONV_NATIVE=0 turns the kernels off; LEANCONV_NATIVE_FLAGS are the compiler's
flags for the instruction set (default: that of this processor); CC is the compiler.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

HEADERS = Path(__file__).parent
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
TIME_LIMIT = 120.0  # seconds for one compilation


@dataclass(frozen=True)
class Report:
    """What became of one source: the file that was loaded, or the reason why the reference runs.

    Args:
        source: the C file.
        reason: why there are no kernels, or why they are compiled anew in each process; None where all is well.
        library: the compiled file, or None.
        compiler: the command.
        flags: what the compiler was given.
        seconds: what the compilation took; 0 where it was found in the cache.
    """

    source: Path
    reason: str | None = None
    library: Path | None = None
    compiler: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    seconds: float = 0.0


class Unavailable(Exception):
    """Why there is no compiled file; `expected` where nobody need be warned."""

    def __init__(self, reason: str, expected: bool = False) -> None:
        super().__init__(reason)
        self.expected = expected


_lock = threading.RLock()
_loaded: dict[tuple[Path, tuple[str, ...], tuple[str, ...]], tuple[ctypes.CDLL | None, Report]] = {}
_chosen: list[tuple[str, ...] | None] = []  # of `using`, the innermost last


def load(source: Path, *definitions: str) -> ctypes.CDLL | None:
    """The compiled kernels of a C file, or None where they are turned off or can't be had.

    Args:
        source: a C file that needs no OpenMP and no library but libm and libc.
        definitions: what the preprocessor is told, such as "SUMS_IN_DOUBLE".
    """
    flags = _chosen[-1] if _chosen else flags_of_environment()
    if flags is None:
        return None
    key = (source, definitions, flags)
    found = _loaded.get(key)
    if found is None:
        with _lock:
            found = _loaded.get(key)
            if found is None:
                found = _loaded[key] = attempt(source, (*flags, *(f"-D{name}" for name in definitions)))
    return found[0]


def report() -> list[Report]:
    """What was decided for each source that was asked for, in that order.

    >>> [each.library for each in report() if each.reason is None and each.library is None]
    []
    """
    if flags_of_environment() is None:
        return [Report(HEADERS, "turned off by LEANCONV_NATIVE=0")]
    return [each for _, each in _loaded.values()]


@contextlib.contextmanager
def using(flags: tuple[str, ...] | None) -> Iterator[None]:
    """Within it, kernels are compiled for another instruction set, or are off (None). For tests, in all threads.

    >>> with using(None):
    ...     load(Path("kernels.c")) is None
    True
    """
    _chosen.append(flags)
    try:
        yield
    finally:
        _chosen.pop()


def team() -> tuple[int, int]:
    """The address of GOMP_parallel in PyTorch's OpenMP runtime, and the number of threads to ask it for.

    The threads of a runtime don't survive a fork, so in a forked process there is one thread.
    """
    launch = 0 if os.getpid() != _process else launcher()
    return launch, torch.get_num_threads() if launch else 1


_process = os.getpid()


@cache
def launcher() -> int:
    """The address of GOMP_parallel, which LLVM's and Intel's runtimes have too; 0 where it isn't found."""
    runtimes = openmp_runtimes()
    home = str(Path(torch.__file__).parent)
    own = [path for path in runtimes if path.startswith(home)]  # "torch" and "torch.libs"
    for path in own or runtimes:
        with contextlib.suppress(OSError, AttributeError):
            return ctypes.cast(ctypes.CDLL(path).GOMP_parallel, ctypes.c_void_p).value or 0
    return 0


def openmp_runtimes() -> list[str]:
    """The OpenMP runtimes loaded in this process, by path."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    files = {fields[5] for line in lines if len(fields := line.split(maxsplit=5)) == 6}
    return sorted(path for path in files if re.match(r"lib(gomp|iomp|omp)\d*[-.]", os.path.basename(path)))


@cache
def flags_of_environment() -> tuple[str, ...] | None:
    """The flags for the instruction set; None where the environment turns the kernels off."""
    if os.environ.get("LEANCONV_NATIVE", "").lower() in ("0", "false", "off", "no"):
        return None
    native = "-march=native" if platform.machine() in ("x86_64", "AMD64", "i686") else "-mcpu=native"
    return tuple(shlex.split(os.environ.get("LEANCONV_NATIVE_FLAGS", native)))


def attempt(source: Path, flags: tuple[str, ...]) -> tuple[ctypes.CDLL | None, Report]:
    """Loads a source's compiled file, compiling it where need be; warns where that fails."""
    every = (*FLAGS, *flags)
    compiler: tuple[str, ...] = ()
    try:
        compiler = find_compiler()
        name = f"{source.stem}-{fingerprint(source, compiler, every)}.so"
        try:
            folder = cache_folder()
            path = folder / name
            library, seconds = open_or_compile(source, path, compiler, every)
            return library, Report(source, None, path, compiler, every, seconds)
        except PermissionError as error:
            reason = f"compiled for this process alone, because the cache can't be used: {error}"
            try:
                with tempfile.TemporaryDirectory(prefix="leanconv-") as private:
                    path = Path(private) / name
                    library, seconds = open_or_compile(source, path, compiler, every)
            except OSError as problem:
                raise Unavailable(f"neither the cache nor a temporary folder can be used: {error}; {problem}") from None
            warnings.warn(f"leanconv's native kernels were {reason}", RuntimeWarning, stacklevel=3)
            return library, Report(source, reason, path, compiler, every, seconds)
    except Unavailable as error:
        if not error.expected:
            warnings.warn(f"leanconv runs without native kernels, more slowly: {error}", RuntimeWarning, stacklevel=3)
        return None, Report(source, str(error), None, compiler, every)


def find_compiler() -> tuple[str, ...]:
    """The command of the C compiler: CC, or the first of cc, gcc and clang on the PATH."""
    if not platform.system() == "Linux":
        raise Unavailable(f"native kernels are built on Linux alone, not on {platform.system()}", expected=True)
    try:
        chosen = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise Unavailable(f"CC must be a command, got {os.environ['CC']!r}: {error}") from None
    if chosen:
        if found := shutil.which(chosen[0]):
            return found, *chosen[1:]
        raise Unavailable(f"there is no compiler {chosen[0]!r}, which CC names")
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return (found,)
    raise Unavailable("there is no C compiler (cc, gcc or clang) on the PATH", expected=True)


def fingerprint(source: Path, compiler: tuple[str, ...], flags: tuple[str, ...]) -> str:
    """A hash of all that decides about the compiled file. No process is started, for this is part of every start."""
    program = os.stat(compiler[0])
    parts = [repr((os.path.realpath(compiler[0]), program.st_mtime_ns, program.st_size, compiler, flags)), processor()]
    hasher = hashlib.sha256("\n".join(parts).encode())
    for path in (source, *sorted({*source.parent.glob("*.h"), *HEADERS.glob("*.h")})):
        hasher.update(path.read_bytes())
    return hasher.hexdigest()[:24]


def processor() -> str:
    """The model and the instruction set of the processor, of which "native" depends."""
    wanted = ("model name", "flags", "CPU implementer", "CPU part", "Features")
    found = [platform.machine()]
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if not line.strip():
                    break
                if line.startswith(wanted):
                    found.append(line.strip())
    except OSError:
        pass
    return "\n".join(found)


def cache_folder() -> Path:
    """The user's own folder for compiled files; PermissionError where it can't be written, or someone else could."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(base) / "leanconv"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise PermissionError(f"{folder} can't be made ({error.strerror})") from None
    require_own(folder)
    return folder


def require_own(path: Path) -> None:
    """Raises PermissionError where anyone else could have written a file or folder."""
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        raise PermissionError(f"{path} is a link")
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to another user")
    if status.st_mode & 0o022:
        raise PermissionError(f"{path} can be written by others")


def open_or_compile(
    source: Path, path: Path, compiler: tuple[str, ...], flags: tuple[str, ...]
) -> tuple[ctypes.CDLL, float]:
    """The library at a path, made first where it isn't there or doesn't load; and the seconds which that took."""
    if path.exists():
        require_own(path)
        with contextlib.suppress(OSError):
            return ctypes.CDLL(str(path)), 0.0
    start = time.perf_counter()
    compile_to(source, path, compiler, flags)
    try:
        return ctypes.CDLL(str(path)), time.perf_counter() - start
    except OSError as error:
        raise Unavailable(f"what {compiler[0]} made doesn't load: {error}") from None


def compile_to(source: Path, path: Path, compiler: tuple[str, ...], flags: tuple[str, ...]) -> None:
    """Compiles into a file of its own, which then takes the path's place at once: other processes may do the same."""
    try:
        descriptor, unfinished = tempfile.mkstemp(suffix=".so", dir=path.parent)
    except OSError as error:
        raise PermissionError(f"{path.parent} can't be written ({error.strerror})") from None
    os.close(descriptor)
    command = [*compiler, *flags, f"-I{HEADERS}", str(source), "-o", unfinished, "-lm"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIME_LIMIT,
                              stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            first = next((line for line in lines if "error" in line.lower()), lines[0])
            raise Unavailable(f"{compiler[0]} failed: {first}")
        os.chmod(unfinished, 0o700)
        os.replace(unfinished, path)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{compiler[0]} took longer than {TIME_LIMIT:g} s") from None
    except OSError as error:
        raise Unavailable(f"{compiler[0]} can't be run: {error}") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)
