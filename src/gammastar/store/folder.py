"""The folder of a run's results: who works in it, which files are the package's own, what goes and stays.

The only place that removes files from folders of results, caches and checkpoints. Whatever is removed is
either listed in a manifest with the SHA-256 that it has, or is working material whose name and folder no one
else uses; a link is never followed to remove what lies behind it, and never removed itself.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

from gammastar.core.errors import StoreError, UserError
from gammastar.store.manifest import (
    MANIFEST,
    file_sha256,
    is_published,
    manifest_like,
    read_json,
    write_text,
)

LOCK, PREVIOUS = ".gammastar.lock", "previous"
PATIENCE = 2.0  # s: workers of a killed run hold its lock until they notice
PART_MARK, PART_TAIL = b"gammastar", 1 << 20  # what the footer of a Parquet part of ours contains
NESTED = ("figures", "detectors", "pairs", "input")
WORKING = (
    "stages/pairs",
    "stages/truth",
    "stages/weighted",
    "chunks/pairs",
    "chunks/truth",
    "input/blocks",
    "training",
)
Kind: TypeAlias = Literal["chunks", "parts", "blocks", "checkpoints", "members"]
OWN: dict[str, str] = {
    "chunks": r"(pairs|truth)-[0-9a-f]{32}\.parquet|fileset_(pairs|truth)\.json"
    r"|costs_(pairs|truth)\.csv|token-[0-9a-f]{32}",
    "parts": r"part-\d{5,}\.parquet",
    "blocks": r"\w+_[0-9a-f]{16}_\d{5,}\.npz",
    "checkpoints": r"(flow|member_\d\d)\.checkpoint",
    "members": r"flow_members\.(\d\d\.(json|safetensors)|pairs\.json)",
}
STAGE = re.compile(r"stages/[a-z0-9_]+\.npz")
TEMPORARY = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}\.tmp(\.[a-z0-9]+)?")
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def working(folder: Path) -> Iterator[None]:
    """Hold the folder for this process while the block runs; it is made if it is missing.

    The lock is held with ``flock``, which ends with the process, on a file that names host and process. That
    of a process of this host that is gone is taken over. Where another host wrote it, nobody here can tell
    whether it is still at work.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _held(path)
    except OSError as error:
        msg = f"{folder}: cannot be made or written ({error.strerror}); choose another folder with --output"
        raise StoreError(msg) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # before it is let go: nobody can have taken it over
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # a forked process may have the file open
        os.close(handle)


