"""Histograms of ROOT files, of the UHI layout in JSON and of YODA text as published tables."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import uproot

from gammastar.core.errors import InputFileError
from gammastar.core.files import MAX_FILE, from_json, regular_file, shortened
from gammastar.core.records import FloatArray
from gammastar.read.published.table import (
    Origin,
    PublishedTable,
    TableAxis,
    TableError,
    documents,
    one_column,
    split_unit,
)

_TABLES = re.compile(r"TH[12][CSIFDL]|TGraph(Asymm)?Errors|TGraph")
_ERROR = re.compile(r"(?P<value>.*Hist[12]D_y\d+)_e(?P<number>\d+)(?P<side>plus|minus)?")
MOST_CELLS = 200_000


def root_names(file: Any) -> dict[str, str]:
    """Return the kinds of the histograms and graphs of a ROOT file, by name.

    Histograms ``Hist1D_y1_e1`` of HEPData's export hold errors of ``Hist1D_y1`` and are not named.
    """
    kinds: dict[str, str] = file.classnames(cycle=False)
    return {
        name: kind
        for name, kind in kinds.items()
        if kind.startswith(("TH", "TGraph", "TProfile")) and not _ERROR.fullmatch(name)
    }


def read_histogram(file: Any, name: str, origin: Origin) -> PublishedTable:
    """Return the table of TH1 or TH2 `name`; errors are those of its bins, or of the histograms beside it."""
    kind = file.classnames(cycle=False)[name]
    if not _TABLES.fullmatch(kind):
        hint = "profiles hold means" if kind.startswith("TProfile") else "no table is made of it"
        msg = f"{origin.path}: {name} is a {kind}: {hint}; TH1, TH2 and TGraph(Asymm)Errors are read"
        raise InputFileError(msg)
    found = file[name]
    if kind.startswith("TGraph"):
        return read_graph(found, name, origin)
    labels = ["fXaxis", "fYaxis", "fZaxis"]
    n_axes = int(kind[2])
    edges = [np.asarray(found.axis(k).edges(flow=False), dtype=np.float64) for k in range(n_axes)]
    titles = [str(found.member(label).member("fTitle")) for label in labels[: n_axes + 1]]
    axes = _axes(edges, [title or f"axis {k + 1}" for k, title in enumerate(titles[:n_axes])])
    values = np.asarray(found.values(flow=False), dtype=np.float64).ravel()
    errors = _beside(file, name) or [_both_ways("stat", np.asarray(found.errors(flow=False), np.float64))]
    return _made(name, str(found.title), axes, (titles[n_axes] or "entries", values, errors), origin)


def _beside(file: Any, name: str) -> list[TableError]:
    """Return the errors that HEPData's export keeps as histograms of their own."""
    sides: dict[str, dict[str, FloatArray]] = {}
    for other in file.keys(cycle=False):
        found = _ERROR.fullmatch(other)
        if found and found["value"] == name:
            row = np.asarray(file[other].values(flow=False), dtype=np.float64).ravel()
            sides.setdefault(f"e{found['number']}", {})[found["side"] or ""] = row
    errors = []
    for label, given in sides.items():
        plus = given.get("plus", given.get("", np.zeros(0)))
        minus = given.get("minus", -plus)
        errors.append(TableError(label, -np.abs(minus), plus))
    return errors


def read_graph(graph: Any, name: str, origin: Origin) -> PublishedTable:
    """Return the table of a graph: its errors in x are taken for the edges of bins."""
    x, y = (np.asarray(row, dtype=np.float64) for row in graph.values())
    kind = graph.classname
    if kind == "TGraph":
        ends, errors = (x, x), []
    else:
        low, high = (np.asarray(graph.errors(side), np.float64) for side in ("low", "high"))
        ends = (x - low[0], x + high[0])
        errors = [TableError("error", -low[1], high[1])]
    title = str(graph.title).split(";")
    label, unit = split_unit(title[1] if len(title) > 1 and title[1] else "x")
    axes = (TableAxis(label, unit, ends[0], ends[1], x),)
    return _made(name, title[0], axes, (title[2] if len(title) > 2 else "y", y, errors), origin)


