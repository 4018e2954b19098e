"""What must be the same on both sides before work is shared: code, libraries, files, room."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gammastar.core.documents import ANY_SIZE, opened
from gammastar.core.errors import StoreError
from gammastar.store.manifest import package_digest, versions

# versions that decide numbers
DECIDE = ("awkward", "numba", "numpy", "scipy", "torch", "uproot", "vector", "zuko")
MOST_FILES = 20  # of a job that every worker looks at before work
EDGE = 4096  # bytes at both ends of a file
Signature = tuple[tuple[str, str], ...]
Print = tuple[tuple[str, str], ...]


@functools.cache
def signature() -> Signature:
    """Return the digest of the package's code and the versions that decide numbers, of this process."""
    found = versions()
    python = ".".join(found["python"].split(".")[:2])
    return (
        ("code of gammastar", package_digest()),
        ("python", python),
        *((name, found[name]) for name in DECIDE),
    )


def compare(there: Iterable[tuple[str, str]], here: Signature, worker: str) -> None:
    """Refuse a worker with other code or other libraries."""
    known = dict(there)
    other = [
        f"{name} {_short(known.get(name, 'unknown'))} there, {_short(value)} here"
        for name, value in here
        if known.get(name) != value
    ]
    if other:
        msg = f"worker {worker} has another version: {'; '.join(other)}; install the same everywhere"
        raise StoreError(msg)


def _short(version: str) -> str:
    return version[:12] if len(version) == 64 else version


def same_here(here: Signature) -> None:
    """Refuse to work in this process for a run with other code or libraries."""
    mine = signature()
    if mine != here:
        compare(mine, here, f"{socket.gethostname()}, process {os.getpid()},")


def chosen(paths: Sequence[str]) -> list[str]:
    """Return the local files that are compared: all, or some evenly spread."""
    local = [path for path in paths if "://" not in path]
    step = max(1, -(-len(local) // MOST_FILES))
    return local[::step]


def fingerprint(paths: list[str], token: str) -> Print:
    """Return size and ends of files as this process sees them, and the content of a small one."""
    return tuple((path, _seen(Path(path), whole=path == token)) for path in [token, *paths])


def _seen(path: Path, *, whole: bool) -> str:
    try:
        with opened(path, ANY_SIZE) as file:
            if whole:
                return file.read(EDGE).decode(errors="replace")
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            content = file.read(EDGE)
            file.seek(max(0, size - EDGE))
            return f"{size} bytes, ends {hashlib.sha256(content + file.read(EDGE)).hexdigest()[:12]}"
    except OSError as error:
        return error.strerror or type(error).__name__


def other_files(there: Mapping[str, Any], here: Print, folder: Path) -> None:
    """Refuse workers that see other files, or not the folder of results."""
    host = socket.gethostname()
    for worker, seen in there.items():
        for (path, theirs), (_, ours) in zip(seen, here, strict=True):
            if theirs == ours:
                continue
            if path == here[0][0]:
                msg = (
                    f"worker {worker} does not see the folder of results {folder} of {host} ({theirs}); "
                    "both must share it under the same path: choose one with --output"
                )
            else:
                msg = (
                    f"{path}: worker {worker} sees another file ({theirs}) than {host} ({ours}); "
                    "mount the same data under the same path everywhere"
                )
            raise StoreError(msg)