def _held(path: Path) -> int:
    """Return the open lock file, held and signed."""
    deadline = time.monotonic() + PATIENCE
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            locked = _flock(handle)
            host, process = _signature(handle)
            free = not host or (host == socket.gethostname() and not (locked is None and _alive(process)))
            if locked is not False and free and _same(handle, path):
                os.ftruncate(handle, 0)
                mine = {"host": socket.gethostname(), "process": os.getpid()}
                os.pwrite(handle, json.dumps(mine).encode(), 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        if locked is not False and host and host != socket.gethostname():
            msg = (
                f"{path.parent}: process {process} of {host[:80]} works there, or was stopped there; "
                f"wait for it, choose another folder with --output, or remove {path}"
            )
            raise UserError(msg)
        if (locked is False and _alive(process)) or time.monotonic() > deadline:
            msg = (
                f"{path.parent}: process {process or 'unknown'} works in this folder ({path}); "
                "wait for it, or choose another folder with --output"
            )
            raise UserError(msg)
        time.sleep(0.05)


def _flock(handle: int) -> bool | None:
    """Return whether the file is held now; None where the file system knows no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            return False
        if error.errno in {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}:
            return None
        raise
    return True


def _signature(handle: int) -> tuple[str, int]:
    """Return host and process of a lock file, ("", 0) if it names none."""
    try:
        content = json.loads(os.pread(handle, 4096, 0))
        return str(content["host"]), int(content["process"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "", 0


def _same(handle: int, path: Path) -> bool:
    """Return whether the open file is still the one of this name: who held it may have removed it."""
    try:
        there = path.stat()
    except OSError:
        return False
    return os.path.samestat(os.fstat(handle), there)


def _alive(process: int) -> bool:
    if process <= 0:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def claim(folder: Path) -> dict[str, Any]:
    """Return the manifest that an earlier run left in a folder, {} if the folder is empty or not there.

    The manifest may be damaged or edited: it tells that the folder is one of ours, and which files were.
    """
    there = folder.iterdir() if folder.exists() else ()
    strangers = [path.name for path in there if not _own_trace(path.name)]
    if not strangers:
        return {}
    found = manifest_like(folder)
    if found is None:
        some = ", ".join(sorted(strangers)[:3]) + (
            f" and {len(strangers) - 3} more" if len(strangers) > 3 else ""
        )
        what = "its manifest.json cannot be read" if MANIFEST in strangers else "it is not one of results"
        msg = f"{folder}: the folder is not empty ({some}) and {what}; choose another folder with --output"
        raise UserError(msg)
    return found


def _own_trace(name: str) -> bool:
    found = TEMPORARY.fullmatch(name)
    return name == LOCK or (found is not None and found["name"] == MANIFEST)


def published(folder: Path) -> list[str]:
    """Return the names of what a run publishes that are in its folder, relative to it and sorted."""
    found = []
    for place in _places(folder):
        inside = folder / place
        found += [name for name in (f"{place}{path.name}" for path in _entries(inside)) if is_published(name)]
    return sorted(found)


def _places(folder: Path) -> list[str]:
    """Return the folders in which results lie, "" for the folder itself; below them no link is followed."""
    found = ["", *(f"{name}/" for name in NESTED)]
    for entry in _entries(folder, folders=True):
        if is_published(f"{entry.name}/x"):  # HEPData submissions and HistFactory XML, with what is in them
            for place, _, _ in os.walk(entry):
                found.append(f"{Path(place).relative_to(folder).as_posix()}/")
    return list(dict.fromkeys(found))


def _entries(folder: Path, *, folders: bool = False) -> list[Path]:
    """Return the files of a folder, or the folders in it."""
    try:
        return [path for path in folder.iterdir() if path.is_dir() == folders]
    except OSError:
        return []


def set_aside(folder: Path, old: Mapping[str, Any], *, keep: Callable[[str], bool]) -> None:
    """Move what an earlier run published into ``previous/<number>/``, where it stays until a run finishes.

    Of a run that never finished, what its manifest lists goes at once. Kept stages that the manifest lists
    are removed; a file of such a name that it does not list is moved.
    """
    names = [name for name in published(folder) if not keep(name)]
    stages = [f"stages/{path.name}" for path in _entries(folder / "stages")]
    stages = [name for name in stages if STAGE.fullmatch(name) and not keep(name)]
    listed = {f"stages/{name}.npz" for name in old.get("stages", {})}
    gone = {name for name in stages if name in listed and not (folder / name).is_symlink()}
    _remove(folder / name for name in gone)
    names += [name for name in stages if name not in gone]
    if not names:
        return
    target = _generation(folder)
    finished = bool(old.get("finished"))
    if finished:
        prune(folder)
    known = {name: sha for name, sha in _digests(old).items() if name in names}
    write_text(target / MANIFEST, json.dumps({"finished": finished, "files": known}) + "\n")
    for name in names:
        _move(folder / name, target / name)
    _drop(folder, names)
    if not finished:
        prune(folder, target)


def prune(folder: Path, *generations: Path) -> list[str]:
    """Remove results of earlier runs that are as they were written; return the names of what stays."""
    left = []
    for place in generations or _numbered(folder):
        manifest = place / MANIFEST
        if not manifest.is_file():
            continue
        known = read_json(manifest)
        known = known.get("files", {}) if isinstance(known, dict) else {}
        good = [name for name in known if is_published(name) and _is(place / name, known[name])]
        _remove(place / name for name in good)
        _drop(place, good)
        kept = [
            path for path in place.rglob("*") if path != manifest and (path.is_symlink() or path.is_file())
        ]
        left += [path.relative_to(folder).as_posix() for path in kept]
        if not kept:
            _remove([manifest])
            _drop(folder, [f"{PREVIOUS}/{place.name}/{MANIFEST}"])
    return sorted(left)


def sweep(folder: Path, kind: Kind, *, drop: bool = True) -> None:
    """Remove working material of one kind from a folder: files of its names, none behind a link.

    A Parquet part that is not one of ours, or so damaged that this cannot be told, gets another name. With
    `drop` the folder goes too if it is empty then and no link.
    """
    own = re.compile(OWN[kind])
    for path in _entries(folder):
        temporary = TEMPORARY.fullmatch(path.name)
        if path.is_symlink() or not own.fullmatch(temporary["name"] if temporary else path.name):
            continue
        if kind == "parts" and not temporary and not _marked(path):
            _move(path, path.with_name(f"{path.name}.aside"))
        else:
            _remove([path])
    if drop:
        _drop(folder.parent, [f"{folder.name}/x"])


def sweep_temporaries(folder: Path) -> None:
    """Remove what killed writes left where the package writes, by their names and those of their targets."""
    places = [*_places(folder), "stages/", *(f"{place}/" for place in WORKING)]
    for place in dict.fromkeys(places):
        for path in _entries(folder / place):
            found = TEMPORARY.fullmatch(path.name)
            if found and not path.is_symlink() and _ours(f"{place}{found['name']}"):
                _remove([path])


def _ours(name: str) -> bool:
    last = name.rpartition("/")[2]
    return (
        name in {MANIFEST, f"{PREVIOUS}/{MANIFEST}"}
        or is_published(name)
        or STAGE.fullmatch(name) is not None
        or (f"{name.rpartition('/')[0]}" in WORKING and any(re.fullmatch(own, last) for own in OWN.values()))
    )


def _numbered(folder: Path) -> list[Path]:
    found = _entries(folder / PREVIOUS, folders=True)
    return sorted((path for path in found if path.name.isdecimal()), key=lambda path: int(path.name))


def _generation(folder: Path) -> Path:
    """Return a folder in ``previous/`` that is not there yet."""
    number = 1 + max((int(path.name) for path in _numbered(folder)), default=0)
    return folder / PREVIOUS / str(number)


def _digests(old: Mapping[str, Any]) -> dict[str, str]:
    inputs = {name: sha for name, sha in old.get("inputs", {}).items() if is_published(name)}
    return inputs | dict(old.get("files", {}))


def _is(path: Path, sha256: Any) -> bool:
    return path.is_file() and not path.is_symlink() and file_sha256(path) == sha256


def _marked(path: Path) -> bool:
    """Return whether a Parquet file has our mark in its footer."""
    with path.open("rb") as stream:
        stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stream.tell() - PART_TAIL))
        return PART_MARK in stream.read()


def _move(path: Path, target: Path) -> None:
    """Move a file or link, never onto another one."""
    n, free = 1, target
    while os.path.lexists(free):
        n, free = n + 1, target.with_name(f"{target.name}.{n}")
    try:
        free.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, free)  # to another disk if the folder is a link to one
    except OSError as error:
        msg = f"{path}: cannot be moved to {free.parent} ({error.strerror}); give another --output"
        raise StoreError(msg) from error


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            msg = f"{path}: cannot be removed ({error.strerror}); choose another folder with --output"
            raise StoreError(msg) from error


def _drop(folder: Path, names: Iterable[str]) -> None:
    """Remove the folders of these files, inside `folder`, that are empty now and no links."""
    for name in sorted(names, reverse=True):
        for place in list(PurePosixPath(name).parents)[:-1]:
            with contextlib.suppress(OSError):  # not empty, a link, or gone already
                (folder / place).rmdir()
