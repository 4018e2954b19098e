"""Files that are opened and kept open: damage named, digests."""

from __future__ import annotations

import glob
import hashlib
import os
import struct
import traceback
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import cramjam
import uproot
from uproot.interpretation.objects import CannotBeAwkward

from gammastar.core.errors import InputFileError
from gammastar.core.files import ANY_SIZE, regular_file, state_of
from gammastar.core.files import opened as regular
from gammastar.read.servers import answered, client_errors, source_options

MOST = 4  # files that stay open: one with a thousand branches takes tens of MB

_KEPT: ContextVar[tuple[ExitStack, dict[Any, Any]] | None] = ContextVar("kept", default=None)


# Everything that damaged files were seen to raise inside uproot; assertions and overflows come from headers.
DAMAGE: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    IndexError,
    KeyError,
    EOFError,
    AssertionError,
    OverflowError,
    MemoryError,
    RecursionError,
    struct.error,
    zlib.error,
    cramjam.DecompressionError,
    uproot.DeserializationError,
    uproot.KeyInFileError,
)


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn whatever a damaged file raises into an InputFileError that names the file."""
    remote = "://" in str(path)
    try:
        yield
    except FileNotFoundError as error:
        if remote and answered(error) not in {None, 404}:
            raise _refused(path, error) from error
        msg = f"{path}: there is no such file"
        raise InputFileError(msg) from error
    except (NotImplementedError, CannotBeAwkward) as error:
        reason = " ".join(str(error).split())[:200]
        msg = (
            f"{path}: holds a type or layout that uproot cannot read ({type(error).__name__}: {reason}); "
            "write plain numbers or lists of them, or, if the file was read before, copy it again"
        )
        raise InputFileError(msg) from error
    except _caught() as error:
        if isinstance(error, AttributeError | TypeError) and _ours(error):
            raise
        if remote and isinstance(error, (OSError, *client_errors())):
            raise _refused(path, error) from error
        reason = " ".join(str(error).split())[:200]
        msg = (
            f"{path}: cannot be read, the file is damaged, truncated or no ROOT file "
            f"({type(error).__name__}: {reason}); copy it again and compare its SHA-256"
        )
        raise InputFileError(msg) from error


def _caught() -> tuple[type[Exception], ...]:
    return (*DAMAGE, *client_errors(), AttributeError, TypeError)


def _ours(error: Exception) -> bool:
    """Return whether an error was raised by a line of this package, not of the library that reads."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")).startswith("gammastar")


def _refused(path: str | Path, error: Exception) -> InputFileError:
    status = answered(error)
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    reason = reason if status is None else f"status {status}"
    return InputFileError(
        f"{path}: the server does not give it ({reason}); check the address, try another server, or go on "
        "with --resume when it is back"
    )


@contextmanager
def kept_open() -> Iterator[None]:
    """Keep the first few local files that are opened in this block open, with their parsed trees, to its end.

    To parse a tree of 1600 branches takes half a second. A file that changed is opened anew.
    """
    with ExitStack() as stack:
        token = None if _KEPT.get() else _KEPT.set((stack, {}))
        try:
            yield
        finally:
            if token is not None:
                _KEPT.reset(token)


@contextmanager
def opened(path: str) -> Iterator[Any]:
    """Open a ROOT file; what a tree holds is parsed once, arrays are never kept."""
    with ExitStack() as own, reading(path):
        stack, files = _KEPT.get() or (own, {})
        state = state_of(path)
        key = os.getpid(), path, *state  # a forked process shares the place in a file with its parent
        if key not in files:
            if state:
                regular_file(Path(path))  # no pipe to wait for
            file = uproot.open({path: None}, array_cache=None, object_cache={}, **source_options(path))
            if not state or len(files) >= MOST:
                stack, files = own, {}
            files[key] = stack.enter_context(file)
        yield files[key]


def expand(files: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    """Return the files of a path, a glob pattern, or a list of these, each once and in order.

    Raises
    ------
    InputFileError
        If nothing is given, or a path or pattern matches no file.
    """
    given = [files] if isinstance(files, (str, Path)) else list(files)
    found: dict[str, None] = {}
    for item in map(str, given):
        if "://" in item or Path(item).is_file():
            found[item] = None
            continue
        matches = sorted(glob.glob(item, recursive=True))  # noqa: PTH207 - patterns may be absolute
        if not matches:
            msg = f"{item}: no such file, and no file matches it as a pattern"
            raise InputFileError(msg)
        found.update(dict.fromkeys(matches))
    if not found:
        msg = "no input file given"
        raise InputFileError(msg)
    return tuple(found)


def sha256(path: str | Path) -> str:
    """Return the SHA-256 digest of a file as 64 hexadecimal digits.

    Notes
    -----
    Uncompressed, ZSTD and stored LZ4 baskets carry no checksum: a flipped bit there reads back as a wrong
    value without any error. Only a digest notices.
    """
    with reading(path), regular(Path(path), ANY_SIZE) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(path: str | Path, digest: str) -> None:
    """Check the SHA-256 digest of a file.

    Parameters
    ----------
    digest : str
        Of 64 hexadecimal digits.

    Raises
    ------
    InputFileError
        If the digest differs.
    """
    found = sha256(path)
    if found != digest.lower():
        msg = f"{path}: SHA-256 is {found}, expected {digest}; the file was changed or damaged"
        raise InputFileError(msg)
