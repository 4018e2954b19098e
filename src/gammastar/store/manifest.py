"""Atomic files, content digests and the manifest of a result folder."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from gammastar.core.errors import StoreError

__all__ = [
    "atomic",
    "digest",
    "file_sha256",
    "package_digest",
    "read_json",
    "versions",
    "write_json",
    "write_text",
]

_UMASK = os.umask(0)
os.umask(_UMASK)
_PACKAGES = (
    *("gammastar", "awkward", "boost-histogram", "hist", "numpy", "pydantic", "pyhf", "safetensors", "scipy"),
    *("torch", "uproot", "vector", "zuko"),
)


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends without an error.

    Raises
    ------
    StoreError
        If the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp" + path.suffix, dir=path.parent)
    except OSError as error:
        msg = f"{path}: the folder cannot be written ({error.strerror}); choose another with --output"
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
        msg = f"{path}: cannot be written ({error.strerror})"
        raise StoreError(msg) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file at once or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any, *, indent: int | None = 1) -> None:
    """Write JSON at once or not at all; values that are not finite are refused."""
    try:
        text = json.dumps(content, indent=indent, allow_nan=False, default=_plain)
    except ValueError as error:
        msg = f"{path}: holds a value that is not finite ({error})"
        raise StoreError(msg) from error
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises
    ------
    StoreError
        If the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path}: cannot be read as JSON ({error})"
        raise StoreError(msg) from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    msg = f"cannot write a {type(value).__name__} as JSON"
    raise TypeError(msg)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(*content: Any) -> str:
    """Return the SHA-256 of values and arrays: of content, never of file bytes.

    Examples
    --------
    >>> digest({"a": 1.0}) == digest({"a": 1.0}), digest(1) == digest(2)
    (True, False)
    """
    result = hashlib.sha256()
    for item in content:
        _update(result, item)
    return result.hexdigest()


def _update(result: Any, item: Any) -> None:
    if isinstance(item, np.ndarray):
        array = np.ascontiguousarray(item)
        result.update(f"{array.dtype.str}{array.shape}".encode())
        if array.size:  # without a copy, and letting other threads work
            result.update(array.reshape(-1).view(np.uint8))
    elif isinstance(item, Mapping):
        for key in sorted(item):
            result.update(f"{key}=".encode())
            _update(result, item[key])
    elif isinstance(item, list | tuple):
        result.update(f"[{len(item)}]".encode())
        for element in item:
            _update(result, element)
    else:
        result.update(f"{type(item).__name__}:{item!r};".encode())


@functools.cache
def package_digest() -> str:
    """Return the SHA-256 of the package's own code: what a version number does not tell in a checkout.

    All files of the package count, tables and schemas as well: any of them may change a number.
    """
    root = Path(__file__).resolve().parents[1]
    paths = sorted(path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    paths = [path for path in paths if path.relative_to(root).parts[0] != "data"]  # digested where it is read
    return digest({path.relative_to(root).as_posix(): path.read_bytes() for path in paths})


def versions() -> dict[str, str]:
    """Return the versions that a result depends on, for the manifest and for bug reports."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
