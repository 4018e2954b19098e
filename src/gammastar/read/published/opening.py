"""Open a file or record of published tables, whatever its form, and say what is in it."""

from __future__ import annotations

import contextlib
import gzip
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from gammastar.core.documents import opened, shortened, text_of
from gammastar.core.errors import GammastarError, InputFileError
from gammastar.core.files import is_file
from gammastar.read.files import reading, sha256
from gammastar.read.published import histograms, yoda_text
from gammastar.read.published.delimited import read_csv
from gammastar.read.published.hepdata_yaml import SUBMISSION, documents, listed, read_yaml
from gammastar.read.published.table import Origin, PublishedTable, chosen

MOST_BYTES = 64 << 20
SUFFIXES = (".yaml", ".yml", ".json", ".csv", ".txt", ".dat", ".yoda", ".gz")
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
    """Return the names of the tables of a file or record, in their order.

    Raises
    ------
    InputFileError
        As `hepdata`.
    """
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
    """Return who reads each table of a file or record, by name."""
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
        found = histograms.uhi_content(text)
        if found:
            return {
                name: (lambda name=name, one=one: histograms.read_uhi(name, one, origin))  # type: ignore[misc]
                for name, one in found.items()
            }
    content = documents(path, text)
    if len(content) != 1:
        msg = f"{path}: holds {len(content)} documents; one table has one, a record its {SUBMISSION}"
        raise InputFileError(msg)
    table = read_yaml(path.stem, content[0], origin)
    return {path.stem: lambda: table}


def _yoda(path: Path, text: str, origin: Origin) -> Readers:
    found = yoda_text.objects(path, text)
    if not found:
        raise InputFileError(f"{path}: holds no YODA object")
    return {
        name: (lambda one=one: yoda_text.read_yoda(one, origin))  # type: ignore[misc]
        for name, one in found.items()
    }


def _root(path: Path) -> Readers:
    origin = Origin(path, sha256(path))
    with reading(path), histograms.opened(path) as file:
        names = list(histograms.root_names(file))
    if not names:
        raise InputFileError(f"{path}: holds no histogram and no graph")

    def read(name: str) -> PublishedTable:
        with reading(path), histograms.opened(path) as file:
            return histograms.read_histogram(file, name, origin)

    return {name: (lambda name=name: read(name)) for name in names}  # type: ignore[misc]
