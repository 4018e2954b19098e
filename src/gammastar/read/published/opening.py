"""Open a file or record of published tables, whatever its form; say what is in it and how to use it."""

from __future__ import annotations

import contextlib
import gzip
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from gammastar.core.errors import GammastarError, InputFileError
from gammastar.core.files import is_file, opened, plain, shortened, text_of
from gammastar.read.files import reading, sha256
from gammastar.read.published import histograms
from gammastar.read.published.spectra import Conventions, beam_energies, published_spectrum
from gammastar.read.published.table import (
    SUBMISSION,
    Column,
    Origin,
    PublishedTable,
    TableAxis,
    chosen,
    documents,
    listed,
    read_csv,
    read_yaml,
)

MOST_BYTES = 64 << 20
SUFFIXES = (".yaml", ".yml", ".json", ".csv", ".txt", ".dat", ".yoda", ".gz")
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
        with its source in lines of ``#``; YODA text (``.yoda``, ``.yoda.gz``); ROOT histograms and graphs;
        histograms in the UHI layout (``.json``).
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

    Of ROOT files those with histograms or graphs and without any tree.
    """
    place = Path(path)
    if place.is_dir() or place.suffix.lower() != ".root":
        return (place / SUBMISSION).is_file() or (is_file(place) and place.suffix.lower() in SUFFIXES)
    with contextlib.suppress(GammastarError), reading(place), histograms.opened(place) as file:
        kinds = file.classnames(cycle=False).values()
        return bool(histograms.root_names(file)) and not any(
            k.startswith(("TTree", "ROOT::RNTuple")) for k in kinds
        )
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
    if path.suffix.lower() == ".h5":
        raise InputFileError(f"{path}: YODA in HDF5 is not read; write it as text with `yodaconv` of YODA")
    text = _text(path)
    origin = Origin(path, sha256(path))
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    start = text[:4096].lstrip()
    if suffix == ".yoda" or start.startswith("BEGIN YODA"):
        return _yoda(path, text, origin)
    if suffix.lower() in {".yaml", ".yml", ".json"} or start.startswith(("dependent_variables", "{")):
        return _yaml(path, text, origin)
    table = read_csv(path, text, origin.sha256)
    return {table.name: lambda: table}


def _text(path: Path) -> str:
    if path.suffix != ".gz":
        return text_of(path, MOST_BYTES)
    with opened(path) as packed, gzip.open(packed) as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"holds more than {MOST_BYTES} bytes once it is unpacked")
    return content.decode("utf-8")


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


def _yaml(path: Path, text: str, origin: Origin) -> Readers:
    """Return the reader of one file of data, or those of histograms in the UHI layout."""
    if path.suffix == ".json" and '"axes"' in text:
        by_name = histograms.uhi_content(text)
        if by_name:
            return {
                name: (lambda name=name, one=one: histograms.read_uhi(name, one, origin))  # type: ignore[misc]
                for name, one in by_name.items()
            }
    content = documents(path, text)
    if len(content) != 1:
        msg = f"{path}: holds {len(content)} documents; one table has one, a record its {SUBMISSION}"
        raise InputFileError(msg)
    table = read_yaml(path.stem, content[0], origin)
    return {path.stem: lambda: table}


def _yoda(path: Path, text: str, origin: Origin) -> Readers:
    items = histograms.objects(path, text)
    if not items:
        raise InputFileError(f"{path}: holds no YODA object")
    return {
        name: (lambda one=one: histograms.read_yoda(one, origin))  # type: ignore[misc]
        for name, one in items.items()
    }


def _root(path: Path) -> Readers:
    with reading(path), histograms.opened(path) as file:
        names = list(histograms.root_names(file))
    origin = Origin(path, sha256(path))
    if not names:
        raise InputFileError(f"{path}: holds no histogram and no graph")

    def read(name: str) -> PublishedTable:
        with reading(path), histograms.opened(path) as file:
            return histograms.read_histogram(file, name, origin)

    return {name: (lambda name=name: read(name)) for name in names}  # type: ignore[misc]


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
