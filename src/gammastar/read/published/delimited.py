"""CSV: what HEPData gives out, and tables with their source in lines that begin with ``#``."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gammastar.core.errors import InputFileError
from gammastar.core.records import FloatArray
from gammastar.read.published.table import (
    Column,
    Origin,
    PublishedTable,
    TableAxis,
    TableError,
    number,
    split_unit,
)

_EDGE = re.compile(r"(?i)^(?:(?P<name>.+?)[ _])?(?P<side>low|high)(?P<unit>_[a-z]+| \[.*\])?$")
_SIGN = re.compile(r"(?i)(?:^|[ _])(\+|-|plus|minus)$")
_LABEL = re.compile(r"(?i)^(stat|sys|err|tot|unc|lumi|norm|cor)[\w., -]*$")
_DOI = re.compile(r"(?i)\bdoi:\s*([^\s,;)]+)|\b(10\.\d{4,}/[^\s,;)]+)|\barxiv:\s*([^\s,;:)]+)")
_NOTES = ("table_doi", "name", "description", "data_file", "data_license", "location")


@dataclass
class _Block:
    """One header with its rows, and the qualifiers above it."""

    header: list[str] = field(default_factory=list)
    marks: tuple[str, str] = (",", '"')
    rows: list[tuple[int, list[str]]] = field(default_factory=list)
    qualifiers: dict[str, str] = field(default_factory=dict)


@dataclass
class _Part:
    """What one column of a file is: an edge or point of an axis, a value, or an error of a value."""

    kind: str
    name: str
    label: str = ""
    sign: str = ""


def read_csv(path: Path, text: str, sha256: str) -> PublishedTable:
    """Return the table of a CSV file; each block of a HEPData export is one column of it."""
    notes, comments, blocks = _blocks(path, text)
    if not blocks:
        raise InputFileError(f"{path}: holds no table, only {len(comments)} lines of notes")
    axes: tuple[TableAxis, ...] = ()
    columns: list[Column] = []
    for i, block in enumerate(blocks, 1):
        found, more = _parsed(path, block)
        if axes and [len(a.low) for a in found] != [len(a.low) for a in axes]:
            msg = f"{path}: block {i} has {len(block.rows)} rows, the first {len(blocks[0].rows)}; cut off?"
            raise InputFileError(msg)
        axes = axes or found
        columns += more
    said = " ".join(comments)
    doi = notes.get("table_doi") or next((_identifier(found) for found in _DOI.finditer(said)), "")
    origin = Origin(path, sha256, doi.rstrip("."), said)
    name = notes.get("name", path.stem)
    return PublishedTable(name, notes.get("description", said), axes, tuple(columns), origin)


def _identifier(found: re.Match[str]) -> str:
    return found[1] or found[2] or f"arXiv:{found[3]}"


def _blocks(path: Path, text: str) -> tuple[dict[str, str], list[str], list[_Block]]:
    """Return notes by name, other comments, and the blocks of a file."""
    notes: dict[str, str] = {}
    comments: list[str] = []
    blocks: list[_Block] = []
    current = _Block()
    for at, line in enumerate(text.splitlines(), 1):
        if line.startswith("#:"):
            _note(line[2:].strip(), notes, current.qualifiers)
        elif line.startswith("#"):
            comments.append(line.lstrip("# ").strip())
        elif not line.strip():
            if current.rows:
                blocks.append(current)
                current = _Block()
        elif not current.header:
            separator = ";" if line.count(";") > line.count(",") else ","
            current.marks = separator, "'" if line.startswith("'") else '"'
            current.header = _cells(line, current.marks)
        else:
            cells = _cells(line, current.marks)
            if len(cells) != len(current.header):
                raise InputFileError(
                    f"{path}: line {at} has {len(cells)} cells, the header {len(current.header)}; "
                    "is the file cut off, or does a name hold the separator?"
                )
            current.rows.append((at, cells))
    return notes, comments, [*blocks, current] if current.rows else blocks


def _note(text: str, notes: dict[str, str], qualifiers: dict[str, str]) -> None:
    """Sort a line that HEPData wrote: a note about the table, or a qualifier of the columns."""
    key, colon, value = text.partition(":")
    if colon and (key in _NOTES or key.startswith("keyword")):
        notes[key] = value.strip()
        return
    name, *cells = re.split(r"[,;]", text)
    given = [cell.strip() for cell in cells if cell.strip()]
    if given:
        qualifiers[name.strip()] = given[0]


def _cells(line: str, marks: tuple[str, str]) -> list[str]:
    """Return the cells of a line; HEPData separates by comma or semicolon and quotes by either mark."""
    return [cell.strip() for cell in next(csv.reader([line], delimiter=marks[0], quotechar=marks[1]))]


def _parsed(path: Path, block: _Block) -> tuple[tuple[TableAxis, ...], list[Column]]:
    parts = _roles(block.header)
    numbers = np.empty((len(block.rows), len(parts)))
    limits = np.zeros(numbers.shape, dtype=np.bool_)
    texts: dict[int, list[str]] = {}
    for k, part in enumerate(parts):
        for i, (line, cells) in enumerate(block.rows):
            try:
                numbers[i, k], limits[i, k] = number(cells[k])
            except ValueError as error:
                if part.kind == "point":
                    texts[k] = [row[k] for _, row in block.rows]
                    numbers[:, k] = np.nan
                    break
                name = block.header[k]
                msg = f"{path}: line {line}, column {name!r}: {error}; a cell is a finite number or empty"
                raise InputFileError(msg) from error
    axes = tuple(_axes(parts, numbers, texts))
    columns: list[Column] = []
    for start, stop in itertools.pairwise(
        [k for k, p in enumerate(parts) if p.kind == "value"] + [len(parts)]
    ):
        name, unit = split_unit(parts[start].name)
        errors = tuple(_errors(parts[start + 1 : stop], numbers[:, start + 1 : stop]))
        columns.append(Column(name, unit, numbers[:, start], errors, limits[:, start], block.qualifiers))
    if not columns:
        raise InputFileError(f"{path}: the header {block.header} has no column of values beside its axes")
    return axes, columns


def _roles(header: Sequence[str]) -> list[_Part]:
    """Say what each column is, from its name and those before it."""
    edges = {k: found for k, cell in enumerate(header) if (found := _EDGE.match(cell))}
    sides: dict[str, set[str]] = {}
    for found in edges.values():
        sides.setdefault(_base(found), set()).add(found["side"].casefold())
    parts: list[_Part] = []
    value = ""
    for k, cell in enumerate(header):
        if k in edges and sides[_base(edges[k])] == {"low", "high"} and not value:
            parts.append(_Part(edges[k]["side"].casefold(), _base(edges[k])))
        elif not value and (cell in sides or k < min(edges, default=1)):
            parts.append(_Part("point", cell))
        elif value and (error := _error(cell, value)):
            parts.append(error)
        else:
            value = cell
            parts.append(_Part("value", cell))
    return parts


def _base(found: re.Match[str]) -> str:
    return f"{found['name'] or ''}{found['unit'] or ''}"


def _error(cell: str, value: str) -> _Part | None:
    """Return what a column is if it is an error of the value before it."""
    own = [
        n for n in (value, split_unit(value)[0]) if cell.startswith(n) and cell[len(n) :][:1] in (" ", "_")
    ]
    rest = cell[len(own[0]) :].strip(" _") if own else cell
    sign = _SIGN.search(rest)
    label = (rest[: sign.start()] if sign else rest).strip(" ._,")
    if not (sign or _LABEL.match(label)):
        return None
    mark = {"plus": "+", "minus": "-"}.get(sign[1].casefold(), sign[1]) if sign else ""
    return _Part("error", cell, label or "error", mark)


def _axes(parts: Sequence[_Part], numbers: FloatArray, texts: dict[int, list[str]]) -> Iterator[TableAxis]:
    names = list(dict.fromkeys(p.name for p in parts if p.kind in ("low", "high", "point")))
    for base in names:
        found: dict[str, Any] = {p.kind: k for k, p in enumerate(parts) if p.name == base}
        name, unit = split_unit(base)
        if "low" not in found:
            point = numbers[:, found["point"]]
            yield TableAxis(name, unit, point, point, point, tuple(texts.get(found["point"], ())))
            continue
        low, high = numbers[:, found["low"]], numbers[:, found["high"]]
        low, high = np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
        centre = numbers[:, found["point"]] if "point" in found else 0.5 * (low + high)
        yield TableAxis(name, unit, low, high, centre)


def _errors(parts: Sequence[_Part], numbers: FloatArray) -> Iterator[TableError]:
    """Yield the errors of a value: one column that counts both ways, or one up and one down.

    A column for "-" that holds no negative number holds sizes.
    """
    signs: dict[str, dict[str, FloatArray]] = {}
    for part, row in zip(parts, numbers.T, strict=True):
        signs.setdefault(part.label, {})[part.sign] = row
    for label, given in signs.items():
        plus = given.get("+", given.get("", np.full(len(numbers), np.nan)))
        minus = given.get("-", -given.get("", plus))
        if "-" in given and not (minus < 0).any():
            minus = -minus
        if not (np.isnan(plus).all() and np.isnan(minus).all()):
            yield TableError(label, minus, plus)
