"""YODA, the text of its versions 1 and 2: scatters, histograms and estimates become tables.

The format is that of https://yoda.hepforge.org; files ``.yoda.gz`` are unpacked, ``.yoda.h5`` are not read.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gammastar.core.documents import from_json, shortened
from gammastar.core.errors import InputFileError
from gammastar.core.records import FloatArray
from gammastar.read.published.hepdata_yaml import documents
from gammastar.read.published.table import (
    Origin,
    PublishedTable,
    TableAxis,
    TableError,
    one_column,
    split_unit,
)

_BEGIN = re.compile(r"BEGIN (YODA_)?([A-Z0-9]+)(?:<([A-Z0-9,]+)>)?(?:_V(\d+))? (\S+)")
_EDGES = re.compile(r"Edges\(A(\d+)\):\s*(\[.*\])\s*$")
Reader = Callable[["_Object", Origin], PublishedTable]
IntArray = npt.NDArray[np.int64]


@dataclass
class _Object:
    """One object of a file: its kind, annotations, edges by axis, labels of errors, and lines of numbers."""

    kind: str
    version: int
    path: str
    notes: dict[str, str] = field(default_factory=dict)
    edges: dict[int, list[str]] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)


def objects(path: Path, text: str) -> dict[str, _Object]:
    """Return the objects of a file by their YODA path."""
    found: dict[str, _Object] = {}
    current: _Object | None = None
    for raw in text.splitlines():
        line = raw.strip()
        begin = _BEGIN.match(line)
        if begin and current is None:
            current = _Object(begin[2], int(begin[4] or 1), begin[5])
        elif current is not None and line.startswith("END "):
            found[current.path] = current
            current = None
        elif current is not None and line and not line.startswith("#") and line != "---":
            _line(path, current, line)
    if current is not None:
        raise InputFileError(f"{path}: object {current.path} does not end; is the file cut off?")
    return found


def _line(path: Path, into: _Object, line: str) -> None:
    edges = _EDGES.match(line)
    if edges:
        into.edges[int(edges[1])] = _list(path, into, edges[2])
    elif line.startswith("ErrorLabels:"):
        into.labels = _list(path, into, line.partition(":")[2])
    elif re.match(r"[A-Za-z][\w ]*\s*[:=]", line) and not line.startswith(("nan", "Total", "Underflow")):
        key, value = re.split(r"\s*[:=]\s*", line, maxsplit=1)
        into.notes[key] = value
    elif re.match(r"[-+.\dn]", line):
        into.rows.append(line.split())


def _list(path: Path, into: _Object, text: str) -> list[str]:
    try:
        return [str(one) for one in from_json(text)]
    except ValueError as error:
        msg = f"{path}: object {into.path}: {shortened(text, 80)} is no list ({error})"
        raise InputFileError(msg) from error


def read_yoda(found: _Object, origin: Origin) -> PublishedTable:
    """Return the table of one object."""
    reader = next((read for pattern, read in _READERS if re.fullmatch(pattern, found.kind)), None)
    if reader is None:
        kinds = "Scatter1D to 3D, Histo1D and 2D, Estimate1D and 2D, BinnedEstimate"
        msg = f"{origin.path}: object {found.path} is a {found.kind}; tables are read from {kinds}"
        raise InputFileError(msg)
    return reader(found, origin)


def _numbers(found: _Object, origin: Origin, width: int) -> FloatArray:
    """Return the rows as numbers, (n, width); ``---`` is nan."""
    out = np.full((len(found.rows), width), np.nan)
    for i, row in enumerate(found.rows):
        if len(row) < width:
            counts = f"{len(row)} numbers, expected {width}; is the file cut off?"
            raise InputFileError(f"{origin.path}: object {found.path}, row {i + 1}: {counts}")
        try:
            out[i] = [np.nan if set(cell) == {"-"} else float(cell) for cell in row[:width]]
        except ValueError as error:
            raise InputFileError(f"{origin.path}: object {found.path}, row {i + 1}: {error}") from error
    if np.isinf(out).any():
        first = int(np.argwhere(np.isinf(out))[0, 0]) + 1
        raise InputFileError(f"{origin.path}: object {found.path}, row {first}: a number is not finite")
    return out


def _table(
    found: _Object, origin: Origin, axes: list[TableAxis], values: FloatArray, errors: list[TableError]
) -> PublishedTable:
    title = found.notes.get("Title", "").strip("~ ")
    name = found.notes.get("ZLabel" if len(axes) > 1 else "YLabel", "") or "value"
    return one_column(found.path, title, axes, (name, values, errors), origin)


def _axis_name(found: _Object, k: int) -> tuple[str, str]:
    """Return name and unit of an axis, from its label if there is one."""
    return split_unit(found.notes.get(f"{'XYZ'[k]}Label", "").strip("~ ") or f"A{k + 1}")


def _scatter(found: _Object, origin: Origin) -> PublishedTable:
    """Return the table of a scatter; version 1 of YODA keeps named errors in an annotation."""
    n_axes = int(found.kind[7]) - 1
    points = _numbers(found, origin, 3 * (n_axes + 1)).reshape(len(found.rows), n_axes + 1, 3)
    axes = [
        TableAxis(*_axis_name(found, k), v - down, v + up, v)
        for k, (v, down, up) in enumerate(points[:, :-1].transpose(1, 2, 0))
    ]
    values, down, up = points[:, -1].T
    errors = _breakdown(found, origin, len(values)) or [TableError("error", -down, up)]
    return _table(found, origin, axes, values, errors)


def _breakdown(found: _Object, origin: Origin, n: int) -> list[TableError]:
    """Return the named errors of a version-1 scatter, ``ErrorBreakdown: {0: {stat: {dn: …, up: …}}}``."""
    text = found.notes.get("ErrorBreakdown", "")
    if not text:
        return []
    content = documents(origin.path, text)[0]
    rows: dict[str, tuple[FloatArray, FloatArray]] = {}
    try:
        for key, errors in content.items():
            for label, both in errors.items():
                nothing = np.full(n, np.nan)
                pair = rows.setdefault(label or "error", (nothing, nothing.copy()))
                pair[0][int(key)], pair[1][int(key)] = float(both["dn"]), float(both["up"])
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        msg = f"{origin.path}: object {found.path}: ErrorBreakdown is damaged ({error})"
        raise InputFileError(msg) from error
    return [TableError(label, *pair) for label, pair in rows.items()]


def _histogram(found: _Object, origin: Origin) -> PublishedTable:
    """Return the table of a histogram: sums of weights per bin, with the root of the sum of their squares."""
    if found.version >= 3:
        axes, inside = _grid(found, origin)
        numbers = _numbers(found, origin, 2)[inside]
    else:
        n_axes = int(found.kind[5])
        rows = [row for row in found.rows if not row[0].isalpha()]
        numbers = _numbers(_Object(found.kind, 2, found.path, rows=rows), origin, 2 * n_axes + 2)
        axes = [
            TableAxis(*_axis_name(found, k), ends[0], ends[1], 0.5 * (ends[0] + ends[1]))
            for k, ends in enumerate(numbers[:, : 2 * n_axes].T.reshape(n_axes, 2, -1))
        ]
        numbers = numbers[:, 2 * n_axes :]
    values, error = numbers[:, 0], np.sqrt(numbers[:, 1])
    return _table(found, origin, axes, values, [TableError("stat", -error, error)])


def _estimate(found: _Object, origin: Origin) -> PublishedTable:
    """Return the table of an estimate: a value per bin, with a pair of shifts for each label."""
    axes, inside = _grid(found, origin)
    labels = found.labels or ([""] if found.rows and len(found.rows[0]) > 2 else [])
    numbers = _numbers(found, origin, 1 + 2 * len(labels))[inside]
    errors = [
        TableError(label or "error", *numbers[:, 1 + 2 * k : 3 + 2 * k].T) for k, label in enumerate(labels)
    ]
    return _table(found, origin, axes, numbers[:, 0], errors)


def _grid(found: _Object, origin: Origin) -> tuple[list[TableAxis], list[int]]:
    """Return the axes of all bins and which rows are inside; the first axis runs fastest.

    An axis of numbers has a bin on either side, one of names or whole numbers one for all others, the first.
    """
    where = f"{origin.path}: object {found.path}"
    kinds = list(_axis_kinds(found))
    counts, bins = [], []
    for k, discrete in enumerate(kinds):
        n = len(found.edges.get(k + 1, [])) - (0 if discrete else 1)
        if n < 1:
            raise InputFileError(f"{where}: has no edges for axis {k + 1}")
        counts.append(n + (1 if discrete else 2))
        bins.append(range(1, n + 1))
    if len(found.rows) != np.prod(counts):
        msg = f"{where}: {len(found.rows)} rows, its axes ask for {np.prod(counts)}; is the file cut off?"
        raise InputFileError(msg)
    cells = np.array(list(itertools.product(*bins)))
    axes = [_grid_axis(where, found, k, cells[:, k], discrete=kinds[k]) for k in range(len(kinds))]
    return axes, (cells @ np.cumprod([1, *counts])[:-1]).tolist()


def _grid_axis(where: str, found: _Object, k: int, at: IntArray, *, discrete: bool) -> TableAxis:
    edges, name = found.edges[k + 1], _axis_name(found, k)
    try:
        numbers = np.array([float(edge) for edge in edges])
    except ValueError as error:
        if not discrete:
            raise InputFileError(f"{where}: axis {k + 1}: {error}") from error
        nothing = np.full(len(at), np.nan)
        return TableAxis(*name, nothing, nothing, nothing, tuple(edges[i - 1] for i in at))
    low, high = (numbers[at - 1], numbers[at - 1 if discrete else at])
    return TableAxis(*name, low, high, 0.5 * (low + high))


def _axis_kinds(found: _Object) -> Iterator[bool]:
    """Yield whether each axis is one of names or whole numbers, as ``Type: BinnedEstimate<i,d>`` says."""
    inner = re.search(r"<(.*)>", found.notes.get("Type", ""))
    if inner:
        yield from (one.strip().casefold() != "d" for one in inner[1].split(","))
    else:
        yield from (False for _ in found.edges)


_READERS: tuple[tuple[str, Reader], ...] = (
    (r"SCATTER[123]D", _scatter),
    (r"HISTO[12]D", _histogram),
    (r"(BINNED)?ESTIMATE(\dD)?", _estimate),
)
