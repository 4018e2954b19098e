"""What is in a file of published tables, and the steering lines that would use one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gammastar.core.documents import plain, shortened
from gammastar.core.errors import InputFileError
from gammastar.read.published.opening import hepdata, table_names
from gammastar.read.published.spectra import Conventions, beam_energies, published_spectrum
from gammastar.read.published.table import Column, PublishedTable, TableAxis

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


@dataclass(frozen=True, slots=True)
class TableListing:
    """What was found in a file.

    Attributes
    ----------
    listing : str
        Tables, axes, columns.
    proposal : str
        Lines of a steering file for the first table that makes a mass spectrum, "" if none does.
    reasons : tuple of str
        Why tables make none.
    """

    listing: str
    proposal: str
    reasons: tuple[str, ...]


def describe_tables(path: str | Path) -> TableListing:
    """Return the tables of a file or record, and steering lines for the first that is a mass spectrum.

    Raises
    ------
    InputFileError
        If the file cannot be read.
    """
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
        lines += _listed(k, table)
        if not proposal:
            proposal = _proposed(Path(path), k if len(names) > 1 else None, table, reasons)
    return TableListing("\n".join(lines), proposal, tuple(reasons))


def _listed(k: int, table: PublishedTable) -> Iterator[str]:
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
    known = column.values[np.isfinite(column.values)]
    ends = f"{known.min():.4g} to {known.max():.4g}" if len(known) else "no numbers"
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
