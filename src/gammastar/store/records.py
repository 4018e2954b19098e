"""Spectra, histograms and tables as files."""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from hist import Hist

from gammastar.core.errors import InputFileError, PhysicsError, StoreError, require
from gammastar.core.files import atomic, cell, regular_file, text_of
from gammastar.core.records import MASS, Exposure, FloatArray, PairHists, Spectrum, filled, variable
from gammastar.spectrum import mass_histogram
from gammastar.store.manifest import digest, read_json, write_json

COLUMNS = ("low", "high", "entries")


def read_histogram(path: Path, name: str | None = None) -> tuple[FloatArray, FloatArray]:
    r"""Return edges, shape (bins + 1,) [GeV], and entries, shape (bins,), of a histogram."""
    try:
        edges, counts = _root(path, name) if path.suffix == ".root" else _csv(path)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputFileError(f"{path}: cannot be read as a spectrum ({why})") from error
    good = len(counts) > 0 and bool(np.all(np.isfinite(counts)) & np.all(np.diff(edges) > 0))
    if not good:
        raise InputFileError(f"{path}: needs rising bin edges and finite entries; it has {len(counts)} bins")
    return edges, counts


def _csv(path: Path) -> tuple[FloatArray, FloatArray]:
    rows = [row for row in text_of(path).splitlines() if row and not row.startswith("#")]
    header = [cell.strip() for cell in rows[0].split(",")] if rows else []
    if not set(COLUMNS) <= set(header):
        raise InputFileError(f"{path}: the header {header} lacks one of the columns {list(COLUMNS)}")
    try:
        table = np.array([[float(cell) for cell in row.split(",")] for row in rows[1:]]).reshape(
            -1, len(header)
        )
    except ValueError as error:
        raise InputFileError(f"{path}: not a table of numbers ({error})") from error
    low, high, entries = (table[:, header.index(key)] for key in COLUMNS)
    if not np.allclose(low[1:], high[:-1], rtol=1e-9):
        first = int(np.argmax(~np.isclose(low[1:], high[:-1], rtol=1e-9)))
        raise InputFileError(
            f"{path}: the bin that ends at {high[first]:g} is followed by one from {low[first + 1]:g}"
        )
    return np.append(low, high[-1:]), entries


def _root(path: Path, name: str | None) -> tuple[FloatArray, FloatArray]:
    import uproot

    from gammastar.read.files import reading

    with reading(path), uproot.open(regular_file(path)) as file:
        kinds: dict[str, Any] = file.classnames(cycle=False)
        there = sorted(key for key, kind in kinds.items() if kind.startswith("TH1"))
        wanted = name or (there[0] if len(there) == 1 else "")
        if wanted not in there:
            raise InputFileError(
                f"{path}: histogram {wanted!r} is not there; it has {there}; write FILE.root:NAME"
            )
        counts, edges = file[wanted].to_numpy()
    return np.asarray(edges, dtype=np.float64), np.asarray(counts, dtype=np.float64)


def write_spectrum(path: Path, spectrum: Spectrum) -> None:
    """Write a spectrum as JSON in the UHI layout with its covariance, named sources, exposure and domain.

    ``hist.Hist(json.load(stream))`` opens the file; it holds no entries below or above the axes.
    """
    hist = spectrum.hist
    no_flow = {"underflow": False, "overflow": False, "circular": False}
    content = {
        "uhi_schema": 1,
        "axes": [
            {"type": "variable", "edges": axis.edges.tolist(), **no_flow, "metadata": {"name": axis.name}}
            for axis in hist.axes
        ],
        "storage": {
            "type": "weighted",
            "values": hist.values().tolist(),
            "variances": np.asarray(hist.variances()).tolist(),
        },
        "metadata": {
            "quantity": spectrum.quantity,
            "exposure": None if spectrum.exposure is None else asdict(spectrum.exposure),
        },
        "covariance": spectrum.cov.tolist(),
        "domain": spectrum.domain.astype(int).tolist(),
        "sources": {name: shift.tolist() for name, shift in spectrum.shifts.items()},
    }
    write_json(path, content, indent=None)