def _axes(edges: list[FloatArray], titles: list[str]) -> tuple[TableAxis, ...]:
    """Return the axes of all cells, the last running fastest."""
    at = np.indices([len(e) - 1 for e in edges]).reshape(len(edges), -1)
    found = []
    for k, title in enumerate(titles):
        low, high = edges[k][at[k]], edges[k][at[k] + 1]
        found.append(TableAxis(*split_unit(title), low, high, 0.5 * (low + high)))
    return tuple(found)


def _both_ways(label: str, size: FloatArray) -> TableError:
    row = size.ravel()
    return TableError(label, -row, row)


def _made(
    name: str,
    title: str,
    axes: tuple[TableAxis, ...],
    content: tuple[str, FloatArray, list[TableError]],
    origin: Origin,
) -> PublishedTable:
    _, values, errors = content
    for row in (values, *(e.plus for e in errors), *(e.minus for e in errors)):
        if not np.isfinite(row).all():
            i = int(np.argmin(np.isfinite(row)))
            msg = f"{origin.path}, table {name!r}: bin {i + 1} holds {row[i]}, not a finite number"
            raise InputFileError(msg)
    return one_column(name, title, axes, content, origin)


def read_uhi(name: str, content: Mapping[str, Any], origin: Origin) -> PublishedTable:
    """Return the table of a histogram in the UHI layout, as ``hist`` and `write_spectrum` write it.

    Named sources that `write_spectrum` keeps become errors of their own, and what is left of the variance
    the error "stat".
    """
    where = f"{origin.path}, table {shortened(name, 80)!r}"
    try:
        axes, cut, titles = [], [], []
        for axis in content["axes"]:
            edges, inside, title = _uhi_axis(axis)
            axes.append(edges)
            cut.append(inside)
            titles.append(title)
        if np.prod([len(e) - 1 for e in axes]) > MOST_CELLS:
            raise InputFileError(f"{where}: more than {MOST_CELLS} cells")
        storage = content["storage"]
        if storage["type"] not in {"int", "double", "weighted"}:
            msg = f"{where}: storage {shortened(str(storage['type']), 40)!r} holds no sums of weights"
            raise InputFileError(msg)
        values = np.asarray(storage["values"], dtype=np.float64)[tuple(cut)].ravel()
        errors = []
        if storage["type"] == "weighted":
            variance = np.asarray(storage["variances"], dtype=np.float64)[tuple(cut)].ravel()
            errors = list(_uhi_errors(variance, content.get("sources", {})))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        msg = f"{where}: is no histogram in the UHI layout ({shortened(repr(error), 100)})"
        raise InputFileError(msg) from error
    metadata = content.get("metadata", {})
    header = str(metadata.get("quantity") or metadata.get("name") or "entries")
    expected = int(np.prod([len(e) - 1 for e in axes]))
    if len(values) != expected:
        raise InputFileError(f"{where}: {len(values)} values for {expected} cells; is the file cut off?")
    return _made(name, str(metadata.get("title", "")), _axes(axes, titles), (header, values, errors), origin)


def _uhi_errors(variance: FloatArray, sources: Mapping[str, Any]) -> Iterator[TableError]:
    rest = variance.copy()
    for label, shift in sources.items():
        row = np.asarray(shift, dtype=np.float64)
        rest -= row**2
        yield TableError(str(label), -row, row)
    yield _both_ways("stat", np.sqrt(np.clip(rest, 0.0, None)))


def _uhi_axis(axis: Mapping[str, Any]) -> tuple[FloatArray, slice, str]:
    """Return edges, what of the values is inside, and the label of an axis."""
    if axis["type"] == "regular":
        edges = np.linspace(axis["lower"], axis["upper"], int(axis["bins"]) + 1)
    elif axis["type"] == "variable":
        edges = np.asarray(axis["edges"], dtype=np.float64)
    else:
        raise ValueError(f"axis of type {axis['type']!r}")
    first = 1 if axis.get("underflow") else 0
    metadata = axis.get("metadata", {})
    title = metadata.get("label") or metadata.get("name") or "axis"
    return edges, slice(first, first + len(edges) - 1), str(title).replace("$", "")


