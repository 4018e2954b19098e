"""The record of a published table: axes, columns with their errors, qualifiers, and where it came from."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import InputFileError
from gammastar.core.files import plain, shortened
from gammastar.core.records import FloatArray

MOST_ROWS = 200_000
MOST_SHOWN = 12  # names in a message
MISSING = frozenset({"", "-", "--", "---", "~", "null", "none", "nan", "n/a"})
_ENERGY = {"eV": 1e-9, "keV": 1e-6, "MeV": 1e-3, "GeV": 1.0, "TeV": 1e3}
_UNIT = re.compile(r"(?i)(?<![a-z])(tev|gev|mev|kev|ev)(?![a-z])\)?\s*(?:(?:\^|\*\*)\s*\(?([+-]?\d+)\)?)?")
_LIGHT = re.compile(r"/\s*c(?![a-z])(\s*(\^|\*\*)?\s*\d)?|(?<![a-z])c\s*(\^|\*\*)?\s*[+-]?\d", re.IGNORECASE)
_KNOWN = r"[fpnmu]?b|mub|events|counts|deg|rad|mm|cm|m"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a table came from."""

    path: Path  # File that holds its numbers
    sha256: str  # Of that file
    doi: str = ""  # DOI or arXiv number as the file gives it; "" if it gives none
    comment: str = ""  # What the file says about itself


@dataclass(frozen=True, slots=True, eq=False)
class TableAxis:
    """An independent variable, row by row."""

    # As in the header
    name: str
    unit: str
    # Edges of each bin in `unit`; both the same for a point, infinite where a bin is open, nan for a text,
    # (n,)
    low: FloatArray
    high: FloatArray
    value: FloatArray  # The published place inside the bin, its centre without one, (n,)
    text: tuple[str, ...] = ()  # What stands there if that is no number; empty for numbers

    @property
    def points(self) -> bool:
        """Whether some row is a point and no bin."""
        return bool((self.low == self.high).any())


