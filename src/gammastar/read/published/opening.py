"""Open a file or record of published tables, whatever its form; say what is in it and how to use it."""

from __future__ import annotations

import contextlib
import json
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import uproot

from gammastar.core.errors import GammastarError, InputFileError
from gammastar.core.files import MAX_FILE, is_file, plain, regular_file, shortened, text_of
from gammastar.read.files import reading, sha256
from gammastar.read.published.spectra import Conventions, beam_energies, published_spectrum
from gammastar.read.published.table import (
    SUBMISSION,
    Column,
    Origin,
    PublishedTable,
    TableAxis,
    TableError,
    chosen,
    documents,
    listed,
    read_csv,
    read_yaml,
    split_unit,
)

MOST_BYTES = 64 << 20
SUFFIXES = (".yaml", ".yml", ".json", ".csv", ".txt", ".dat")
HISTOGRAM = re.compile(r"TH([12])[CSIFDL]")
MOST_TABLES = 60  # that are listed
MOST_COLUMNS = 30
OPEN = '"counts" # or "density", per unit of mass: the header does not say'
GUESSES = (
    Conventions(),
    Conventions(content="counts"),
    Conventions(negative="keep"),
    Conventions(content="counts", negative="keep"),
)
QUANTITY = 'quantity = "counts" # all that was seen; or "per_interaction", "per_pot"'
COVARIANCE = ", covariance"  # behind the name of a table: that of the table with its covariance
Readers: TypeAlias = dict[str, Callable[[], PublishedTable]]


def hepdata(path: str | Path, table: str | int | None = None) -> PublishedTable:
    """Return a published table, in any form that HEPData gives out.

    Parameters
    ----------
    path : path
        Folder of a record with its ``submission.yaml``, or that file; one YAML or JSON of data; CSV, also
        with its source in lines of ``#``; ROOT histograms (TH1, TH2).
    table : str or int, optional
        Name or number from 1; the only one without.

    Raises
    ------
    InputFileError
        If the file is missing, damaged, cut off or too large, or has no such table; near names are offered.

    Examples
    --------
    >>> from gammastar.core.files import data_path
    >>> found = hepdata(data_path("published/na60_2016/form_factor_eta.csv"))
    >>> found.columns[0].name, found.axes[0].unit, len(found)
    ('F2', 'GeV', 14)
    """
    place = Path(path)
    with _blamed(place):
        readers = _readers(place)
        names = list(readers)
        return readers[names[chosen(table, names, f"{place}: table")]]()


def table_names(path: str | Path) -> tuple[str, ...]:
    """Return the names of the tables of a file or record, in their order."""
    with _blamed(Path(path)):
        return tuple(_readers(Path(path)))


def is_published(path: str | Path) -> bool:
    """Return whether a path looks as if it held published tables: a record, or a file with a known ending.

    Of ROOT files those with histograms and without any tree.
    """
    place = Path(path)
    if place.is_dir() or place.suffix.lower() != ".root":
        return (place / SUBMISSION).is_file() or (is_file(place) and place.suffix.lower() in SUFFIXES)
    with contextlib.suppress(GammastarError), reading(place), _opened(place) as file:
        kinds = file.classnames(cycle=False).values()
        trees = any(k.startswith(("TTree", "ROOT::RNTuple")) for k in kinds)
        return not trees and any(map(HISTOGRAM.fullmatch, kinds))
    return False


@contextlib.contextmanager
def _blamed(path: Path) -> Iterator[None]:
    """Say which file it is that cannot be read."""
    try:
        yield
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read ({error.strerror or shortened(str(error))})") from error
    except (ValueError, EOFError, struct.error, zlib.error) as error:
        raise InputFileError(f"{path}: {shortened(str(error))}") from error


