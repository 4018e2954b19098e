"""Tables from columns, and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import MassInterval

MOST = 8  # intervals of mass that a sentence names
Column = Sequence[object] | npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table: columns of equal length under a caption."""

    # Heading (with the unit) and entries of each column; columns have equal lengths
    columns: Mapping[str, Column]
    caption: str = ""

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise PhysicsError(f"Table {self.caption!r}: the columns have different lengths {lengths}")


def _entry(value: object) -> str:
    """Return an entry as text: four digits for numbers, a dash for what is missing."""
    if value is None:
        return "–"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        number = float(value)
        if np.isnan(number):
            return "–"
        # whole numbers of events stay readable; 1e+04 would not be
        return f"{number:.0f}" if 1e3 <= abs(number) < 1e7 else f"{number:.4g}"
    return str(value)


def cells(table: Table) -> tuple[list[list[str]], list[bool]]:
    """Return the columns as text and which of them hold numbers."""
    texts = [[_entry(value) for value in column] for column in table.columns.values()]
    numeric = [
        all(value is None or isinstance(value, (int, float, np.number)) for value in column)
        for column in table.columns.values()
    ]
    return texts, numeric


def text_table(table: Table) -> str:
    """Return a table as aligned text.

    Examples
    --------
    >>> print(text_table(Table({"mass [GeV]": [0.5, 1.0], "island": ["a", "b"]})))
    mass [GeV]  island
    ----------  ------
           0.5  a
             1  b
    """
    texts, numeric = cells(table)
    names = list(table.columns)
    widths = [max(map(len, [name, *column])) for name, column in zip(names, texts, strict=True)]
    lines = [
        "  ".join(name.ljust(width) for name, width in zip(names, widths, strict=True)).rstrip(),
        "  ".join("-" * width for width in widths),
    ]
    for row in zip(*texts, strict=True):
        line = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(line).rstrip())
    return "\n".join([table.caption, *lines] if table.caption else lines)


def masses_reached(intervals: Sequence[MassInterval]) -> str:
    """Return every interval of masses in which anything is reached, with its ends, as words."""
    if not intervals:
        return "nothing is reached"
    named = [
        f"from {_end(i.low, i.low_coupling, i.low_closed)} to {_end(i.high, i.high_coupling, i.high_closed)}"
        for i in intervals[:MOST]
    ]
    more = len(intervals) - MOST
    return "reached " + "; ".join(named) + (f" … and {more} more intervals" if more > 0 else "")


def _end(mass: float, coupling: float, closed: bool) -> str:
    return f"{mass:.3f} GeV ({f'tip at coupling {coupling:.2g}' if closed else 'clipped, the scan ends'})"
