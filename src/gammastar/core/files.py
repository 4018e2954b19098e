"""Files: where the shipped ones lie, and new ones that are there whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import functools
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ParamSpec, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from gammastar.core.documents import shortened, text_of
from gammastar.core.errors import InputFileError, StoreError, UserError, require
from gammastar.core.machine import disk_full_message, is_disk_full

LOCK = ".gammastar.lock"  # in a folder of results that a run holds
Pathlike: TypeAlias = str | os.PathLike[str]
CRASH = "gammastar-crash.txt"  # the traceback of what nobody foresaw
LARGEST_TABLE = 256 << 20  # bytes of a CSV table
ROWS = 2000  # of a table that are written at once
LONGEST_NAME = 200  # characters of a name in a message
P = ParamSpec("P")
R = TypeVar("R")
_OUTPUT: ContextVar[Path | None] = ContextVar("folder that files are written into", default=None)
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


def results_of(path: Path) -> Path | None:
    """Return the folder of results, held by a run, that a path lies in."""
    return next((folder for folder in (path, *path.parents) if os.path.lexists(folder / LOCK)), None)


@contextlib.contextmanager
def output_folder(folder: Path) -> Iterator[None]:
    """Follow no link below a folder that files are written into in this block."""
    token = _OUTPUT.set(folder)
    try:
        yield
    finally:
        _OUTPUT.reset(token)


def writes_folder(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function in the `output_folder` that its keyword `output` names."""

    @functools.wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        with output_folder(Path(str(kwargs["output"]))):
            return function(*args, **kwargs)

    return inner


def _root_of(folder: Path) -> Path:
    """Return the folder below which no component of a path may be a link."""
    output = _OUTPUT.get()
    return output if output is not None and output in (folder, *folder.parents) else folder


@contextlib.contextmanager
def held(folder: Path, root: Path | None = None, *, make: bool = False) -> Iterator[int]:
    """Yield a descriptor of a folder, opened component by component: below `root` none may be a link."""
    here = root or results_of(folder) or _root_of(folder)
    if make:
        here.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    handle = os.open(here, flags)
    try:
        for name in folder.relative_to(here).parts:
            here /= name
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, dir_fd=handle)
            if name == ".." or _is_link(name, handle):
                raise linked(here)
            inner = os.open(name, flags | os.O_NOFOLLOW, dir_fd=handle)
            os.close(handle)
            handle = inner
        yield handle
    finally:
        os.close(handle)


def linked(path: Path) -> UserError:
    """Return the error of a link in a folder of results."""
    msg = (
        f"{path}: is a link or no regular file; nothing in a folder of results or output is written, moved "
        "or removed through one: remove it, or choose another folder with --output"
    )
    return UserError(msg)


def _is_link(name: str, place: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=place, follow_symlinks=False).st_mode)
    except OSError:
        return False


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends without an error.

    Its name is ``.<name>.<8 characters>.tmp<suffix>``: what a kill leaves is known by it, and swept. No link
    below a folder of results is followed.
    """
    name = f".{path.name}.{secrets.token_hex(4)}.tmp{path.suffix}"
    with contextlib.ExitStack() as stack:
        try:
            place = stack.enter_context(held(path.parent, make=True))
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=place))
        except OSError as error:
            why = disk_full_message(error, path.parent) if is_disk_full(error) else error.strerror
            msg = f"{path}: the folder cannot be written: {why}; choose another with --output"
            raise StoreError(msg) from error
        try:
            yield path.parent / name
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
            stack.callback(os.close, handle)
            if not os.path.samestat(os.fstat(handle), (path.parent / name).stat()):
                raise linked(path.parent)  # since the block began
            os.fsync(handle)
            os.fchmod(handle, 0o666 & ~_UMASK)  # a temporary file is private, a result is not
            os.replace(name, path.name, src_dir_fd=place, dst_dir_fd=place)
        except OSError as error:
            why = disk_full_message(error, path.parent) if is_disk_full(error) else error.strerror
            msg = f"{path}: cannot be written: {why}"
            raise StoreError(msg) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=place)


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


def read_columns(
    path: Path, *known: Sequence[str], what: str = "the table", extra: bool = False
) -> npt.NDArray[np.float64]:
    """Return a CSV table, shape (rows, columns), whose heading is one of `known`; # starts a comment."""
    try:
        lines = [line for line in text_of(path, LARGEST_TABLE).splitlines() if line and line[0] != "#"]
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputFileError(f"{path}: {what} cannot be read ({why}); give its path") from error
    rows = csv.DictReader(lines)
    there = rows.fieldnames or ()
    names = next((n for n in known if (set(n) <= set(there) if extra else sorted(n) == sorted(there))), None)
    if names is None:
        expected = " or ".join(repr(",".join(n)) for n in known)
        raise InputFileError(f"{path}: columns {rows.fieldnames} found, {expected} expected")
    try:
        table = np.array([[float(row[name]) for name in names] for row in rows])
    except (TypeError, ValueError) as error:
        raise InputFileError(f"{path}: an entry of the table is not a number ({error})") from error
    require(table.size != 0, f"{path}: {what} is empty", InputFileError)
    return table
