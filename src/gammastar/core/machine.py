"""What the machine has left: memory and disk space; how many of its cores a computation takes."""

from __future__ import annotations

import ctypes
import errno
import functools
import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from threadpoolctl import ThreadpoolController

NO_SPACE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # quotas and limits of files look the same
MIN_FREE_BYTES = 1 << 20  # bytes that are hardly enough for anything

# Parameters of mallopt(3), and what they are set to: arrays of a chunk (some MB) come from the heap and go
# back to it. Larger ones are still mapped and unmapped, so that the sum of all pairs does not stay.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, ARENA_MAX = -1, -2, -3, -8
MB = 1 << 20
MALLOC_OPTIONS = {ARENA_MAX: 1, MMAP_THRESHOLD: 32 * MB, TRIM_THRESHOLD: 512 * MB, TOP_PAD: 32 * MB}


@functools.cache
def tune_malloc() -> bool:
    """Let the C library of this process keep freed memory for the next chunk; return whether it does.

    Without it glibc asks the kernel for every array above some hundred kB and gives it back, and the kernel
    clears the pages of every chunk's columns again. Call it where the process is ours (command line, worker),
    not on import. Other C libraries are left as they are.

    Notes
    -----
    One arena serves all threads; columnar work allocates seldom enough that they do not wait for each other.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc, not POSIX
        return False
    accepted = [mallopt(ctypes.c_int(key), ctypes.c_int(value)) for key, value in MALLOC_OPTIONS.items()]
    return all(answer == 1 for answer in accepted)


def skip_numba_entrypoints(*files: Path) -> None:
    """Let numba begin without the extensions that awkward and vector register, a second of every process.

    None of the package's loops takes their arrays. Call it where the process is ours; it does nothing if one
    of the files, steering or record of a run, names Python code of the user, which may want them.
    """
    if any(b".py:" in file.read_bytes() for file in files if file.is_file()):
        return
    from numba.core import entrypoints

    entrypoints._already_initialized = True


OPENMP = ("numba.np.ufunc.omppool", "pykdtree.kdtree", "sklearn.utils._openmp_helpers", "torch._C")


def one_openmp_thread() -> Any:
    """Return a context in which OpenMP has one thread, in all libraries that are loaded.

    Notes
    -----
    As `threadpoolctl.threadpool_limits`, which looks at every library of the process each time (4 ms).
    """
    return _pools(tuple(name in sys.modules for name in OPENMP)).limit(limits=1, user_api="openmp")


@functools.cache
def _pools(_: tuple[bool, ...]) -> ThreadpoolController:
    """Return the pools of threads; once for each set of libraries that can bring one."""
    return ThreadpoolController()


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether an error, or one behind it, says that there is no space."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_SPACE_ERRORS:
            return True
        error = error.__cause__ or error.__context__
    return False


def disk_full_message(error: BaseException, *folders: Path) -> str:
    """Return a sentence with the folder and what is free there."""
    named = getattr(error, "filename", None)
    places = [("", Path(str(named)))] if named else [("", folder) for folder in folders] or list(_places())
    found = [f"{name}{path} has {_free(path) / 1e6:.1f} MB free" for name, path in places]
    tight = [text for text, (_, path) in zip(found, places, strict=True) if _free(path) < MIN_FREE_BYTES]
    why = getattr(error, "strerror", None) or str(error)
    return f"{why} on {socket.gethostname()} ({'; '.join(tight or found)}); make room there and use --resume"


def _free(path: Path) -> int:
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return 0


def _places() -> Iterator[tuple[str, Path]]:
    yield "TMPDIR ", Path(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108 - looked at, not written
    package = importlib.util.find_spec("gammastar")
    beside = Path(package.origin).parent if package and package.origin else Path()
    yield "compiled code in ", Path(os.environ.get("NUMBA_CACHE_DIR") or beside)
    yield "folder ", Path.cwd()