def _readers(path: Path) -> Readers:
    """Return the reader of each table of a file or record, by name."""
    if path.is_dir() or path.name == SUBMISSION:
        return _record(path / SUBMISSION if path.is_dir() else path)
    if path.suffix.lower() == ".root":
        return _root(path)
    text, origin = text_of(path, MOST_BYTES), Origin(path, sha256(path))
    yaml = path.suffix.lower() in {".yaml", ".yml", ".json"}
    if yaml or text[:4096].lstrip().startswith(("dependent_variables", "{")):
        content = documents(path, text)
        if len(content) != 1:
            holds = f"holds {len(content)} documents; one table has one, a record its {SUBMISSION}"
            raise InputFileError(f"{path}: {holds}")
        table = read_yaml(path.stem, content[0], origin)
    else:
        table = read_csv(path, text, origin.sha256)
    return {table.name: lambda: table}


def _record(path: Path) -> Readers:
    """Return the readers of a record; a table is opened when it is asked for."""
    head, tables = listed(path, documents(path, text_of(path, MOST_BYTES)))
    if not tables:
        raise InputFileError(f"{path}: names no table")

    def reader(name: str, entry: dict[str, Any]) -> Callable[[], PublishedTable]:
        def read() -> PublishedTable:
            data = entry["path"]
            if not data.is_file():
                raise InputFileError(f"{path}: table {name!r}: its data_file {data.name} is missing")
            found = documents(data, text_of(data, MOST_BYTES))
            doi = str(entry.get("table_doi") or entry.get("doi") or head.get("hepdata_doi") or "")
            origin = Origin(data, sha256(data), doi, str(head.get("comment", "")))
            return read_yaml(name, found[0] if found else None, origin, str(entry.get("description", "")))

        return read

    def with_covariance(name: str) -> Callable[[], PublishedTable]:
        own, other = readers[name], readers.get(f"{name}{COVARIANCE}")
        return own if other is None else lambda: replace(own(), covariance=other())

    readers = {name: reader(name, entry) for name, entry in tables.items()}
    return {name: with_covariance(name) for name in readers}


def _opened(path: Path) -> Any:
    """Return a ROOT file; refuse one that is shorter than its header says."""
    file = uproot.open(regular_file(path, MAX_FILE))
    size, expected = path.stat().st_size, file.file.fEND
    if size < expected:
        file.close()
        raise InputFileError(f"{path}: has {size} bytes, its header says {expected}: it is cut off")
    return file


def _root(path: Path) -> Readers:
    with reading(path), _opened(path) as file:
        kinds = file.classnames(cycle=False)
    names = [name for name, kind in kinds.items() if HISTOGRAM.fullmatch(kind)]
    if not names:
        others = ", ".join(sorted(set(kinds.values()))) or "nothing"
        raise InputFileError(f"{path}: holds no TH1 and no TH2 (but {others}); only these are read")
    origin = Origin(path, sha256(path))
    return {name: (lambda name=name: _histogram(name, origin)) for name in names}  # type: ignore[misc]


def _histogram(name: str, origin: Origin) -> PublishedTable:
    """Return the table of a histogram with the errors of its bins; the last axis runs fastest."""
    with reading(origin.path), _opened(origin.path) as file:
        found = file[name]
    axes, sizes = [], found.values(flow=False).shape
    labels = [str(found.member(f"f{axis}axis").member("fTitle")) for axis in "XYZ"]
    for k, at in enumerate(np.indices(sizes).reshape(len(sizes), -1)):
        edges = np.asarray(found.axis(k).edges(flow=False), dtype=np.float64)
        low, high = edges[at], edges[at + 1]
        axes.append(TableAxis(*split_unit(labels[k] or f"axis {k + 1}"), low, high, 0.5 * (low + high)))
    values = np.asarray(found.values(flow=False), dtype=np.float64).ravel()
    error = np.asarray(found.errors(flow=False), dtype=np.float64).ravel()
    for i in np.flatnonzero(~np.isfinite(values + error)):
        raise InputFileError(f"{origin.path}, table {name!r}: bin {i + 1} is not a finite number")
    errors = (TableError("stat", -error, error),) if error.any() else ()
    header, nothing = split_unit(labels[len(sizes)] or "entries"), np.zeros(len(values), dtype=np.bool_)
    return PublishedTable(
        name, str(found.title), tuple(axes), (Column(*header, values, errors, nothing),), origin
    )


