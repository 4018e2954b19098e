"""The folder of a run's results: who works in it, which files are the package's own, what goes and stays.

The only place that removes files from folders of results and caches. Whatever is removed is
either listed in a manifest with the SHA-256 that it has, and carries our mark where its name is free, or is
working material whose name and folder no one else uses. Folders are held by descriptors: nothing is removed
or moved through a link, and a run refuses a folder that has one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import logging
import math
import os
import re
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from gammastar.core.errors import InputFileError, PhysicsError, StoreError, UserError
from gammastar.core.files import (
    CRASH,
    LOCK,
    bytes_of,
    from_json,
    held,
    linked,
    opened,
    results_of,
    write_whole,
)
from gammastar.store.manifest import (
    MANIFEST,
    MAX_MANIFEST,
    file_sha256,
    is_published,
    manifest_like,
    read_json,
    read_manifest,
    write_text,
)

PREVIOUS = "previous"
PATIENCE = 2.0  # s: workers of a killed run hold its lock until they notice
MARK, MARKED = b"gammastar", 1 << 20  # what files of ours hold so near to an end, where others use the name
NESTED = ("figures", "detectors", "pairs", "input")
WORKING = ("stages/pairs", "stages/truth", "chunks/pairs", "chunks/truth")
Kind: TypeAlias = Literal["chunks", "parts", "members"]
OWN: dict[str, str] = {
    "chunks": r"(pairs|truth)-[0-9a-f]{32}\.parquet|fileset_(pairs|truth)\.json"
    r"|token-[0-9a-f]{32}",
    "parts": r"part-\d{5,}\.parquet",
    "members": r"flow_members\.(\d\d\.(json|safetensors)|pairs\.json)",
}
FREE = re.compile(r"(figures|detectors|stages)/.+|pairs/part-\d{5,}\.parquet")  # with our mark alone
NAMED = re.compile(
    r"hepdata(_[^/]+)?/((submission|contour\d*)\.yaml|likelihood\.tar\.gz)"
    r"|histfactory(_[^/]+)?/([^/]+\.(xml|dtd)|data/data\.root|config/[^/]+\.xml)"
    r"|joint(_[^/]+)?/[^/]+/(workspace|patchset)\.json"
)
STAGE = re.compile(r"stages/[a-z0-9_]+\.npz")
TEMPORARY = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}\.tmp(\.[a-z0-9]+)?")
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def working(folder: Path) -> Iterator[None]:
    """Hold the folder, made if missing, for this process by a lock while the block runs."""
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _without_links(folder)
        handle = _locked(path)
    except OSError as error:
        raise StoreError(
            f"{folder}: cannot be made or written ({error.strerror}); choose another folder with --output"
        ) from error
    try:
        yield
    except Exception as error:
        vars(error).setdefault("folder", folder)  # where the command line leaves the traceback
        raise
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # before it is let go: nobody can have taken it over
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # a forked process may have the file open
        os.close(handle)


def _without_links(folder: Path) -> None:
    """Refuse links and irregular files where a run writes, moves or removes; others' own may be there."""
    for place, folders, files, here in os.fwalk(folder):
        if place == str(folder):
            folders[:] = [name for name in folders if _used(name)]
            files[:] = [name for name in files if _used(name)]
        for name in (*folders, *files):
            with contextlib.suppress(FileNotFoundError):  # another run has just let go
                mode = os.stat(name, dir_fd=here, follow_symlinks=False).st_mode
                if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                    raise linked(Path(place) / name)


def _used(name: str) -> bool:
    """Return whether a run uses this name in its folder."""
    own = {MANIFEST, LOCK, PREVIOUS, *NESTED, *(place.partition("/")[0] for place in WORKING)}
    return name in own or is_published(name) or is_published(f"{name}/x")


