"""Input files by name, pattern, URL, or fileset as coffea writes it.

A fileset is taken as data: every statement about a file is used or refused by name.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import gzip
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from gammastar.core.errors import BranchError, InputFileError, UserError
from gammastar.core.files import bytes_of, data_path, from_json, opened, shortened, state_of
from gammastar.read.events import open_tree
from gammastar.read.files import address, again, protected, reading, remote_options
from gammastar.read.files import opened as opened_root
from gammastar.store.manifest import file_sha256, write_json

if TYPE_CHECKING:
    from gammastar.store.pairs import Source


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
    """Files of known SHA-256 that must keep it: size, inode and times tell whether one was touched."""

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
        digests = self._digests([self.paths[i] for i in changed])
        for i, sha in zip(changed, digests, strict=True):
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
    with opened_root(name) as file:
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
    """Say in which local files without SHA-256 in `said` a flipped bit goes unnoticed; "" if none."""
    local = [path for path in paths if isinstance(path, Path)]
    open_ = [path for path in local if path not in said and not _expected(path)]
    if not open_:
        return ""
    try:
        with opened_root(str(open_[0])) as file:
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
    """Return the SHA-256 in a list beside a file or its link, or in two folders above; "" if none."""
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
    match = BSD.match(line) or GNU.match(line)
    if match is None:
        shown = line if len(line) <= 120 else f"{line[:120]}…"
        raise InputFileError(f"{where}: {shown!r} is no '<SHA-256>  <file>', 'SHA256 (<file>) = <SHA-256>'")
    file = match["file"]
    if match["escaped"]:
        file = ESCAPED.sub(lambda part: {"n": "\n", "r": "\r"}.get(part[1], part[1]), file)
    return file, match["sha"].lower()


UNREADABLE = "unreadable"
"""In the place of the digest of a file that is missing or cannot be read, where such files are skipped."""

MAX_BYTES = 256 << 20  # unpacked
SHOWN = 8  # names in a message
NAME = re.compile(r"^(?P<path>.*?\.json(?:\.gz)?)(?::(?P<dataset>.+))?$", re.DOTALL)
# A form tells coffea what is inside the file; the schema and the file itself tell us.
DATASET_KEYS = ("files", "metadata", "format", "treename", "form", "compressed_form", "did")
FILE_KEYS = ("object_path", "steps", "num_entries", "uuid", "format", "lfn", "pfn")
# Metadata by which a sample would have to be scaled; nothing here scales samples.
SCALES = re.compile(r"x_?sec|xs$|cross_?section|weight|sum_?w|k_?factor|scale|efficiency", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Listed:
    """A file of a fileset and what the fileset says of it."""

    path: str  # A path, a pattern or a URL
    where: str  # Fileset and dataset, for messages
    tree: str = ""  # Name of the tree; "" if it is not given
    entries: int | None = None
    # "" if it is not given
    uuid: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Dataset:
    """One dataset of a fileset."""

    name: str
    files: tuple[Listed, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)


def split_name(name: str) -> tuple[str, str]:
    """Return path and dataset of ``fileset.json:dataset``; the dataset is "" if none is given."""
    match = None if "://" in name else NAME.match(name)
    return (name, "") if match is None else (match["path"], match["dataset"] or "")


def is_fileset(path: str) -> bool:
    """Return whether a name is that of a fileset."""
    return path.endswith((".json", ".json.gz"))


def read_fileset(path: Path, dataset: str = "") -> Dataset:
    """Return one dataset of a fileset JSON, which may be packed with gzip."""
    content = _content(path)
    if not dataset and len(content) > 1:
        first = f"{path.name}:{next(iter(content))}"
        msg = f"{path}: holds {len(content)} datasets: {_few(content)}; name one, as in {first[:80]!r}"
        raise InputFileError(msg[:1000])
    if not content or (dataset and dataset not in content):
        raise InputFileError(f"{path}: has no dataset {dataset!r}; it has {_few(content) or 'none'}")
    name = dataset or next(iter(content))
    where = f"{path}: dataset {name!r}"[:300]
    entry = content[name] if isinstance(content[name], dict) else {"files": content[name]}
    _known(where, entry, DATASET_KEYS)
    if entry.get("format") not in (None, "root"):
        raise InputFileError(f"{where}: format {entry['format']!r} is not read; only 'root' is")
    metadata = entry.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise InputFileError(f"{where}: metadata {shortened(repr(metadata), 80)} is no mapping")
    scales = [key for key in metadata if SCALES.search(str(key))]
    if scales:
        raise InputFileError(
            f"{where}: metadata {_few(scales)} would scale the events, and nothing here applies it; put "
            "weights into a branch that the schema names, and take the key out of the fileset"
        )
    return Dataset(name, _files(where, entry, metadata), metadata)


def _files(where: str, entry: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[Listed, ...]:
    files = entry.get("files")
    sums = metadata.get("sha256")
    sums = sums if isinstance(sums, dict) else {}
    tree = entry.get("treename") or ""
    if isinstance(files, list) and all(isinstance(file, str) for file in files):
        pairs: list[tuple[str, Any]] = [(file, tree) for file in files]
    elif isinstance(files, dict):
        pairs = list(files.items())
    else:
        raise InputFileError(f"{where} has no 'files' (a mapping of path to tree, or a list of paths)")
    twice = [file for file, n in Counter(file for file, _ in pairs).items() if n > 1]
    if twice or not pairs:
        raise InputFileError(f"{where} {'names twice: ' + _few(twice) if twice else 'names no file'}")
    return tuple(_file_entry(where, path, value, str(sums.get(path) or "")) for path, value in pairs)


def _file_entry(where: str, path: str, value: Any, sha256: str) -> Listed:
    at = f"{where}, file {path!r}"
    said = value if isinstance(value, dict) else {"object_path": value}
    _known(at, said, FILE_KEYS)
    tree, entries, uuid = said.get("object_path"), said.get("num_entries"), said.get("uuid")
    if said.get("format") not in (None, "root"):
        raise InputFileError(f"{at}: format {said['format']!r} is not read; only 'root' is")
    if not isinstance(tree, str | None):
        raise InputFileError(f"{at}: object_path {shortened(repr(tree), 80)} is no name of a tree")
    if entries is not None and (not _count(entries)):
        raise InputFileError(f"{at}: num_entries {shortened(repr(entries), 80)} is no number of entries")
    if not isinstance(uuid, str | None):
        raise InputFileError(f"{at}: uuid {shortened(repr(uuid), 80)} is no UUID")
    if said.get("steps") is not None:
        entries = _covered(at, said["steps"], entries)
    return Listed(path, where, tree or "", entries, uuid or "", sha256)


def _covered(at: str, steps: Any, entries: int | None) -> int:
    """Return the number of entries that steps cover; steps that leave entries out are refused."""
    pairs = isinstance(steps, list) and all(isinstance(s, list) and len(s) == 2 for s in steps)
    good = pairs and all(_count(x) for s in steps for x in s)
    if not good:
        raise InputFileError(f"{at}: steps {shortened(repr(steps), 80)} are no list of [first, last]")
    ordered = sorted(steps)
    last = ordered[-1][1] if ordered else 0
    gaps = [low[1] for low, high in pairwise(ordered) if low[1] != high[0]]
    if (ordered and ordered[0][0] != 0) or gaps or (entries is not None and last != entries):
        n = "" if entries is None else f" of {entries}"
        raise InputFileError(
            f"{at}: the steps choose {sum(high - low for low, high in ordered)} entries{n}, not the whole "
            f"file ({shortened(repr(steps), 80)}); part of a file is not read: give steps of all entries, or "
            "none"
        )
    return int(last)


def compare(path: Path | Remote, listed: Listed, tree: str, known: str) -> None:
    """Compare a file with what a fileset says of it."""
    if listed.sha256 and kind_of(listed.sha256) == kind_of(known) and listed.sha256.lower() != known:
        raise InputFileError(
            f"{path}: is {known}, {listed.where} has {listed.sha256[:200]}; the file was changed or damaged"
        )
    if not listed.uuid and listed.entries is None:
        return
    uuid, entries = stamp(path, (listed.tree or tree) if listed.entries is not None else "")
    if listed.uuid and uuid.lower() != listed.uuid.lower():
        raise InputFileError(
            f"{path}: has UUID {uuid}, {listed.where} has {listed.uuid[:80]}; it is another file"
        )
    if entries is not None and entries != listed.entries:
        raise InputFileError(
            f"{path}: has {entries} entries, {listed.where} has {listed.entries}; it is another file"
        )


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _known(where: str, content: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    unknown = [key for key in content if key not in allowed]
    if unknown:
        msg = f"{where}: unknown keys {_few(unknown)}; known are {', '.join(allowed)}"
        raise InputFileError(msg[:1000])


def _few(names: Any) -> str:
    shown = [repr(str(name)[:80]) for name in list(names)[:SHOWN]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" … and {more} more" if more > 0 else "")


def _content(path: Path) -> dict[str, Any]:
    try:
        with opened(path) as plain, gzip.open(plain) if path.name.endswith(".gz") else plain as stream:
            text = stream.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise InputFileError(f"{path}: larger than {MAX_BYTES >> 20} MB; a fileset is not")
        content = from_json(text)
    except (OSError, EOFError, ValueError) as error:
        raise InputFileError(f"{path}: is not a fileset ({str(error)[:200]})") from error
    if not isinstance(content, dict):
        raise InputFileError(f"{path}: is not a fileset; expected a mapping of dataset to files")
    return content


def find_file(name: str, base: Path) -> list[Path | Remote]:
    """Return the files of a name or pattern: beside the steering, shipped, of test data, cached; or a URL."""
    if "://" in name:
        return [Remote(name)]
    folders = [base]
    if os.environ.get("GAMMASTAR_TESTDATA"):
        folders.append(Path(os.environ["GAMMASTAR_TESTDATA"]))
    folders.append(Path.home() / ".local" / "skhepdata")
    shown = shortened(name, 200)
    try:
        matches = _matches(name, folders)
    except (OSError, ValueError, NotImplementedError) as error:
        raise InputFileError(f"{shown!r}: is no name of a file ({str(error)[:100]})") from error
    if not matches:
        raise InputFileError(f"{shown}: no such file in {', '.join(str(folder) for folder in folders)}")
    return [*matches]


def _matches(name: str, folders: Sequence[Path]) -> list[Path]:
    """Return the file of a name, or those of a pattern, in the first folder that has any."""
    if not (folders[0] / name).is_file():
        with contextlib.suppress(InputFileError):
            return [data_path(name)]
    for folder in folders:
        path = folder / name
        if path.is_file():
            return [path]
        paths = [folder / one for one in sorted(glob.glob(name, root_dir=folder, recursive=True))]  # noqa: PTH207
        files = [one for one in paths if one.is_file()]
        if files:
            return files
        if paths:
            raise InputFileError(
                f"{name}: {paths[0]} is a folder; name its files, for instance {name.rstrip('/')}/*.root"
            )
    return []


def write_fileset(
    path: Path, name: str, tree: str, sources: Sequence[Source], steps: Mapping[str, Sequence[int]]
) -> None:
    """Write files, entries and chunk boundaries in the layout of ``coffea.dataset_tools.preprocess``."""
    files = {}
    for source in sources:
        files[source.path] = {
            "object_path": tree,
            "steps": [[low, high] for low, high in pairwise(steps[source.path])],
            "num_entries": source.entries,
            "uuid": source.uuid,
        }
    digests = {source.path: source.sha256 for source in sources}
    write_json(path, {name: {"files": files, "format": "root", "metadata": {"sha256": digests}}})


@dataclass(frozen=True)
class Given:
    """Files in the order of the steering, what filesets say of them, and the datasets they came from."""

    files: tuple[Path | Remote, ...] = ()  # Each file once, under the first name that it was given
    said: Mapping[Path | Remote, Listed] = field(default_factory=dict)
    # Metadata by ``fileset.json:dataset``
    datasets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def listed(self) -> set[Path | Remote]:
        """Files whose SHA-256 a fileset gives."""
        return {path for path, entry in self.said.items() if entry.sha256}


def given_files(names: Iterable[str], base: Path, *, tree: str = "", missing: bool = False) -> Given:
    """Return the files of names, patterns, URLs and filesets, each once."""
    found: dict[Any, Path | Remote] = {}
    said: dict[Path | Remote, Listed] = {}
    datasets: dict[str, Mapping[str, Any]] = {}
    for name in names:
        path, chosen = split_name(name)
        # a file may have a colon in its name
        if chosen and not is_fileset(name) and (base / name).is_file():
            path, chosen = name, ""
        for place in _places(path, base, missing=missing and not is_fileset(path)):
            if not is_fileset(place.name):
                found.setdefault(_same(place), place)
                continue
            if not isinstance(place, Path):
                raise InputFileError(f"{place}: a fileset must be a local file")
            dataset = read_fileset(place, chosen)
            datasets[f"{place.name}:{dataset.name}"] = dataset.metadata
            for one, listed in _inside(dataset, base, tree, missing=missing):
                first = found.setdefault(_same(one), one)
                said[first] = _agreed(said.get(first), listed)
    return Given(tuple(found.values()), said, datasets)


def _places(name: str, base: Path, *, missing: bool) -> list[Path | Remote]:
    try:
        return find_file(name, base)
    except InputFileError:
        if not missing:
            raise
        return [base / name]


def _inside(
    dataset: Dataset, base: Path, tree: str, *, missing: bool
) -> Iterable[tuple[Path | Remote, Listed]]:
    for listed in dataset.files:
        if tree and listed.tree and listed.tree.partition(";")[0] != tree.partition(";")[0]:
            other = f"is to be read from tree {listed.tree!r}, the schema reads {tree!r}"
            raise InputFileError(f"{listed.where}: {listed.path!r} {other}")
        places = _places(listed.path, base, missing=missing)
        if len(places) > 1 and (listed.uuid or listed.entries is not None or listed.sha256):
            several = f"stands for {len(places)} files, but has entries, UUID or digest of one"
            raise InputFileError(f"{listed.where}: {listed.path!r} {several}")
        for place in places:
            yield place, listed


def _agreed(one: Listed | None, other: Listed) -> Listed:
    """Return what two datasets say of the same file."""
    if one is None:
        return other
    for key in ("entries", "uuid", "sha256"):
        first, second = getattr(one, key), getattr(other, key)
        if first and second and first != second:
            said = f"{key} {second!r}, {one.where} has {first!r}"
            raise InputFileError(f"{other.where}: {other.path!r} has {said}")
        if second and not first:
            one = replace(one, **{key: second})
    return one


def _same(path: Path | Remote) -> Any:
    """Return what two names of one file share: device and inode, so that links count as well."""
    if isinstance(path, Remote):
        return path.url
    try:
        status = path.stat()
    except OSError:
        return str(path)
    return status.st_dev, status.st_ino


def identities(
    given: Given, kind: str, run: Any = None, *, tree: str = "", skip: bool = False
) -> tuple[str, ...]:
    """Return the digest or UUID of every file, each compared with what a fileset says of it."""
    work = functools.partial(_identity, kind, tree, skip)
    items = [(path, given.said.get(path)) for path in given.files]
    return tuple(map(work, items) if run is None else run(work, items))


def _identity(kind: str, tree: str, skip: bool, item: tuple[Path | Remote, Listed | None]) -> str:
    path, listed = item
    try:
        now = identity(path, kind)
        if listed is not None:
            compare(path, listed, tree, now)
    except (InputFileError, BranchError):
        if skip:
            return UNREADABLE
        raise
    return now


def alike(paths: Sequence[Path | Remote], digests: Sequence[str]) -> None:
    """Refuse files that are copies of each other: their events would count twice."""
    first: dict[str, Path | Remote] = {}
    for path, sha in zip(paths, digests, strict=True):
        if sha == UNREADABLE:
            continue
        if sha in first:
            raise InputFileError(
                f"{first[sha]} and {path} have the same content ({sha}): it would count twice; name one"
            )
        first[sha] = path
