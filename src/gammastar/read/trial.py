"""What ``gammastar inspect`` tells: a proposed schema that was tried, then trees and branches."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from gammastar.core.documents import plain
from gammastar.core.errors import BranchError
from gammastar.core.files import write_whole
from gammastar.read.inspect import TreeSummary, inspect
from gammastar.read.propose import Proposal, propose

__all__ = ["Description", "describe", "to_toml", "write_schema"]


@dataclass(frozen=True, slots=True)
class Description:
    """What a file holds.

    Attributes
    ----------
    schemas : tuple of Proposal
        Empty if nothing is proposed.
    proposal : str
        The first schema as TOML, with what was found as comments; without a schema, what is missing.
    listing : str
        Trees, branches and types.
    """

    schemas: tuple[Proposal, ...]
    proposal: str
    listing: str


def describe(file: str | Path, *, lepton: str | None = None, pattern: str = "*") -> Description:
    """Return a schema that was tried on a file, and its trees, branches and types.

    Parameters
    ----------
    file : path
    lepton : {"mu", "e"}, optional
        Only this flavour.
    pattern : str
        Shell pattern of branch names for the listing, e.g. ``Muon*``; capitals do not matter.

    Raises
    ------
    InputFileError
        If the file is missing or damaged, or holds no tree.
    """
    trees = inspect(file)
    listing = "\n".join(_listed(trees, pattern))
    try:
        schemas = propose(file, lepton=lepton, trees=trees)
    except BranchError as error:
        return Description((), str(error), listing)
    return Description(schemas, "\n".join(_proposed(file, schemas)), listing)


def write_schema(output: str | Path, found: Description) -> None:
    """Write the proposed schema of a description; the file is there whole or not at all.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    write_whole(Path(output), (found.proposal + "\n").encode())


def _proposed(file: str | Path, schemas: tuple[Proposal, ...]) -> Iterator[str]:
    first = schemas[0]
    notes = [f"proposed for {Path(file).name}; check it before use", *first.notes]
    notes += [f"{finding.level}: {finding.key}: {finding.message}" for finding in first.findings]
    for other in schemas[1:]:
        flavour = other.schema["lepton"]
        notes.append(f"the file holds leptons {flavour!r} as well: --lepton {flavour}")
    yield from (f"# {plain(note, keep='')}" for note in notes)
    yield ""
    yield to_toml(first.schema).rstrip("\n")


def _listed(trees: tuple[TreeSummary, ...], pattern: str) -> Iterator[str]:
    for tree in trees:
        names = [name for name in tree.branches if fnmatchcase(name.lower(), pattern.lower())]
        shown = "" if len(names) == len(tree.branches) else f", {len(names)} like {pattern!r}"
        yield f"\n{tree.name} ({tree.kind}, {tree.entries} entries, {len(tree.branches)} branches{shown})"
        for name in names:
            yield f"  {name:40s} {tree.branches[name]}"


def to_toml(mapping: Mapping[str, Any]) -> str:
    """Return a schema mapping as TOML text."""
    lines = [f"{key} = {_value(v)}" for key, v in mapping.items() if not isinstance(v, Mapping)]
    for key, table in mapping.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{key}]", *(f"{_key(name)} = {_value(v)}" for name, v in table.items())]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return plain(json.dumps(value, ensure_ascii=False), keep="")  # escapes that TOML has as well
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    return repr(value)
