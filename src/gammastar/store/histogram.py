"""A measured spectrum from a file: bin edges and entries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import uproot

from gammastar.core.errors import InputFileError
from gammastar.core.records import FloatArray

__all__ = ["read_histogram"]

COLUMNS = ("low", "high", "entries")


def read_histogram(path: Path, name: str | None = None) -> tuple[FloatArray, FloatArray]:
    r"""Return edges, shape (bins + 1,) [GeV], and entries, shape (bins,), of a histogram.

    Parameters
    ----------
    path : Path
        ``.csv`` with a header that holds the columns low, high and entries (lines with ``#`` are notes), or
        ``.root``.
    name : str, optional
        Of the histogram in the ROOT file; the only one without.

    Raises
    ------
    InputFileError
        If the file cannot be read, the histogram is missing, or its bins do not join.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "mass.csv"
    >>> _ = path.write_text("low,high,entries\n0.2,0.3,12\n0.3,0.5,7\n")
    >>> [x.tolist() for x in read_histogram(path)]
    [[0.2, 0.3, 0.5], [12.0, 7.0]]
    """
    try:
        edges, counts = _root(path, name) if path.suffix == ".root" else _csv(path)
    except OSError as error:
        msg = f"{path}: cannot be read as a spectrum ({error.strerror or error})"
        raise InputFileError(msg) from error
    good = len(counts) > 0 and bool(np.all(np.isfinite(counts)) & np.all(np.diff(edges) > 0))
    if not good:
        msg = f"{path}: needs rising bin edges and finite entries; it has {len(counts)} bins"
        raise InputFileError(msg)
    return edges, counts


def _csv(path: Path) -> tuple[FloatArray, FloatArray]:
    rows = [row for row in path.read_text(encoding="utf-8").splitlines() if row and not row.startswith("#")]
    header = [cell.strip() for cell in rows[0].split(",")] if rows else []
    if not set(COLUMNS) <= set(header):
        msg = f"{path}: the header {header} lacks one of the columns {list(COLUMNS)}"
        raise InputFileError(msg)
    try:
        table = np.array([[float(cell) for cell in row.split(",")] for row in rows[1:]]).reshape(
            -1, len(header)
        )
    except ValueError as error:
        msg = f"{path}: not a table of numbers ({error})"
        raise InputFileError(msg) from error
    low, high, entries = (table[:, header.index(key)] for key in COLUMNS)
    if not np.allclose(low[1:], high[:-1], rtol=1e-9):
        first = int(np.argmax(~np.isclose(low[1:], high[:-1], rtol=1e-9)))
        msg = f"{path}: the bin that ends at {high[first]:g} is followed by one from {low[first + 1]:g}"
        raise InputFileError(msg)
    return np.append(low, high[-1:]), entries


def _root(path: Path, name: str | None) -> tuple[FloatArray, FloatArray]:
    with uproot.open(path) as file:
        kinds: dict[str, Any] = file.classnames(cycle=False)
        there = sorted(key for key, kind in kinds.items() if kind.startswith("TH1"))
        wanted = name or (there[0] if len(there) == 1 else "")
        if wanted not in there:
            msg = f"{path}: histogram {wanted!r} is not there; it has {there}; write FILE.root:NAME"
            raise InputFileError(msg)
        counts, edges = file[wanted].to_numpy()
    return np.asarray(edges, dtype=np.float64), np.asarray(counts, dtype=np.float64)