def _locked(path: Path) -> int:
    """Return the open lock file, held and signed."""
    deadline = time.monotonic() + PATIENCE
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        handle = os.open(path, flags, 0o644)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:  # it is written in place
                raise linked(path)
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
            raise UserError(
                f"{path.parent}: process {process} of {host[:80]} works there, or was stopped there; "
                f"wait for it, choose another folder with --output, or remove {path}"
            )
        if (locked is False and _alive(process)) or time.monotonic() > deadline:
            raise UserError(
                f"{path.parent}: process {process or 'unknown'} works in this folder ({path}); "
                "wait for it, or choose another folder with --output"
            )
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
    """Return the manifest of an earlier run, damaged or not, {} if the folder is empty or not there."""
    there = folder.iterdir() if folder.exists() else ()
    begun = {LOCK, CRASH}  # and a manifest that was being written
    names = [(path.name, TEMPORARY.fullmatch(path.name)) for path in there if path.name not in begun]
    strangers = [name for name, found in names if found is None or found["name"] != MANIFEST]
    if not strangers:
        return {}
    found = manifest_like(folder)
    if found is None:
        more = f" and {len(strangers) - 3} more" if len(strangers) > 3 else ""
        some = ", ".join(sorted(strangers)[:3]) + more
        what = "its manifest.json cannot be read" if MANIFEST in strangers else "it is not one of results"
        raise UserError(
            f"{folder}: the folder is not empty ({some}) and {what}; choose another folder with --output"
        )
    return found


def published(folder: Path) -> list[str]:
    """Return the names of what a run publishes that are in its folder, relative to it and sorted."""
    found = (f"{place}{name}" for place in _places(folder) for name in _names(folder, place))
    return sorted(name for name in found if is_published(name))


def _places(folder: Path) -> list[str]:
    """Return the folders in which results lie, "" for the folder itself; no link is followed."""
    found = ["", *(f"{name}/" for name in NESTED)]
    for entry in _names(folder, "", folders=True):
        if is_published(f"{entry}/x"):  # HEPData submissions and HistFactory XML, with what is in them
            found += _below(folder, f"{entry}/")
    return list(dict.fromkeys(found))


def _below(folder: Path, place: str) -> list[str]:
    inner = _names(folder, place, folders=True)
    return [place, *(name for entry in inner for name in _below(folder, f"{place}{entry}/"))]


def _names(folder: Path, place: str, *, folders: bool = False) -> list[str]:
    """Return the names of the files in a place of the folder, or of the folders there, without links."""
    kind = stat.S_ISDIR if folders else stat.S_ISREG
    try:
        with held(folder / place, folder) as here, os.scandir(here) as entries:
            return [entry.name for entry in entries if kind(entry.stat(follow_symlinks=False).st_mode)]
    except (OSError, UserError):
        return []


def set_aside(folder: Path, old: Mapping[str, Any], *, keep: Callable[[str], bool]) -> None:
    """Move what a finished run published into ``previous/<number>/``; kept stages of ours are removed."""
    names = [name for name in published(folder) if not keep(name)]
    stages = [f"stages/{name}" for name in _names(folder, "stages/")]
    stages = [name for name in stages if STAGE.fullmatch(name) and not keep(name)]
    listed = {f"stages/{name}.npz" for name in old.get("stages", {})}
    gone = {name for name in stages if name in listed and _marked(folder, name)}
    _remove(folder, gone)
    names += [name for name in stages if name not in gone]
    if not names:
        return
    target = f"{PREVIOUS}/{1 + max(_numbered(folder), default=0)}/"
    finished = bool(old.get("finished"))
    if finished:
        prune(folder)
    digests = {name: sha for name, sha in old.get("inputs", {}).items() if is_published(name)}
    digests |= old.get("files", {})
    known = {name: sha for name, sha in digests.items() if name in names}
    write_text(folder / target / MANIFEST, json.dumps({"finished": finished, "files": known}) + "\n")
    for name in names:
        _move(folder, name, f"{target}{name}")
    _drop(folder, names)
    if not finished:
        prune(folder, target)


