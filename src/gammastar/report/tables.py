"""Tables as text and as HTML, from columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.texts import escaped

__all__ = ["Column", "Number", "Table", "cutflow_table", "html_table", "numbers_table", "text_table"]

Column = Sequence[object] | npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table.

    Attributes
    ----------
    columns : mapping of str to sequence
        Heading (with the unit) and entries of each column; columns have equal lengths.
    caption : str

    Raises
    ------
    PhysicsError
        If the lengths differ.
    """

    columns: Mapping[str, Column]
    caption: str = ""

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            msg = f"Table {self.caption!r}: the columns have different lengths {lengths}"
            raise PhysicsError(msg)


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


def _cells(table: Table) -> tuple[list[list[str]], list[bool]]:
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
    texts, numeric = _cells(table)
    names = list(table.columns)
    widths = [max(map(len, [name, *column])) for name, column in zip(names, texts, strict=True)]
    lines = [
        "  ".join(name.ljust(width) for name, width in zip(names, widths, strict=True)).rstrip(),
        "  ".join("-" * width for width in widths),
    ]
    for row in zip(*texts, strict=True):
        cells = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([table.caption, *lines] if table.caption else lines)


def html_table(table: Table) -> str:
    """Return a table as an HTML element; all text is escaped.

    Examples
    --------
    >>> "a&lt;b" in html_table(Table({"a<b": [1]}))
    True
    """
    texts, numeric = _cells(table)
    head = "".join(
        f'<th scope="col" class="n">{escaped(name)}</th>'
        if number
        else f'<th scope="col">{escaped(name)}</th>'
        for name, number in zip(table.columns, numeric, strict=True)
    )
    rows = []
    for row in zip(*texts, strict=True):
        cells = "".join(
            f'<td class="n">{escaped(cell)}</td>' if number else f"<td>{escaped(cell)}</td>"
            for cell, number in zip(row, numeric, strict=True)
        )
        rows.append(f"<tr>{cells}</tr>")
    caption = f"<caption>{escaped(table.caption)}</caption>" if table.caption else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def cutflow_table(
    cuts: Sequence[str],
    weights: npt.ArrayLike,
    *,
    counts_of: Sequence[str] | None = None,
    extra: Mapping[str, Column] | None = None,
    caption: str = "Cut flow",
) -> Table:
    """Return the table of a cut flow with its efficiencies.

    Parameters
    ----------
    cuts : sequence of str
        What was asked for, in order; the first is the input.
    weights : array_like, shape (n,)
        What is left after each cut.
    counts_of : sequence of str, length n, optional
        What is counted, e.g. "event", "lepton", "pair": efficiencies start anew where it changes.
    extra : mapping of heading to column, optional
        Further columns, e.g. the pairs by charge.
    caption : str

    Returns
    -------
    Table

    Raises
    ------
    PhysicsError
        If the lengths differ or a cut leaves more than it was given.
    """
    left = np.asarray(weights, dtype=np.float64)
    kinds = ["event"] * len(cuts) if counts_of is None else list(counts_of)
    if left.shape != (len(cuts),) or len(kinds) != len(cuts):
        msg = f"cutflow_table: {len(cuts)} cuts, weights of shape {left.shape}, {len(kinds)} kinds"
        raise PhysicsError(msg)
    relative, total = np.full(len(cuts), np.nan), np.full(len(cuts), np.nan)
    first = 0
    for i, kind in enumerate(kinds):
        if i == 0 or kind != kinds[i - 1]:
            first = i
        elif left[i] > left[i - 1]:
            msg = f"cutflow_table: {cuts[i]!r} leaves {left[i]}, more than the {left[i - 1]} before it"
            raise PhysicsError(msg)
        elif left[i - 1] > 0:
            relative[i] = left[i] / left[i - 1]
        if left[first] > 0:
            total[i] = left[i] / left[first]
    columns: dict[str, Column] = {"cut": list(cuts)}
    if counts_of is not None:
        columns["counts"] = kinds
    columns |= {"left": left, "of previous [%]": 100 * relative, "of first [%]": 100 * total}
    return Table(columns | dict(extra or {}), caption)


@dataclass(frozen=True, slots=True)
class Number:
    """A result: a value with its uncertainty, its unit and how it was obtained.

    Attributes
    ----------
    quantity : str
    value : float
    sigma : float or None
        Standard deviation.
    unit, method : str
    """

    quantity: str
    value: float
    sigma: float | None = None
    unit: str = ""
    method: str = ""

    def __str__(self) -> str:
        """Return the value rounded at the second digit of its uncertainty.

        Examples
        --------
        >>> str(Number("rate", 0.0012345, 0.000056))
        '(1.234 ± 0.056)×10⁻³'
        >>> str(Number("pairs", 1234.0, 35.0))
        '1234 ± 35'
        """
        if self.sigma is None or not np.isfinite(self.sigma) or not self.sigma > 0:
            return _entry(self.value)
        power = int(np.floor(np.log10(max(abs(self.value), self.sigma))))
        power = 0 if -2 <= power <= 4 else power
        value, sigma = self.value / 10.0**power, self.sigma / 10.0**power
        digits = max(0, 1 - int(np.floor(np.log10(sigma))))
        text = f"{value:.{digits}f} ± {sigma:.{digits}f}".replace("-", "−")
        return text if power == 0 else f"({text})×10{str(power).translate(_RAISED)}"


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def numbers_table(numbers: Sequence[Number], *, caption: str = "Numbers") -> Table:
    """Return the table of results with their uncertainties and methods.

    Examples
    --------
    >>> numbers_table([Number("pairs", 1234.0, 35.0)]).columns["value"]
    ['1234 ± 35']
    """
    columns = {
        "quantity": [number.quantity for number in numbers],
        "value": [str(number) for number in numbers],
        "unit": [number.unit for number in numbers],
        "method": [number.method for number in numbers],
    }
    return Table(columns, caption)
