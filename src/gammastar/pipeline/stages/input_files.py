"""Input files of a run, the schema and the cuts."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gammastar import config, read
from gammastar.core.errors import BranchError, InputFileError, SteeringError
from gammastar.core.resolve import UserCode, resolve
from gammastar.store.filesets import Dataset, Listed, compare, find_file, is_fileset, read_fileset, split_name
from gammastar.store.remote import Remote, identity

if TYPE_CHECKING:
    from gammastar import select

__all__ = [
    "UNREADABLE",
    "Given",
    "alike",
    "given_files",
    "identities",
    "load_cuts",
    "load_schema",
]

UNREADABLE = "unreadable"
"""In the place of the digest of a file that is missing or cannot be read, where such files are skipped."""


def load_schema(section: config.Read, where: Path | UserCode) -> read.Schema:
    """Return the schema of a file, of ``file.py:attribute``, or a shipped one by its name.

    Raises
    ------
    SteeringError
        If there is none, or it is wrong; the message names it.
    """
    name = section.schema_file
    base = where if isinstance(where, Path) else where.folder
    if name.endswith(".toml"):
        return read.load_schema(base / name)
    if ".py" not in name:
        return read.builtin(name)
    try:
        found = resolve(name, where)
        return found if isinstance(found, read.Schema) else read.Schema.from_mapping(found)
    except SteeringError as error:
        text = str(error)
        raise SteeringError(text if name in text else f"schema {name}: {text}") from error


def load_cuts(section: config.Select, where: Path | UserCode) -> select.Cuts:
    """Return the cuts of a section; functions come from frozen code, on workers as well."""
    from gammastar import select

    ghost = None
    if section.ghost_angle > 0 or section.ghost_excess > 0:
        ghost = select.GhostVeto(section.ghost_angle, section.ghost_excess)
    return select.Cuts(
        lepton=section.lepton,
        pair=section.pair,
        ghost=ghost,
        event_functions=tuple(resolve(name, where) for name in section.event_functions),
        pair_functions=tuple(resolve(name, where) for name in section.pair_functions),
    )


@dataclass(frozen=True)
class Given:
    """Files in the order of the steering, what filesets say of them, and the datasets they came from.

    Attributes
    ----------
    files : tuple of Path or Remote
        Each file once, under the first name that it was given.
    said : mapping of file to Listed
    datasets : mapping of str to mapping
        Metadata by ``fileset.json:dataset``.
    """

    files: tuple[Path | Remote, ...] = ()
    said: Mapping[Path | Remote, Listed] = field(default_factory=dict)
    datasets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def given_files(names: Iterable[str], base: Path, *, tree: str = "", missing: bool = False) -> Given:
    """Return the files of names, patterns, URLs and filesets.

    A file that is named twice, by a pattern, a link or a way round, counts once.

    Parameters
    ----------
    names : iterable of str
        ``fileset.json`` (also ``.json.gz``) stands for its only dataset, ``fileset.json:name`` for one of
        several; patterns work in both, and inside a fileset.
    base : Path
        Folder of the steering file.
    tree : str
        Tree that is read; a fileset that names another one is refused. "" if it is not known.
    missing : bool
        Keep files that are not there in the list, for runs that skip and report them.

    Raises
    ------
    InputFileError
        If a file is missing, or a fileset cannot be used as it is.
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
                msg = f"{place}: a fileset must be a local file"
                raise InputFileError(msg)
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
            msg = (
                f"{listed.where}: {listed.path!r} is to be read from tree {listed.tree!r}, the schema reads "
                f"{tree!r}"
            )
            raise InputFileError(msg)
        places = _places(listed.path, base, missing=missing)
        if len(places) > 1 and (listed.uuid or listed.entries is not None or listed.sha256):
            msg = (
                f"{listed.where}: {listed.path!r} stands for {len(places)} files, but has entries, UUID or "
                "digest of one"
            )
            raise InputFileError(msg)
        for place in places:
            yield place, listed


def _agreed(one: Listed | None, other: Listed) -> Listed:
    """Return what two datasets say of the same file."""
    if one is None:
        return other
    for key in ("entries", "uuid", "sha256"):
        first, second = getattr(one, key), getattr(other, key)
        if first and second and first != second:
            msg = f"{other.where}: {other.path!r} has {key} {second!r}, {one.where} has {first!r}"
            raise InputFileError(msg)
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
    """Return the digest or UUID of every file, each compared with what a fileset says of it.

    Parameters
    ----------
    given : Given
    kind : {"sha256", "uuid"}
        Whether the whole content is read, or the head of the file only.
    run : function of function and items, optional
        ``farm.map``, so that workers do it.
    tree : str
        Whose entries a fileset counts.
    skip : bool
        Give ``UNREADABLE`` instead of an error for files that are missing or cannot be read.

    Raises
    ------
    InputFileError
        If a file cannot be read, or is not the one of which the fileset speaks.
    """
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
    """Refuse files that are copies of each other: their events would count twice.

    Raises
    ------
    InputFileError
        Naming both.
    """
    first: dict[str, Path | Remote] = {}
    for path, sha in zip(paths, found, strict=True):
        if sha == UNREADABLE:
            continue
        if sha in first:
            msg = f"{first[sha]} and {path} have the same content ({sha}): it would count twice; name one"
            raise InputFileError(msg)
        first[sha] = path