def prune(folder: Path, *generations: str) -> list[str]:
    """Remove results of earlier runs that are as they were written; return the names of what stays."""
    left = []
    for place in generations or [f"{PREVIOUS}/{number}/" for number in _numbered(folder)]:
        try:
            with held(folder / place, folder) as here, opened(MANIFEST, MAX_MANIFEST, place=here) as stream:
                known = from_json(stream.read())["files"].items()
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue  # not one that we made
        good = [name for name, sha in known if is_published(name) and _own(folder, place, name, sha)]
        _remove(folder, [f"{place}{name}" for name in good])
        _drop(folder, [f"{place}{name}" for name in good])
        inside = _below(folder, place)
        kept = [f"{deep}{name}" for deep in inside for name in _names(folder, deep)]
        kept.remove(f"{place}{MANIFEST}")
        left += kept
        if not kept:
            _remove(folder, [f"{place}{MANIFEST}"])
            _drop(folder, [f"{place}{MANIFEST}"])
    return sorted(left)


def sweep(folder: Path, kind: Kind, *, drop: bool = True) -> None:
    """Remove working material of one kind, none behind a link; Parquet parts of others are renamed."""
    root = results_of(folder) or folder.parent
    place = f"{folder.relative_to(root).as_posix()}/"
    own = re.compile(OWN[kind])
    for name in _names(root, place):
        temporary = TEMPORARY.fullmatch(name)
        if not own.fullmatch(temporary["name"] if temporary else name):
            continue
        if kind == "parts" and not temporary and not _marked(root, f"{place}{name}"):
            _move(root, f"{place}{name}", f"{place}{name}.aside")
        else:
            _remove(root, [f"{place}{name}"])
    if drop:
        _drop(root, [f"{place}x"])


def sweep_temporaries(folder: Path) -> None:
    """Remove what killed writes left where the package writes, by their names and those of their targets."""
    places = [*_places(folder), "stages/", *(f"{place}/" for place in WORKING)]
    for place in dict.fromkeys(places):
        for name in _names(folder, place):
            found = TEMPORARY.fullmatch(name)
            if found and _ours(f"{place}{found['name']}"):
                _remove(folder, [f"{place}{name}"])


def _ours(name: str) -> bool:
    last = name.rpartition("/")[2]
    return (
        name in {MANIFEST, f"{PREVIOUS}/{MANIFEST}"}
        or is_published(name)
        or STAGE.fullmatch(name) is not None
        or (f"{name.rpartition('/')[0]}" in WORKING and any(re.fullmatch(own, last) for own in OWN.values()))
    )


def _numbered(folder: Path) -> list[int]:
    found = _names(folder, PREVIOUS, folders=True)
    return sorted(int(name) for name in found if re.fullmatch(r"[1-9]\d{0,8}", name))


def _own(folder: Path, place: str, name: str, sha256: Any) -> bool:
    """Return whether a file is one of ours, as it was written: by its digest, and by name or mark."""
    if FREE.fullmatch(name):
        if not _marked(folder, f"{place}{name}"):
            return False
    elif "/" in name and not name.startswith("input/") and not NAMED.fullmatch(name):
        return False
    try:
        with _content(folder, f"{place}{name}") as stream:
            return bool(hashlib.file_digest(stream, "sha256").hexdigest() == sha256)
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def _content(folder: Path, name: str) -> Iterator[io.BufferedReader]:
    path = folder / name
    with held(path.parent, folder) as here, opened(path.name, place=here) as stream:
        yield stream


def _marked(folder: Path, name: str) -> bool:
    """Return whether a file carries our mark near one of its ends."""
    try:
        with _content(folder, name) as stream:
            head = stream.read(MARKED)
            stream.seek(-min(MARKED, stream.seek(0, os.SEEK_END)), os.SEEK_END)
            return MARK in head or MARK in stream.read()
    except (OSError, ValueError):
        return False


def _move(folder: Path, name: str, target: str) -> None:
    """Move a file within the folder, never onto another one."""
    path, free = folder / name, folder / target
    try:
        with held(path.parent, folder) as here, held(free.parent, folder, make=True) as there:
            taken, n = set(os.listdir(there)), 1  # noqa: PTH208 - a descriptor
            while free.name in taken:
                n, free = n + 1, free.with_name(f"{PurePosixPath(target).name}.{n}")
            os.rename(path.name, free.name, src_dir_fd=here, dst_dir_fd=there)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be moved to {free.parent} ({error.strerror}); give another --output"
        ) from error