def digest_of(spectrum: Spectrum) -> str:
    """Return the digest of what a spectrum says: contents, covariance, domain and named sources."""
    return digest(spectrum.values, spectrum.cov, spectrum.domain, dict(spectrum.shifts))


def read_spectrum(path: Path) -> Spectrum:
    """Read what `write_spectrum` wrote."""
    content = read_json(path)
    try:
        axes = tuple(variable(axis["metadata"]["name"], axis["edges"]) for axis in content["axes"])
        storage, metadata = content["storage"], content["metadata"]
        exposure = metadata["exposure"]
        return Spectrum(
            hist=filled(axes, np.asarray(storage["values"]), np.asarray(storage["variances"])),
            cov=np.asarray(content["covariance"], dtype=np.float64),
            quantity=metadata["quantity"],
            exposure=None if exposure is None else Exposure(**exposure),
            domain=np.asarray(content["domain"], dtype=bool),
            shifts={
                name: np.asarray(row, dtype=np.float64) for name, row in content.get("sources", {}).items()
            },
        )
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, PhysicsError) as error:
        raise StoreError(f"{path}: is not a spectrum ({error})") from error


@contextlib.contextmanager
def root_file(path: Path, **options: Any) -> Iterator[Any]:
    """Open a ROOT file for writing; it appears under its name when the block ends without an error."""
    import uproot

    now = dt.datetime.now()
    said = f"{path}: this machine's clock says {now:%Y-%m-%d}, ROOT files hold dates of 1995 to 2058; set it"
    require(1995 <= now.year < 2059, said, StoreError)
    with atomic(path) as temporary, uproot.recreate(temporary, **options) as file:
        yield file


def write_histograms(path: Path, histograms: Mapping[str, Hist[Any]]) -> None:
    """Write histograms as TH1 and TH2 with their variances (three axes are projected onto the first)."""
    with root_file(path) as file:
        for name, hist in histograms.items():
            file[name] = hist if hist.ndim <= 2 else hist.project(hist.axes[0].name)


def write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns of equal length as CSV; names that look like formulae get an apostrophe."""
    lengths = {name: len(values) for name, values in columns.items()}
    require(len(set(lengths.values())) <= 1, f"{path}: columns of different length {lengths}", StoreError)
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(map(cell, columns))
        writer.writerows(map(cell, row) for row in zip(*columns.values(), strict=True))


def write_mass_histograms(folder: Path, hists: PairHists, subtracted: Spectrum) -> None:
    """Write ``pairs.root``: opposite-sign, like-sign and subtracted mass spectra."""
    named = {
        "opposite_sign": hists.os.project(MASS),
        "plus_plus": hists.pp.project(MASS),
        "minus_minus": hists.mm.project(MASS),
        "subtracted": mass_histogram(subtracted),
    }
    write_histograms(folder / "pairs.root", named)


def write_spectrum_files(folder: Path, spectrum: Spectrum, unfolded: Spectrum | None) -> None:
    """Write ``spectrum.json`` (all axes, covariance, domain) and ``spectrum.root`` (projections).

    There is no unfolded spectrum of counts where a published table stands for it.
    """
    write_spectrum(folder / "spectrum.json", spectrum)
    axes = [axis.name for axis in spectrum.hist.axes]
    named = {
        "mass_per_pot": mass_histogram(spectrum),
        "mass_per_pot_measured": mass_histogram(spectrum, "measured"),
    }
    if unfolded is not None:
        named["mass_counts"] = mass_histogram(unfolded)
    projections = {
        f"{MASS}_{name}_per_pot": spectrum.hist.project(MASS, name) for name in axes if name != MASS
    }
    write_histograms(folder / "spectrum.root", named | projections)


def write_reach(path: Path, columns: dict[str, Any]) -> None:
    """Write the rows of a reach as CSV."""
    write_table(path, {name: [_plain(value) for value in values] for name, values in columns.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else f"{value:.6g}"
    return value