def uhi_content(text: str) -> dict[str, Mapping[str, Any]]:
    """Return the histograms of a JSON text by name: one alone is called "histogram"."""
    content = from_json(text)
    if not isinstance(content, dict):
        raise ValueError("is no table of keys")
    if "axes" in content:
        return {"histogram": content}
    return {str(k): v for k, v in content.items() if isinstance(v, dict) and "axes" in v}


def opened(path: Path) -> Any:
    """Return a ROOT file; refuse one that is shorter than its header says."""
    file = uproot.open(regular_file(path, MAX_FILE))
    size, expected = path.stat().st_size, file.file.fEND
    if size < expected:
        file.close()
        raise InputFileError(f"{path}: has {size} bytes, its header says {expected}: it is cut off")
    return file


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


def read_yoda(item: _Object, origin: Origin) -> PublishedTable:
    """Return the table of one object."""
    reader = next((read for pattern, read in _READERS if re.fullmatch(pattern, item.kind)), None)
    if reader is None:
        kinds = "Scatter1D to 3D, Histo1D and 2D, Estimate1D and 2D, BinnedEstimate"
        msg = f"{origin.path}: object {item.path} is a {item.kind}; tables are read from {kinds}"
        raise InputFileError(msg)
    return reader(item, origin)


def _numbers(item: _Object, origin: Origin, width: int) -> FloatArray:
    """Return the rows as numbers, (n, width); ``---`` is nan."""
    out = np.full((len(item.rows), width), np.nan)
    for i, row in enumerate(item.rows):
        if len(row) < width:
            counts = f"{len(row)} numbers, expected {width}; is the file cut off?"
            raise InputFileError(f"{origin.path}: object {item.path}, row {i + 1}: {counts}")
        try:
            out[i] = [np.nan if set(cell) == {"-"} else float(cell) for cell in row[:width]]
        except ValueError as error:
            raise InputFileError(f"{origin.path}: object {item.path}, row {i + 1}: {error}") from error
    if np.isinf(out).any():
        first = int(np.argwhere(np.isinf(out))[0, 0]) + 1
        raise InputFileError(f"{origin.path}: object {item.path}, row {first}: a number is not finite")
    return out


def _table(
    item: _Object, origin: Origin, axes: list[TableAxis], values: FloatArray, errors: list[TableError]
) -> PublishedTable:
    title = item.notes.get("Title", "").strip("~ ")
    name = item.notes.get("ZLabel" if len(axes) > 1 else "YLabel", "") or "value"
    return one_column(item.path, title, axes, (name, values, errors), origin)


def _axis_name(item: _Object, k: int) -> tuple[str, str]:
    """Return name and unit of an axis, from its label if there is one."""
    return split_unit(item.notes.get(f"{'XYZ'[k]}Label", "").strip("~ ") or f"A{k + 1}")


def _scatter(item: _Object, origin: Origin) -> PublishedTable:
    """Return the table of a scatter; version 1 of YODA keeps named errors in an annotation."""
    n_axes = int(item.kind[7]) - 1
    points = _numbers(item, origin, 3 * (n_axes + 1)).reshape(len(item.rows), n_axes + 1, 3)
    axes = [
        TableAxis(*_axis_name(item, k), v - down, v + up, v)
        for k, (v, down, up) in enumerate(points[:, :-1].transpose(1, 2, 0))
    ]
    values, down, up = points[:, -1].T
    errors = _breakdown(item, origin, len(values)) or [TableError("error", -down, up)]
    return _table(item, origin, axes, values, errors)


def _breakdown(item: _Object, origin: Origin, n: int) -> list[TableError]:
    """Return the named errors of a version-1 scatter, ``ErrorBreakdown: {0: {stat: {dn: …, up: …}}}``."""
    text = item.notes.get("ErrorBreakdown", "")
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
        msg = f"{origin.path}: object {item.path}: ErrorBreakdown is damaged ({error})"
        raise InputFileError(msg) from error
    return [TableError(label, *pair) for label, pair in rows.items()]


