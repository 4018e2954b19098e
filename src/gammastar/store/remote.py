"""Input files that are not on a local disk: their name, digest and place in a run."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gammastar.core.errors import InputFileError
from gammastar.store.manifest import file_sha256

__all__ = ["SCHEMES", "Remote", "check_listed", "input_sha256", "listed_files"]

SCHEMES = ("http", "https", "root", "xroot")
BLOCK = 4 << 20
LISTS = ("SHA256SUMS", "sha256sums.txt")
MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Remote:
    """A file behind a URL; ``http`` and ``https`` need aiohttp, ``root`` needs the XRootD client.

    Examples
    --------
    >>> Remote("https://example.org/data/run1.root").name
    'run1.root'
    """

    url: str

    def __post_init__(self) -> None:
        scheme = urlsplit(self.url).scheme
        if scheme not in SCHEMES:
            msg = f"{self.url}: files of {scheme!r} are not read; use one of {', '.join(SCHEMES)}"
            raise InputFileError(msg)

    @property
    def name(self) -> str:
        """Last part of the path."""
        return urlsplit(self.url).path.rpartition("/")[2] or self.url

    def __str__(self) -> str:
        return self.url


def input_sha256(path: Path | Remote) -> str:
    """Return the SHA-256 of a local or remote file.

    Raises
    ------
    InputFileError
        If a remote file cannot be read, or the library for its scheme is not installed.
    """
    if isinstance(path, Path):
        return file_sha256(path)
    import fsspec

    result = hashlib.sha256()
    try:
        with fsspec.open(path.url, "rb") as stream:
            while block := stream.read(BLOCK):
                result.update(block)
    except (OSError, ValueError, ImportError) as error:
        msg = f"{path.url}: cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        raise InputFileError(msg) from error
    return result.hexdigest()


def listed_files(path: Path | Remote) -> tuple[str, ...]:
    """Return the files of a fileset JSON as coffea writes it, of all datasets in order.

    Raises
    ------
    InputFileError
        If the file is missing, larger than 64 MB, no fileset, or names no file or one file twice.
    """
    found: list[str] = []
    for name, dataset in _fileset(path).items():
        files = dataset.get("files") if isinstance(dataset, dict) else dataset
        if not isinstance(files, dict | list) or not all(isinstance(file, str) for file in files):
            msg = f"{path}: dataset {name!r} has no 'files' (a mapping of path to tree, or a list of paths)"
            raise InputFileError(msg)
        found.extend(files)
    twice = sorted({file for file in found if found.count(file) > 1})
    if twice or not found:
        msg = f"{path}: {'names twice: ' + ', '.join(twice) if twice else 'names no file'}"
        raise InputFileError(msg)
    return tuple(found)


def _fileset(path: Path | Remote) -> dict[str, Any]:
    if not isinstance(path, Path):
        msg = f"{path}: a fileset must be a local file"
        raise InputFileError(msg)
    try:
        if path.stat().st_size > MAX_BYTES:
            msg = f"{path}: larger than {MAX_BYTES >> 20} MB; a fileset is not"
            raise InputFileError(msg)
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path}: is not a fileset ({str(error)[:200]})"
        raise InputFileError(msg) from error
    if not isinstance(content, dict):
        msg = f"{path}: is not a fileset; expected a mapping of dataset to files"
        raise InputFileError(msg)
    return content


def check_listed(paths: Sequence[Path | Remote], found: Sequence[str]) -> None:
    """Compare digests with the list ``SHA256SUMS`` of ``sha256sum`` beside the files, where there is one.

    Raises
    ------
    InputFileError
        If a listed file has another digest: it was changed or damaged.
    """
    for path, sha in zip(paths, found, strict=True):
        if isinstance(path, Path):
            expected = _listed(path.parent).get(path.name, sha)
            if expected != sha:
                msg = f"{path}: SHA-256 is {sha}, expected {expected}; the file was changed or damaged"
                raise InputFileError(msg)


@functools.lru_cache(maxsize=64)
def _listed(folder: Path) -> dict[str, str]:
    result: dict[str, str] = {}
    for name in LISTS:
        path = folder / name
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                sha, _, file = line.strip().partition(" ")
                result[file.strip().lstrip("*")] = sha.lower()
    return result
