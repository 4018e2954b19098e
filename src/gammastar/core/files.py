"""Files and documents: bounded reading, atomic writing, safe texts; what the machine has left."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import errno
import functools
import importlib.util
import io
import json
import os
import secrets
import shutil
import socket
import stat
import sys
import tomllib
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeAlias, TypeVar

import pydantic_core
from pydantic import TypeAdapter, ValidationError
from threadpoolctl import ThreadpoolController

from gammastar.core.errors import InputFileError, PhysicsError, SteeringError, StoreError, UserError, require

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

NO_SPACE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # quotas and limits of files look the same
MIN_FREE_BYTES = 1 << 20  # bytes that are hardly enough for anything

# Parameters of mallopt(3), and what they are set to: arrays of a chunk (some MB) come from the heap and go
# back to it. Larger ones are still mapped and unmapped, so that the sum of all pairs does not stay.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, ARENA_MAX = -1, -2, -3, -8
MB = 1 << 20
MALLOC_OPTIONS = {ARENA_MAX: 1, MMAP_THRESHOLD: 32 * MB, TRIM_THRESHOLD: 512 * MB, TOP_PAD: 32 * MB}


@functools.cache
def tune_malloc() -> bool:
    """Let the C library keep freed memory for the next chunk in a process of ours; return whether it does."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc, not POSIX
        return False
    accepted = [mallopt(ctypes.c_int(key), ctypes.c_int(value)) for key, value in MALLOC_OPTIONS.items()]
    return all(answer == 1 for answer in accepted)


def skip_numba_entrypoints(*files: Path) -> None:
    """Let numba begin without awkward and vector, a second, unless a file of the run names Python code."""
    if any(b".py:" in file.read_bytes() for file in files if file.is_file()):
        return
    from numba.core import entrypoints

    entrypoints._already_initialized = True


OPENMP = ("numba.np.ufunc.omppool", "pykdtree.kdtree", "sklearn.utils._openmp_helpers", "torch._C")


def one_openmp_thread() -> Any:
    """Return a context in which OpenMP has one thread, as `threadpool_limits`, which takes 4 ms each time."""
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


Record = TypeVar("Record")
MAX_FILE = 4 << 30  # bytes of any file that is read at once
ANY_SIZE = 1 << 62
MAX_BYTES = 16 << 20  # of a TOML file: a detector or a grey area has some kB
LARGE = 1 << 20  # characters of a JSON text with arrays
LONGEST_NAME = 100
DEEPEST = 60  # tables or lists in each other
_TOO_DEEP = "nested too deep"
UNFILLED = "?"  # a value that a file to start from leaves open
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the start of a formula


def plain(text: str, *, keep: str = "\n\t") -> str:
    r"""Return a text whose control characters, text directions and lone surrogates are spelled out."""
    if text.isprintable():
        return text
    return "".join(c if c in keep or _harmless(c) else _spelled(c) for c in text)


def _harmless(c: str) -> bool:
    return c.isprintable() or unicodedata.category(c) == "Zs"


def _spelled(c: str) -> str:
    return f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}"


def shortened(text: str, most: int = 200) -> str:
    """Return a text of so many characters at most, with an ellipsis where it was cut."""
    return text if len(text) <= most else f"{text[:most]}…"


def cell(value: object) -> object:
    """Return what stands in a cell of a CSV table: a name never begins as a formula does, numbers stay."""
    if not isinstance(value, str):
        return value
    text = plain(value, keep="")
    return f"'{text}" if text.startswith(FORMULA) and not _number(text) else text


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def opened(
    path: Path | str, most: int = MAX_FILE, *, place: int | None = None
) -> Iterator[io.BufferedReader]:
    """Yield a file from elsewhere: a regular one of bounded size, never a pipe to wait for or a device."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if place is None else os.O_NOFOLLOW)
    with os.fdopen(os.open(path, flags, dir_fd=place), "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is no regular file")
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"has {status.st_size} bytes; at most {most} are read")
        yield stream


def regular_file(path: Path, most: int = ANY_SIZE) -> Path:
    """Return the path of a file as `opened` takes it, for libraries that open by path."""
    with opened(path, most):
        return path


def bytes_of(path: Path, most: int = MAX_FILE) -> bytes:
    """Return the content of a file as `opened` takes it."""
    with opened(path, most) as stream:
        return stream.read(os.fstat(stream.fileno()).st_size + 1)  # memory for all that is asked is taken


def text_of(path: Path, most: int = MAX_BYTES) -> str:
    """Return the text of a file as `opened` takes it; one that is not in UTF-8 is a ValueError."""
    return bytes_of(path, most).decode("utf-8")


def from_toml(source: Path | str, most: int = MAX_BYTES) -> dict[str, Any]:
    """Return the tables of a TOML file or text."""
    text = text_of(source, most) if isinstance(source, Path) else source
    try:
        content = tomllib.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _shallow(content)
    return content


def filled_in(content: Mapping[str, Any], where: str = "") -> None:
    """Refuse a document in which values are still to be filled in."""

    def left(value: Any, key: str) -> Iterator[str]:
        if value == UNFILLED:
            yield key
        elif isinstance(value, Mapping):
            for name, inner in value.items():
                yield from left(inner, f"{key}.{name}".lstrip("."))
        elif isinstance(value, list):
            for inner in value:
                yield from left(inner, key)

    keys = list(dict.fromkeys(left(content, "")))
    if keys:
        raise SteeringError(f'{where}to be filled in, marked with "{UNFILLED}": {", ".join(keys)}')


def sources_of(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the table ``[sources]``, which says where numbers come from."""
    sources = content.get("sources", {})
    if not isinstance(sources, dict) or not all(isinstance(text, str) for text in sources.values()):
        raise ValueError("sources: must be a table of texts, one for each key or table")
    return sources