@dataclass(frozen=True, slots=True)
class TableListing:
    """What was found in a file."""

    listing: str  # Tables, axes, columns
    proposal: str  # Lines of a steering file for the first table that makes a mass spectrum, "" if none does
    reasons: tuple[str, ...]  # Why tables make none


def describe_tables(path: str | Path) -> TableListing:
    """Return the tables of a file or record, and steering lines for the first that is a mass spectrum."""
    names = table_names(path)
    lines, proposal = [f"{path}: {len(names)} tables"], ""
    reasons: list[str] = []
    for k, name in enumerate(names, 1):
        if k > MOST_TABLES:
            lines.append(f"… and {len(names) - MOST_TABLES} more tables")
            break
        try:
            table = hepdata(path, k)
        except InputFileError as error:
            lines.append(f"\n{k} {plain(name)!r}: {error}")
            continue
        lines += _rows(k, table)
        if not proposal:
            proposal = _proposed(Path(path), k if len(names) > 1 else None, table, reasons)
    return TableListing("\n".join(lines), proposal, tuple(reasons))


def _rows(k: int, table: PublishedTable) -> Iterator[str]:
    about = f", {shortened(plain(table.description, keep=''), 100)}" if table.description else ""
    yield f"\n{k} {plain(table.name)!r}, {len(table)} rows{about}"
    if table.origin.doi:
        yield f"  source {plain(table.origin.doi, keep='')}"
    for axis in table.axes:
        yield f"  axis   {_axis(axis)}"
    for i, column in enumerate(table.columns[:MOST_COLUMNS], 1):
        yield f"  column {i} {_column(column)}"
    if len(table.columns) > MOST_COLUMNS:
        yield f"  … and {len(table.columns) - MOST_COLUMNS} more columns"
    stated = {value: where for where, value in reversed(list(beam_energies(table).items()))}
    for value, where in stated.items():
        yield f"  energy sqrt(s) = {value:g} GeV ({plain(where)})"


def _axis(axis: TableAxis) -> str:
    if axis.text:
        return f"{plain(axis.name)!r}: texts"
    ends = (
        f"{np.min(axis.low):g} to {np.max(axis.high):g} {axis.unit or '(no unit)'}" if len(axis.low) else ""
    )
    return f"{plain(axis.name)!r}: {'points' if axis.points else 'bins'} {plain(ends)}"


def _column(column: Column) -> str:
    errors = ", ".join(plain(e.label) for e in column.errors) or "none"
    limits = f", {int(column.limits.sum())} upper limits" if column.limits.any() else ""
    finite = column.values[np.isfinite(column.values)]
    ends = f"{finite.min():.4g} to {finite.max():.4g}" if len(finite) else "no numbers"
    return f"{plain(column.name)!r} [{plain(column.unit) or 'no unit'}]: {ends}, errors: {errors}{limits}"


def _proposed(path: Path, number: int | None, table: PublishedTable, reasons: list[str]) -> str:
    """Return steering lines for the first column that makes a spectrum; add why others do not."""
    for i, column in enumerate(table.columns, 1):
        said = ""
        for told in GUESSES:
            try:
                found = published_spectrum(table, i, told)
            except InputFileError as error:
                said = str(error)
                continue
            edges = found.spectrum.hist.axes[0].edges
            head = f"{column.name!r}: {len(edges) - 1} bins from {edges[0]:g} to {edges[-1]:g} GeV"
            notes = [f"tried, check it before use; {head}", *found.notes]
            keys: dict[str, Any] = {"file": path.name, "table": number, "column": i}
            keys |= {k: v for k, v in asdict(told).items() if v != getattr(Conventions(), k)}
            lines = [f"# {plain(note, keep='')}" for note in notes]
            lines += ["[spectrum.table]"]
            texts = {key: OPEN if key == "content" else json.dumps(value) for key, value in keys.items()}
            lines += [f"{key} = {text}" for key, text in texts.items() if keys[key] is not None]
            return "\n".join([*lines, QUANTITY])
        reasons.append(said)
    return ""
