"""Files: where the shipped ones lie, and new ones that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy.typing as npt

from gammastar.core.documents import shortened
from gammastar.core.errors import InputFileError, StoreError
from gammastar.core.machine import full, told

Pathlike: TypeAlias = str | os.PathLike[str]
ROWS = 2000  # of a table that are written at once
LONGEST_NAME = 200  # characters of a name in a message
_PACKAGE = Path(__file__).resolve().parents[1]


def data_path(name: str) -> Path:
    """Return the path of a shipped data file."""
    for root in (_PACKAGE / "data", _PACKAGE.parents[1] / "data"):
        if is_file(root / name):
            return root / name
    msg = f"{name}: no such file is shipped in data/"
    raise InputFileError(msg)


def folder_names(folder: str) -> tuple[str, ...]:
    """Return the stems of the TOML files in a folder of the shipped data, e.g. those of ``detectors``."""
    roots = (_PACKAGE / "data", _PACKAGE.parents[1] / "data")
    return tuple(sorted({path.stem for root in roots for path in (root / folder).glob("*.toml")}))


def is_file(path: Path) -> bool:
    """Return whether a file is there; a name that no file can have is none."""
    return os.path.isfile(path)  # noqa: PTH113 - that of Path raises where a name is too long


def is_folder(path: Path) -> bool:
    """Return whether a folder is there; a name that none can have is none."""
    return os.path.isdir(path)  # noqa: PTH112 - as above


def shipped(name: str, base: Path, kind: str) -> Path:
    """Return a file beside the steering file, or a shipped one of this kind by its name."""
    path = base / name
    if is_file(path):
        return path
    try:
        return data_path(f"{kind}/{name}.toml")
    except InputFileError as error:
        short = shortened(name, LONGEST_NAME)
        msg = f"{short}: no such file in {base}, and no {kind}/{short}.toml is shipped in data/"
        raise InputFileError(msg) from error


def analysis_path(name: str) -> Path:
    """Return the steering file of a shipped analysis."""
    folder, _, file = name.partition("/")
    for root in (_PACKAGE / "data" / "analysis", _PACKAGE.parents[1] / "analysis"):
        path = root / folder / f"{file or 'steering'}.toml"
        if is_file(path):
            return path
    msg = f"{name}: neither a steering file nor the name of a shipped analysis"
    raise InputFileError(msg)


_UMASK = os.umask(0)
os.umask(_UMASK)


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends without an error.

    Its name is ``.<name>.<8 characters>.tmp<suffix>``: what a kill leaves is known by it, and swept.
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


def state_of(path: object) -> tuple[int, ...]:
    """Return what changes when somebody writes, touches or replaces a file; () for one that is not here."""
    try:
        found = Path(str(path)).stat()
    except (OSError, ValueError):
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def write_whole(path: Path, content: bytes) -> None:
    """Write a file at once or not at all."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def table_text(table: npt.NDArray[Any], form: str | list[str], delimiter: str = " ") -> str:
    """Return a table as text, a line per row: what `numpy.savetxt` writes, in half the time."""
    line = delimiter.join([form] * table.shape[1] if isinstance(form, str) else form) + "\n"
    blocks = (table[i : i + ROWS] for i in range(0, len(table), ROWS))
    return "".join(line * len(block) % tuple(block.ravel().tolist()) for block in blocks)