@dataclass(frozen=True, slots=True, eq=False)
class TableError:
    """One named error of a column: by how much it moves, shape (n,) each, with signs; nan if not given."""

    label: str
    minus: FloatArray
    plus: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A dependent variable."""

    # As in the header
    name: str
    unit: str
    values: FloatArray  # nan where nothing is given, (n,)
    errors: tuple[TableError, ...] = ()
    # Where the value is an upper limit, as ``< 3``, (n,)
    limits: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    qualifiers: Mapping[str, str] = field(default_factory=dict)  # E.g. ``{"SQRT(S) [GeV]": "200"}``.


@dataclass(frozen=True, slots=True, eq=False)
class PublishedTable:
    """A table as it was published, in the units of its header."""

    name: str
    description: str
    axes: tuple[TableAxis, ...]
    columns: tuple[Column, ...]
    origin: Origin
    # Of this table in its record: the table of its name with ", covariance" behind it
    covariance: PublishedTable | None = None

    def __post_init__(self) -> None:
        n = len(self)
        if n > MOST_ROWS:
            raise refused(self, f"has {n} rows; at most {MOST_ROWS} are read")
        sizes = [(axis.name, len(axis.low)) for axis in self.axes]
        sizes += [(error.label, len(error.plus)) for column in self.columns for error in column.errors]
        for name, rows in [*sizes, *((column.name, len(column.values)) for column in self.columns)]:
            if rows != n:
                raise refused(self, f"{name!r} has {rows} rows, the first column {n}: is it cut off?")

    def __len__(self) -> int:
        return len(self.columns[0].values) if self.columns else 0

    @property
    def where(self) -> str:
        """File and table, for messages."""
        return f"{self.origin.path}, table {shortened(plain(self.name), 80)!r}"

    def column(self, which: str | int | None = None) -> Column:
        """Return a column by its name or its number from 1; the only one without."""
        return self.columns[chosen(which, [c.name for c in self.columns], f"{self.where}: column")]

    def bin_name(self, row: int) -> str:
        """Return how a row is called in messages: its number and where it lies."""
        places = []
        for axis in self.axes:
            if axis.text:
                place = axis.text[row]
            elif axis.low[row] == axis.high[row]:
                place = f"{axis.low[row]:g}"
            else:
                place = f"{axis.low[row]:g} to {axis.high[row]:g}"
            places.append(f"{axis.name} {place} {axis.unit}".strip())
        return plain(f"bin {row + 1} ({', '.join(places)})")


def one_column(
    name: str,
    title: str,
    axes: Sequence[TableAxis],
    content: tuple[str, FloatArray, Sequence[TableError]],
    origin: Origin,
) -> PublishedTable:
    """Return the table of one column, from its header, values and errors; errors of zero are none."""
    header, values, errors = content
    nonzero = tuple(e for e in errors if np.any(e.minus) or np.any(e.plus))
    column = Column(*split_unit(header), values, nonzero, np.zeros(len(values), dtype=np.bool_))
    return PublishedTable(name, title, tuple(axes), (column,), origin)


def refused(table: PublishedTable, text: str) -> InputFileError:
    """Return the error that names file and table."""
    return InputFileError(f"{table.where}: {text}")


def chosen(which: str | int | None, names: Sequence[str], what: str) -> int:
    """Return the place of a name, or of a number from 1, among names; of the only one for None."""
    listed = ", ".join(f"{i} {plain(name)!r}" for i, name in enumerate(names[:MOST_SHOWN], 1))
    listed += f" … and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    if which is None or which == "":
        if len(names) == 1:
            return 0
        raise InputFileError(f"{what}: say which by name or number; there are {listed or 'none'}")
    if isinstance(which, int):
        if 1 <= which <= len(names):
            return which - 1
        raise InputFileError(f"{what} {which}: there are {listed or 'none'}")
    same = [i for i, name in enumerate(names) if name == which] or [
        i for i, name in enumerate(names) if _same(name) == _same(which)
    ]
    if len(same) == 1:
        return same[0]
    if same:
        raise InputFileError(f"{what} {which!r}: {len(same)} have this name; give the number: {listed}")
    near = difflib.get_close_matches(which, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {listed or 'none'}"
    raise InputFileError(f"{what} {which!r} is not there; {hint}")


def _same(name: str) -> str:
    return " ".join(name.casefold().split())


def number(text: object) -> tuple[float, bool]:
    """Return a number, and whether it is an upper limit; nan where a table gives none."""
    said = str(text).strip().replace("\u2212", "-")
    if said.casefold() in MISSING:
        return float("nan"), False
    limit = said.startswith("<")
    if "_" in said:  # Python would take 1_0 for ten
        raise ValueError(f"{shortened(said, 40)!r} is no number")
    value = float(said[1:] if limit else said)
    if not np.isfinite(value):
        raise ValueError(f"{shortened(said, 40)!r} is not finite")
    return value, limit


def split_unit(header: str) -> tuple[str, str]:
    r"""Return name and unit of a header: ``name [unit]``, ``name (unit)`` or ``name_unit``."""
    text = header.strip()
    found = re.fullmatch(r"(.+?)\s*\[([^\[\]]*)\]", text)
    if found:
        return found[1].strip(), found[2].strip()
    found = re.fullmatch(r"(.+?)\s+\(([^()]*(?:\([^()]*\)[^()]*)*)\)", text)
    if found and (energy_power(found[2])[1] or re.fullmatch(_KNOWN, found[2].strip())):
        return found[1].strip(), found[2].strip()
    found = re.fullmatch(rf"(?i)(.+?)_({'|'.join(_ENERGY)}|{_KNOWN})", text)
    return (found[1], found[2]) if found else (text, "")


def energy_power(unit: str) -> tuple[float, int]:
    r"""Return the size of a unit in powers of GeV, and that power; (1, 0) where no energy is in it."""
    text = _LIGHT.sub("", re.sub(r"[${}\\]", "", unit))
    scale, total = 1.0, 0
    sizes = {name.casefold(): size for name, size in _ENERGY.items()}
    for found in _UNIT.finditer(text):
        power = int(found[2] or 1) * (-1 if "/" in text[: found.start()] else 1)
        scale *= sizes[found[1].casefold()] ** power
        total += power
    return float(f"{scale:.12g}"), total
