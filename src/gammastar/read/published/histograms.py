"""Histograms and graphs of ROOT files, and histograms in JSON of the UHI layout, as published tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import uproot

from gammastar.core.documents import from_json, shortened
from gammastar.core.errors import InputFileError
from gammastar.core.records import FloatArray
from gammastar.read.published.table import (
    Origin,
    PublishedTable,
    TableAxis,
    TableError,
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
    file = uproot.open(path)
    size, expected = path.stat().st_size, file.file.fEND
    if size < expected:
        file.close()
        raise InputFileError(f"{path}: has {size} bytes, its header says {expected}: it is cut off")
    return file
