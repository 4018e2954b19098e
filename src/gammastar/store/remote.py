"""Input files that are not on a local disk: their name, digest and place in a run."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from gammastar.core.errors import InputFileError, UserError
from gammastar.core.files import bytes_of, state_of
from gammastar.read.checksums import protected
from gammastar.read.events import open_tree
from gammastar.read.files import opened, reading
from gammastar.read.servers import address, again, remote_options
from gammastar.store.manifest import file_sha256

T = TypeVar("T")

SCHEMES = ("http", "https", "root", "xroot")
BLOCK = 4 << 20
ATTEMPTS = 3
LISTS = ("SHA256SUMS", "sha256sums.txt")
SHA = r"(?P<sha>[0-9A-Fa-f]{64})"
GNU = re.compile(rf"^\s*(?P<escaped>\\?){SHA}(?: \*|[ \t]+)(?P<file>\S.*)$")
BSD = re.compile(rf"^\s*(?P<escaped>\\?)SHA256 \((?P<file>.+)\)\s*=\s*{SHA}\s*$")
ESCAPED = re.compile(r"\\(.)")
MAX_LIST = 64 << 20


@dataclass(frozen=True, slots=True)
class Remote:
    """A file behind a URL; ``http`` and ``https`` need aiohttp, ``root`` needs the XRootD client."""

    url: str

    def __post_init__(self) -> None:
        scheme = urlsplit(self.url).scheme
        if scheme not in SCHEMES:
            raise InputFileError(
                f"{self.url}: files of {scheme!r} are not read; use one of {', '.join(SCHEMES)}"
            )

    @property
    def name(self) -> str:
        """Last part of the path."""
        return urlsplit(self.url).path.rpartition("/")[2] or self.url

    def __str__(self) -> str:
        return self.url


def input_sha256(path: Path | Remote) -> str:
    """Return the SHA-256 of a local or remote file."""
    if isinstance(path, Path):
        try:
            return file_sha256(path)
        except OSError as error:
            raise InputFileError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        with reading(path.url):
            return again(path.url, lambda: _remote_sha256(path.url))
    except ImportError as error:
        raise InputFileError(
            f"{path.url}: cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        ) from error


def _remote_sha256(url: str) -> str:
    import fsspec

    result = hashlib.sha256()
    with fsspec.open(address(url), "rb", **remote_options(url)) as stream:
        while block := stream.read(BLOCK):
            result.update(block)
    return result.hexdigest()


class Sealed:
    """Files whose content is known by SHA-256, and which must keep it while they are read.

    A file is read once for its digest and once for its content. In between and while it is read, size, inode
    and times tell whether anybody touched it; only then it is read again.
    """

    def __init__(
        self,
        paths: Sequence[Path | Remote],
        digests: Callable[[Sequence[Path | Remote]], Sequence[str]] | None = None,
    ) -> None:
        self.paths = tuple(paths)
        self._digests = digests or (lambda some: [input_sha256(path) for path in some])
        self._states = [state_of(path) for path in self.paths]
        self.shas = tuple(self._digests(self.paths))
        if self._stirred(range(len(self.paths))):
            self._stirred(range(len(self.paths)))

    def read(self, which: Sequence[Path | Remote], work: Callable[[], T]) -> T:
        """Return what `work` makes of some of the files, once they stayed as they are while it worked."""
        chosen = set(which)
        numbers = [i for i, path in enumerate(self.paths) if path in chosen]
        self._stirred(numbers)
        for _ in range(ATTEMPTS):
            result = work()
            if not self._stirred(numbers):
                return result
        names = ", ".join(str(path) for path in list(which)[:3])
        raise InputFileError(
            f"{names}: somebody touches or replaces the file while it is read; wait, then run again"
        )

    def _stirred(self, numbers: Sequence[int]) -> bool:
        """Return whether a file was touched since the last look; refuse one whose content is another."""
        now = {i: state_of(self.paths[i]) for i in numbers}
        changed = [i for i in numbers if now[i] != self._states[i]]
        if not changed:
            return False
        found = self._digests([self.paths[i] for i in changed])
        for i, sha in zip(changed, found, strict=True):
            if sha != self.shas[i]:
                raise InputFileError(
                    f"{self.paths[i]}: changed while the run works with it: SHA-256 is {sha}, "
                    f"was {self.shas[i]}; run again with a file that stays"
                )
            self._states[i] = now[i]
        return True


def identity(path: Path | Remote, kind: str = "sha256") -> str:
    """Return what tells a file from others: its SHA-256, or UUID and size without reading all of it."""
    if kind == "sha256":
        return input_sha256(path)
    return f"uuid:{stamp(path)[0]}:{_size(path)}"


def stamp(path: Path | Remote, tree: str = "") -> tuple[str, int | None]:
    """Return the UUID of a ROOT file and, if a tree is named, its number of entries."""
    name = str(path)
    with opened(name) as file:
        return str(file.file.uuid), int(open_tree(file, tree, name).num_entries) if tree else None


def _size(path: Path | Remote) -> int:
    if isinstance(path, Path):
        return path.stat().st_size
    import fsspec

    with reading(path.url):
        system, name = fsspec.core.url_to_fs(address(path.url), **remote_options(path.url))
        size = system.size(name)
    return -1 if size is None else int(size)


def kind_of(known: str) -> str:
    """Return the kind of an identity."""
    return "uuid" if known.startswith("uuid:") else "sha256"


def check_listed(paths: Sequence[Path | Remote], found: Sequence[str]) -> None:
    """Compare digests with the list ``SHA256SUMS`` of ``sha256sum`` beside the files, where there is one."""
    for path, sha in zip(paths, found, strict=True):
        if isinstance(path, Path):
            expected = _expected(path)
            if expected and kind_of(sha) == "uuid":
                expected = expected if input_sha256(path) != expected else ""
            if expected and expected != sha:
                raise InputFileError(
                    f"{path}: SHA-256 is {sha}, expected {expected}; the file was changed or damaged"
                )


def unprotected(paths: Sequence[Path | Remote], said: Collection[Path | Remote], tree: str) -> str:
    """Say in which local files a bit that was flipped before the run is not noticed; "" if there are none.

    `said` are files whose SHA-256 a fileset gives. Files are taken to be alike: the first tells of its tree.
    """
    local = [path for path in paths if isinstance(path, Path)]
    open_ = [path for path in local if path not in said and not _expected(path)]
    if not open_:
        return ""
    try:
        with opened(str(open_[0])) as file:
            if protected(open_tree(file, tree, str(open_[0]))):
                return ""
    except UserError:
        return ""  # who reads it says so
    return (
        f"{len(open_)} of {len(local)} files ({open_[0].name}{', …' if len(open_) > 1 else ''}) bring no "
        "checksums of all their numbers and are on no list SHA256SUMS: a bit that was flipped before reads "
        "as another number"
    )


def _expected(path: Path) -> str:
    """Return the SHA-256 that a list beside a file, or beside what it links to, gives; "" if none does.

    Lists in the two folders above may name it as well, as ``folder/file``.
    """
    here, real = path.parent.resolve() / path.name, path.resolve()
    near = dict.fromkeys((here.parent, real.parent))
    above = {folder for folder in real.parents[1:3] if folder not in near}
    for folder in (*near, *above):
        for name in LISTS:
            place = folder / name
            if place.is_file():
                status = place.stat()
                sums = _listed(place, status.st_mtime_ns, status.st_size, strict=folder in near)
                if here in sums or real in sums:  # a list may name the link or what it leads to
                    return sums.get(here, sums.get(real, ""))
    return ""


@functools.lru_cache(maxsize=64)
def _listed(path: Path, _changed: int, size: int, *, strict: bool) -> dict[Path, str]:
    """Return the SHA-256 by path that a list gives; one of other files may hold what it likes."""
    if size > MAX_LIST:
        raise InputFileError(f"{path}: larger than {MAX_LIST >> 20} MB; a list of digests is not")
    try:
        text = bytes_of(path, MAX_LIST).decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read ({error.strerror})") from error
    result: dict[Path, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"{path}, line {number}"
        try:
            entry = _entry(line.rstrip("\r"), where)
        except InputFileError:
            if strict:
                raise
            continue
        if entry is None:
            continue
        file, sha = _place(path.parent, entry[0]), entry[1]
        if result.setdefault(file, sha) != sha and strict:
            raise InputFileError(f"{where}: {entry[0]!r} has another SHA-256 than before; which one holds?")
    return result


def _place(folder: Path, name: str) -> Path:
    """Return the path of a name in a list without following a link in its last part."""
    path = folder / name
    return path.resolve() if path.name == ".." else path.parent.resolve() / path.name


def _entry(line: str, where: str) -> tuple[str, str] | None:
    """Return file and SHA-256 of a line as ``sha256sum`` and BSD's ``--tag`` write it; None for a comment."""
    if not line.strip() or line.lstrip().startswith("#"):
        return None
    found = BSD.match(line) or GNU.match(line)
    if found is None:
        shown = line if len(line) <= 120 else f"{line[:120]}…"
        raise InputFileError(
            f"{where}: {shown!r} is no '<SHA-256>  <file>' nor 'SHA256 (<file>) = <SHA-256>'"
        )
    file = found["file"]
    if found["escaped"]:
        file = ESCAPED.sub(lambda part: {"n": "\n", "r": "\r"}.get(part[1], part[1]), file)
    return file, found["sha"].lower()