def sourced_card(kind: type[Record], path: Path, what: str) -> Record:
    """Return the record of a TOML card in which every number has a source."""
    try:
        data = from_toml(path)
        sources = sources_of(data)
    except (OSError, ValueError) as error:
        raise InputFileError(f"{path}: the card of the {what} cannot be read ({error})") from error
    known: tuple[Field[Any], ...] = fields(kind)  # type: ignore[arg-type]
    names = {field.name for field in known}
    needed = {f.name for f in known if f.default is MISSING and f.default_factory is MISSING}
    numbers = {key for key, value in data.items() if key != "sources" and not isinstance(value, str)}
    for wrong, text in (
        (set(data) - names, f"unknown keys; known are {sorted(names)}"),
        (needed - set(data), "keys that are missing"),
        (numbers - set(sources), "no source for them; add them to [sources], 'assumed' if there is none"),
    ):
        if wrong:
            raise SteeringError(f"{path}: {', '.join(map(repr, sorted(wrong)))}: {text}")
    return validated(TypeAdapter(kind), data, path)


def name_of(content: Mapping[str, Any]) -> str:
    """Return `name`, which stands in titles, tables and figures; "" if there is none."""
    name = content.get("name", "")
    if not isinstance(name, str) or len(name) > LONGEST_NAME or plain(name, keep="") != name:
        msg = f"name: must be a text of one line, without control characters, of {LONGEST_NAME} at most"
        raise ValueError(msg)
    return name


def from_json(text: str | bytes, *, refuse: Callable[[str], Any] | None = None) -> Any:
    """Return what a JSON text says; `refuse` is called with NaN and Infinity, which JSON does not know."""
    try:
        content = _large(text) if refuse is None and len(text) > LARGE else None
        content = json.loads(text, parse_constant=refuse) if content is None else content
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _shallow(content)
    return content


def _large(text: str | bytes) -> Any:
    """Return what a large text says, read four times as fast; None if it cannot be read."""
    try:
        return pydantic_core.from_json(text)
    except ValueError:
        return None


def _shallow(content: Any) -> None:
    """Refuse what is so deep that functions which call themselves would end the process."""
    layer = [content] if isinstance(content, dict | list) else []
    for _ in range(DEEPEST):
        if not layer:
            return
        items = (item.values() if isinstance(item, dict) else item for item in layer)
        layer = [inner for item in items for inner in item if isinstance(inner, dict | list)]
    if layer:
        raise ValueError(_TOO_DEEP)


def validated(kind: TypeAdapter[Record], data: object, path: Path) -> Record:
    """Return the record that a file describes."""
    try:
        return kind.validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    except PhysicsError as error:
        reason = str(error)
    raise SteeringError(f"{path}: {reason}")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or that looks wrong."""

    # An error cannot give right numbers; a warning may be right, and the user has to judge
    level: Literal["error", "warning"]
    where: str  # File, key or section, e.g. ``"mine.root: unit"``
    message: str  # What was seen, with numbers, and what to do

    @property
    def key(self) -> str:
        """The last part of `where`, e.g. ``unit``."""
        return self.where.rsplit(": ", maxsplit=1)[-1]

    def __str__(self) -> str:
        return plain(f"{self.level}: {self.where}: {self.message}")


LOCK = ".gammastar.lock"  # in a folder of results that a run holds
Pathlike: TypeAlias = str | os.PathLike[str]
CRASH = "gammastar-crash.txt"  # the traceback of what nobody foresaw
LARGEST_TABLE = 256 << 20  # bytes of a CSV table
ROWS = 2000  # of a table that are written at once
LONGEST_SHOWN = 200  # characters of a name in a message
P = ParamSpec("P")
R = TypeVar("R")
_OUTPUT: ContextVar[Path | None] = ContextVar("folder that files are written into", default=None)
_PACKAGE = Path(__file__).resolve().parents[1]


def data_path(name: str) -> Path:
    """Return the path of a shipped data file."""
    for root in (_PACKAGE / "data", _PACKAGE.parents[1] / "data"):
        if is_file(root / name):
            return root / name
    raise InputFileError(f"{name}: no such file is shipped in data/")


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
        short = shortened(name, LONGEST_SHOWN)
        msg = f"{short}: no such file in {base}, and no {kind}/{short}.toml is shipped in data/"
        raise InputFileError(msg) from error


def analysis_path(name: str) -> Path:
    """Return the steering file of a shipped analysis."""
    folder, _, file = name.partition("/")
    for root in (_PACKAGE / "data" / "analysis", _PACKAGE.parents[1] / "analysis"):
        path = root / folder / f"{file or 'steering'}.toml"
        if is_file(path):
            return path
    raise InputFileError(f"{name}: neither a steering file nor the name of a shipped analysis")


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
    """Yield a temporary path, ``.<name>.<8 characters>.tmp<suffix>``, that replaces `path` at the end."""
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
            raise StoreError(f"{path}: cannot be written: {why}") from error
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
    import numpy as np  # here: the command line starts without it

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
