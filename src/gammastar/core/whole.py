"""Files that are there whole or not at all, with the mode that the user's umask gives."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gammastar.core.errors import StoreError
from gammastar.core.machine import full, told

__all__ = ["atomic", "write_whole"]

_UMASK = os.umask(0)
os.umask(_UMASK)


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends without an error.

    Its name is ``.<name>.<8 characters>.tmp<suffix>``: what a kill leaves is known by it, and swept.

    Raises
    ------
    StoreError
        If the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp" + path.suffix, dir=path.parent)
    except OSError as error:
        why = told(error, path.parent) if full(error) else error.strerror
        msg = f"{path}: the folder cannot be written: {why}; choose another with --output"
        raise StoreError(msg) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_UMASK)  # a temporary file is private, a result is not
        temporary.replace(path)
    except OSError as error:
        why = told(error, path.parent) if full(error) else error.strerror
        msg = f"{path}: cannot be written: {why}"
        raise StoreError(msg) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file at once or not at all.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    with atomic(path) as temporary:
        temporary.write_bytes(content)
