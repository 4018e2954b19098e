"""Input files by name, pattern, URL, or fileset as coffea writes it.

A fileset is taken as data: every statement about a file is used or refused by name.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import gzip
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gammastar.core.errors import BranchError, InputFileError
from gammastar.core.files import data_path, from_json, opened, shortened
from gammastar.store.manifest import write_json
from gammastar.store.remote import Remote, identity, kind_of, stamp

if TYPE_CHECKING:
    from gammastar.store.chunks import Source


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
    found = None if "://" in name else NAME.match(name)
    return (name, "") if found is None else (found["path"], found["dataset"] or "")


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
        raise InputFileError(f"{where}: metadata {_short(metadata)} is no mapping")
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
    return tuple(_listed(where, path, value, str(sums.get(path) or "")) for path, value in pairs)


def _listed(where: str, path: str, value: Any, sha256: str) -> Listed:
    at = f"{where}, file {path!r}"
    said = value if isinstance(value, dict) else {"object_path": value}
    _known(at, said, FILE_KEYS)
    tree, entries, uuid = said.get("object_path"), said.get("num_entries"), said.get("uuid")
    if said.get("format") not in (None, "root"):
        raise InputFileError(f"{at}: format {said['format']!r} is not read; only 'root' is")
    if not isinstance(tree, str | None):
        raise InputFileError(f"{at}: object_path {_short(tree)} is no name of a tree")
    if entries is not None and (not _count(entries)):
        raise InputFileError(f"{at}: num_entries {_short(entries)} is no number of entries")
    if not isinstance(uuid, str | None):
        raise InputFileError(f"{at}: uuid {_short(uuid)} is no UUID")
    if said.get("steps") is not None:
        entries = _covered(at, said["steps"], entries)
    return Listed(path, where, tree or "", entries, uuid or "", sha256)


def _covered(at: str, steps: Any, entries: int | None) -> int:
    """Return the number of entries that steps cover; steps that leave entries out are refused."""
    good = isinstance(steps, list) and all(
        isinstance(s, list) and len(s) == 2 and all(map(_count, s)) for s in steps
    )
    if not good:
        raise InputFileError(f"{at}: steps {_short(steps)} are no list of [first, last]")
    ordered = sorted(steps)
    last = ordered[-1][1] if ordered else 0
    gaps = [low[1] for low, high in pairwise(ordered) if low[1] != high[0]]
    if (ordered and ordered[0][0] != 0) or gaps or (entries is not None and last != entries):
        n = "" if entries is None else f" of {entries}"
        raise InputFileError(
            f"{at}: the steps choose {sum(high - low for low, high in ordered)} entries{n}, not the whole "
            f"file ({_short(steps)}); part of a file is not read: give steps of all entries, or none"
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


def _known(where: str, found: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = [key for key in found if key not in known]
    if unknown:
        msg = f"{where}: unknown keys {_few(unknown)}; known are {', '.join(known)}"
        raise InputFileError(msg[:1000])


def _few(names: Any) -> str:
    shown = [repr(str(name)[:80]) for name in list(names)[:SHOWN]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" … and {more} more" if more > 0 else "")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


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
    """Return the files of a name or glob pattern; a URL stands for itself.

    Looked for beside the steering file, then among the shipped data, then in the folder
    ``GAMMASTAR_TESTDATA``, then in the cache of scikit-hep-testdata.
    """
    if "://" in name:
        return [Remote(name)]
    folders = [base]
    if os.environ.get("GAMMASTAR_TESTDATA"):
        folders.append(Path(os.environ["GAMMASTAR_TESTDATA"]))
    folders.append(Path.home() / ".local" / "skhepdata")
    shown = shortened(name, 200)
    try:
        found = _matches(name, folders)
    except (OSError, ValueError, NotImplementedError) as error:
        raise InputFileError(f"{shown!r}: is no name of a file ({str(error)[:100]})") from error
    if not found:
        raise InputFileError(f"{shown}: no such file in {', '.join(str(folder) for folder in folders)}")
    return [*found]


def _matches(name: str, folders: Sequence[Path]) -> list[Path]:
    """Return the file of a name, or those of a pattern, in the first folder that has any."""
    if not (folders[0] / name).is_file():
        with contextlib.suppress(InputFileError):
            return [data_path(name)]
    for folder in folders:
        path = folder / name
        if path.is_file():
            return [path]
        found = [folder / one for one in sorted(glob.glob(name, root_dir=folder, recursive=True))]  # noqa: PTH207
        files = [one for one in found if one.is_file()]
        if files:
            return files
        if found:
            raise InputFileError(
                f"{name}: {found[0]} is a folder; name its files, for instance {name.rstrip('/')}/*.root"
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
    """Return the files of names, patterns, URLs and filesets.

    A file that is named twice, by a pattern, a link or a way round, counts once.
    """
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
            raise InputFileError(
                f"{listed.where}: {listed.path!r} is to be read from tree {listed.tree!r}, the schema reads "
                f"{tree!r}"
            )
        places = _places(listed.path, base, missing=missing)
        if len(places) > 1 and (listed.uuid or listed.entries is not None or listed.sha256):
            raise InputFileError(
                f"{listed.where}: {listed.path!r} stands for {len(places)} files, but has entries, UUID or "
                "digest of one"
            )
        for place in places:
            yield place, listed


def _agreed(one: Listed | None, other: Listed) -> Listed:
    """Return what two datasets say of the same file."""
    if one is None:
        return other
    for key in ("entries", "uuid", "sha256"):
        first, second = getattr(one, key), getattr(other, key)
        if first and second and first != second:
            raise InputFileError(
                f"{other.where}: {other.path!r} has {key} {second!r}, {one.where} has {first!r}"
            )
        if second and not first:
            one = replace(one, **{key: second})
    return one


def _same(path: Path | Remote) -> Any:
    """Return what two names of one file share: device and inode, so that links count as well."""
    if isinstance(path, Remote):
        return path.url
    try:
        found = path.stat()
    except OSError:
        return str(path)
    return found.st_dev, found.st_ino


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
        found = identity(path, kind)
        if listed is not None:
            compare(path, listed, tree, found)
    except (InputFileError, BranchError):
        if skip:
            return UNREADABLE
        raise
    return found


def alike(paths: Sequence[Path | Remote], found: Sequence[str]) -> None:
    """Refuse files that are copies of each other: their events would count twice."""
    first: dict[str, Path | Remote] = {}
    for path, sha in zip(paths, found, strict=True):
        if sha == UNREADABLE:
            continue
        if sha in first:
            raise InputFileError(
                f"{first[sha]} and {path} have the same content ({sha}): it would count twice; name one"
            )
        first[sha] = path
