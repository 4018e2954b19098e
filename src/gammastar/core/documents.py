"""Bounded TOML and JSON, texts that are shown and never obeyed, and what a look at an input found."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import stat
import tomllib
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import pydantic_core
from pydantic import TypeAdapter, ValidationError

from gammastar.core.errors import InputFileError, PhysicsError, SteeringError

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
    r"""Return a text whose control characters, text directions and lone surrogates are spelled out.

    A terminal would obey them, and a reader would see another name than the one that is there.
    """
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
        msg = f'{where}to be filled in, marked with "{UNFILLED}": {", ".join(keys)}'
        raise SteeringError(msg)


def sources_of(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the table ``[sources]``, which says where numbers come from."""
    sources = content.get("sources", {})
    if not isinstance(sources, dict) or not all(isinstance(text, str) for text in sources.values()):
        msg = "sources: must be a table of texts, one for each key or table"
        raise ValueError(msg)
    return sources


def sourced_card(kind: type[Record], path: Path, what: str) -> Record:
    """Return the record of a TOML card in which every number has a source."""
    try:
        data = from_toml(path)
        sources = sources_of(data)
    except (OSError, ValueError) as error:
        msg = f"{path}: the card of the {what} cannot be read ({error})"
        raise InputFileError(msg) from error
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
            msg = f"{path}: {', '.join(map(repr, sorted(wrong)))}: {text}"
            raise SteeringError(msg)
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
    msg = f"{path}: {reason}"
    raise SteeringError(msg)


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