def _remove(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        path = folder / name
        try:
            with contextlib.suppress(FileNotFoundError), held(path.parent, folder) as here:
                os.unlink(path.name, dir_fd=here)
        except OSError as error:
            raise StoreError(
                f"{path}: cannot be removed ({error.strerror}); choose another folder with --output"
            ) from error


def _drop(folder: Path, names: Iterable[str]) -> None:
    """Remove the folders of these files, inside `folder`, that are empty now and no links."""
    places = {place for name in names for place in PurePosixPath(name).parents if place.name}
    for place in sorted(places, key=lambda place: -len(place.parts)):
        path = folder / place
        with contextlib.suppress(OSError), held(path.parent, folder) as here:  # not empty, or gone already
            os.rmdir(path.name, dir_fd=here)


MAX_JSON = 256 << 20


def read_result(folder: Path, name: str) -> Any:
    """Return a JSON result of a run if it is the one that the run wrote."""
    path = folder / name
    check_results(folder, [name])
    content = read_json(path, MAX_JSON)
    finite(content, str(path))
    if not isinstance(content, dict) or not content:
        what = "nothing" if content == {} else type(content).__name__
        raise StoreError(f"{path}: holds {what}, no result of a run")
    return content


def check_beside(path: Path) -> None:
    """Compare a file in a folder of results with the manifest there; others lie where they like."""
    if is_published(path.name) and manifest_like(path.parent) is not None:
        check_results(path.parent, [path.name])


@contextlib.contextmanager
def of_this_version(path: Path) -> Iterator[None]:
    """Name the file whose content is not what this version writes, where the block shows it."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, PhysicsError) as error:
        why = f"{type(error).__name__}: {str(error)[:200]}"
        raise StoreError(f"{path}: is not what a run of this version writes ({why})") from error


def check_results(folder: Path, names: Iterable[str], *, finished: bool = False) -> dict[str, Any]:
    """Return the manifest of a run after comparing files of its folder with it."""
    known = read_manifest(folder)
    if finished and not known["finished"]:
        raise StoreError(f"{folder}: this run is not finished; run it again, with --resume")
    for name in names:
        path, expected = folder / name, known["files"].get(name)
        if expected is None:
            raise StoreError(f"{path}: the manifest of {folder} does not know this file: of another run")
        try:
            sha = file_sha256(path)
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
        if sha != expected:
            raise StoreError(
                f"{path}: SHA-256 is {sha}, the manifest has {expected}; the file was changed or damaged"
            )
    return known


def read_tensors(path: Path, dimensions: Mapping[str, int]) -> dict[str, npt.NDArray[np.float64]]:
    """Return arrays of a safetensors file."""
    try:
        tensors = {name: np.asarray(array, dtype=np.float64) for name, array in load(bytes_of(path)).items()}
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise InputFileError(f"{path}: cannot be read ({error}); run again") from error
    for name, n in dimensions.items():
        array = tensors.get(name)
        if array is None or array.ndim != n or not array.size or not np.isfinite(array).all():
            what = "is missing" if array is None else f"has shape {array.shape}, or is not finite"
            raise InputFileError(
                f"{path}: {name} {what}; expected finite numbers in {n} dimensions; run again"
            )
    return tensors


def write_tensors(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays as safetensors; its own writing to a file names no full disk."""
    write_whole(path, save({name: np.ascontiguousarray(values) for name, values in arrays.items()}))


def finite(content: Any, where: str) -> None:
    """Refuse numbers that are not finite: JSON as Python reads it knows NaN and Infinity."""
    waiting = [(where, content)]
    while waiting:
        name, item = waiting.pop()
        if isinstance(item, float) and not math.isfinite(item):
            raise StoreError(f"{name}: {item} is not a finite number")
        if isinstance(item, dict):
            waiting.extend((f"{name}.{key}", value) for key, value in item.items())
        elif isinstance(item, list):
            waiting.extend((f"{name}[{i}]", value) for i, value in enumerate(item))