def _histogram(item: _Object, origin: Origin) -> PublishedTable:
    """Return the table of a histogram: sums of weights per bin, with the root of the sum of their squares."""
    if item.version >= 3:
        axes, inside = _grid(item, origin)
        numbers = _numbers(item, origin, 2)[inside]
    else:
        n_axes = int(item.kind[5])
        rows = [row for row in item.rows if not row[0].isalpha()]
        numbers = _numbers(_Object(item.kind, 2, item.path, rows=rows), origin, 2 * n_axes + 2)
        axes = [
            TableAxis(*_axis_name(item, k), ends[0], ends[1], 0.5 * (ends[0] + ends[1]))
            for k, ends in enumerate(numbers[:, : 2 * n_axes].T.reshape(n_axes, 2, -1))
        ]
        numbers = numbers[:, 2 * n_axes :]
    values, error = numbers[:, 0], np.sqrt(numbers[:, 1])
    return _table(item, origin, axes, values, [TableError("stat", -error, error)])


def _estimate(item: _Object, origin: Origin) -> PublishedTable:
    """Return the table of an estimate: a value per bin, with a pair of shifts for each label."""
    axes, inside = _grid(item, origin)
    labels = item.labels or ([""] if item.rows and len(item.rows[0]) > 2 else [])
    numbers = _numbers(item, origin, 1 + 2 * len(labels))[inside]
    errors = [
        TableError(label or "error", *numbers[:, 1 + 2 * k : 3 + 2 * k].T) for k, label in enumerate(labels)
    ]
    return _table(item, origin, axes, numbers[:, 0], errors)


def _grid(item: _Object, origin: Origin) -> tuple[list[TableAxis], list[int]]:
    """Return the axes of all bins and which rows are inside; the first axis runs fastest.

    An axis of numbers has a bin on either side, one of names or whole numbers one for all others, the first.
    """
    where = f"{origin.path}: object {item.path}"
    kinds = list(_axis_kinds(item))
    counts, bins = [], []
    for k, discrete in enumerate(kinds):
        n = len(item.edges.get(k + 1, [])) - (0 if discrete else 1)
        if n < 1:
            raise InputFileError(f"{where}: has no edges for axis {k + 1}")
        counts.append(n + (1 if discrete else 2))
        bins.append(range(1, n + 1))
    if len(item.rows) != np.prod(counts):
        msg = f"{where}: {len(item.rows)} rows, its axes ask for {np.prod(counts)}; is the file cut off?"
        raise InputFileError(msg)
    cells = np.array(list(itertools.product(*bins)))
    axes = [_grid_axis(where, item, k, cells[:, k], discrete=kinds[k]) for k in range(len(kinds))]
    return axes, (cells @ np.cumprod([1, *counts])[:-1]).tolist()


def _grid_axis(where: str, item: _Object, k: int, at: IntArray, *, discrete: bool) -> TableAxis:
    edges, name = item.edges[k + 1], _axis_name(item, k)
    try:
        numbers = np.array([float(edge) for edge in edges])
    except ValueError as error:
        if not discrete:
            raise InputFileError(f"{where}: axis {k + 1}: {error}") from error
        nothing = np.full(len(at), np.nan)
        return TableAxis(*name, nothing, nothing, nothing, tuple(edges[i - 1] for i in at))
    low, high = (numbers[at - 1], numbers[at - 1 if discrete else at])
    return TableAxis(*name, low, high, 0.5 * (low + high))


def _axis_kinds(item: _Object) -> Iterator[bool]:
    """Yield whether each axis is one of names or whole numbers, as ``Type: BinnedEstimate<i,d>`` says."""
    inner = re.search(r"<(.*)>", item.notes.get("Type", ""))
    if inner:
        yield from (one.strip().casefold() != "d" for one in inner[1].split(","))
    else:
        yield from (False for _ in item.edges)


_READERS: tuple[tuple[str, Reader], ...] = (
    (r"SCATTER[123]D", _scatter),
    (r"HISTO[12]D", _histogram),
    (r"(BINNED)?ESTIMATE(\dD)?", _estimate),
)
