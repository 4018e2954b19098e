"""From a published table to a mass spectrum with its sources, or to like-sign histograms."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import M_PROTON
from gammastar.core.errors import InputFileError, PortabilityError
from gammastar.core.records import MASS, FloatArray, Quantity, Spectrum, filled, variable
from gammastar.core.sources import Source, Sources
from gammastar.read.published.table import (
    Column,
    Origin,
    PublishedTable,
    TableAxis,
    TableError,
    energy_power,
    refused,
)

OTHERS = ("N", "m dN/dm", "dN/dlnm", "dN/dm2")
NEGLIGIBLE = 1e-9  # of a variance
SAME_EDGE = 1e-9  # relative: edges and elements of a covariance that differ by less are equal
SAME = 1e-6  # of a bin: edges of neighbours that differ by less are one
BEAM = 0.01  # relative: beam energies that differ by more are two
_INDEPENDENT = re.compile(r"(?i)^\s*(stat|uncor|error|err|tot|unc\b|mc stat)|uncorr")
_FRACTION = re.compile(r"d[23]?[^/]*?/\(?(d.*)")
_VARIABLES = re.compile(r"(?<!\()d(ln|log)?\(?(m|pt|qt|p|q|y|eta|phi|cos|xf?|omega|t)")
_TIMES_MASS = re.compile(r"(?:^|[^a-z])m(?:ee|mumu|mm|ll|inv)?[*·×(]*$")
_NO_MASS = re.compile(
    r"[pq]t|mt(?:ee|mumu|ll|\W|$)|transverse|.*(?:rapidity|momentum)|(?:y|eta|e|xf?|cos.*|.*energy)$"
)
_SQUARE = re.compile(r"m[a-z()+-]*(?:\*\*)?2$|.*squared")
_QUALIFIER = re.compile(r"(?i)sqrt\W*s(\W*_?\W*nn)?(?![a-z])")
_SAID = re.compile(r"(?i)sqrt\W{0,3}s(?:_?\W{0,3}nn)?\W{0,6}=\W{0,3}([\d.]+)\W{0,3}(tev|gev|mev)")


@dataclass(frozen=True, slots=True)
class Conventions:
    """How the numbers of a table are to be taken, where the table leaves it open."""

    # Numbers per bin, or per unit of mass; by default what units and name of the column say
    content: Literal["counts", "density"] | None = None
    # What the numbers are, where names leave it open or mean something else
    observable: Literal["", "N", "dN/dm", "m dN/dm", "dN/dlnm", "dN/dm2"] = ""
    mass_unit: str = ""  # For an axis whose header gives none
    # Of the bins, in the unit of the axis, for a table that gives points
    edges: tuple[float, ...] | None = None
    mass: tuple[float, float] | None = None  # Only bins inside [GeV]
    # Factor on all numbers, and its relative error: one source, "scale of the table"
    scale: float = 1.0
    scale_sigma: float = 0.0
    # Labels of errors that move all bins together, or each on its own. By default labels that begin with
    # stat, uncor, error or total do not, all others do: the pattern of YODA's estimates.
    correlated: tuple[str, ...] = ()
    uncorrelated: tuple[str, ...] = ()
    # For a column without errors: relative to the value, bin by bin, or the root of the number
    error: float | Literal["poisson"] | None = None
    negative: Literal["refuse", "keep"] = "refuse"  # What to do with negative numbers


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredTable:
    """A spectrum from a table."""

    # Contents of mass bins [GeV]; its covariance is the sum of `sources`, its shifts the correlated ones
    spectrum: Spectrum
    sources: Sources
    notes: tuple[str, ...]  # Table and column, then what was assumed, each a sentence without its full stop
    origin: Origin


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """A column as conventions take it: rows in order of mass, edges [GeV], factor from values to contents."""

    table: PublishedTable
    column: Column
    told: Conventions
    rows: npt.NDArray[np.int64]
    edges: FloatArray
    values: FloatArray
    factor: FloatArray
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        negative = (self.values < 0) & (self.told.negative == "refuse")
        for bad, text in (
            (np.isnan(self.values), "has no value"),
            (self.column.limits[self.rows], "is an upper limit, no measured number"),
            (negative, "is negative; negative = 'keep' takes it as it is"),
        ):
            if bad.any():
                raise self.refused(text, int(np.argmax(bad)))

    @property
    def axes(self) -> tuple[Any, ...]:
        return (variable(MASS, self.edges.tolist()),)

    def refused(self, text: str, place: int | None = None) -> InputFileError:
        """Return the error that names table, column and, if there is one, the bin."""
        where = "" if place is None else f", {self.table.bin_name(int(self.rows[place]))}"
        return refused(self.table, f"column {self.column.name!r}{where} {text}".replace(" :", ":"))

    def origin(self) -> str:
        origin = self.table.origin
        doi = f", {origin.doi}" if origin.doi else ""
        return (
            f"published table {self.table.name!r}, column {self.column.name!r}{doi}, file {origin.path.name} "
            f"(sha256 {origin.sha256[:12]})"
        )


def published_spectrum(
    table: PublishedTable,
    column: str | int | None = None,
    conventions: Conventions | None = None,
    *,
    quantity: Quantity = "counts",
) -> MeasuredTable:
    """Return the mass spectrum of a table.

    Parameters
    ----------
    table : PublishedTable
        With one axis, the mass.
    column : str or int, optional
        Name or number from 1.
    quantity : {"counts", "per_pot", "per_interaction"}
        What the numbers, times `scale`, count.

    Raises
    ------
    InputFileError
        For an axis that is no energy, overlapping, separate or open bins, missing, negative or limited
        values, a column without errors, or units that do not say what is counted; the message names the bin.

    Examples
    --------
    >>> from gammastar import read
    >>> from gammastar.core.files import data_path
    >>> table = read.hepdata(data_path("published/phenix_2010/fig25.csv"))
    >>> found = read.published_spectrum(table)
    >>> found.sources.names, round(float(found.spectrum.values[0]), 12)
    (('table, stat', 'table, syst'), 3.06e-06)
    """
    read = _reading(table, column, conventions or Conventions())
    contents, told = read.values * read.factor, read.told
    given = None if told.correlated or told.uncorrelated else record_covariance(table, read.column)
    sources, notes = _sources(read) if given is None else _sources_of(read, given)
    cov = sources.total()
    shifts = {part.name: _shift(part.cov) for part in sources.parts if _together(part.cov)}
    for error in read.column.errors:  # a covariance does not know the sign that the table gives
        name = f"table, {error.label}"
        if name in shifts and _symmetric(read, error)[0] @ shifts[name] < 0:
            shifts[name] = -shifts[name]
    inside = np.ones(len(contents), dtype=np.bool_)
    hist = filled(read.axes, contents, np.diag(cov))
    spectrum = Spectrum(hist, cov, quantity, None, inside, shifts=shifts)
    return MeasuredTable(spectrum, sources, (read.origin(), *read.notes, *notes), table.origin)


def _clean(name: str) -> str:
    """Return a name without spaces, TeX and marks of indices and powers, in small letters."""
    return re.sub(r"\\(?:mathrm|rm|text|it)\b|[\\${}\s_^]", "", name).casefold()


def _mass_axis(table: PublishedTable, told: Conventions) -> tuple[TableAxis, float, int]:
    """Return the axis, its unit in GeV or GeV², and that power: 2 for an axis of squared masses."""
    if len(table.axes) != 1:
        names = ", ".join(repr(axis.name) for axis in table.axes) or "none"
        raise refused(table, f"a mass spectrum has one axis; this table has {len(table.axes)} ({names})")
    axis = table.axes[0]
    unit = axis.unit or told.mass_unit
    if axis.text or not len(table):
        raise refused(table, f"axis {axis.name!r} holds no numbers, so no masses")
    scale, power = energy_power(unit)
    if not unit:
        raise refused(table, f"axis {axis.name!r} gives no unit; say mass_unit = 'GeV' or 'MeV'")
    if power not in (1, 2):
        raise refused(table, f"axis {axis.name!r} has the unit {unit!r}, which is no energy; is it a mass?")
    name = _clean(axis.name)
    if not told.observable and (_NO_MASS.match(name) or (power == 2) != bool(_SQUARE.match(name))):
        what = "does not fit its unit" if _SQUARE.match(name) or power == 2 else "is no mass"
        text = f"axis {axis.name!r} [{unit}] {what}; if it is a mass all the same, say what the numbers are: "
        raise refused(table, f"{text}observable = 'dN/dm' (or {', '.join(map(repr, OTHERS))})")
    if told.mass_unit and axis.unit and energy_power(told.mass_unit)[0] != scale:
        raise refused(table, f"mass_unit = {told.mass_unit!r}, but the header of {axis.name!r} says {unit!r}")
    return axis, scale, power


def _reading(table: PublishedTable, name: str | int | None, told: Conventions) -> _Reading:
    """Return a column of a table in order of mass; refuse bins and values that make no spectrum."""
    column = table.column(name)
    axis, unit, power = _mass_axis(table, told)
    low, high, notes = axis.low, axis.high, []
    rows = np.argsort(low, kind="stable")
    if told.edges is not None:
        low, high = _given_edges(table, axis, told.edges)
        rows = np.argsort(low, kind="stable")
        notes.append("bin edges are given by hand")
    elif (low == high).any():
        first = table.bin_name(int(np.argmax(low == high)))
        raise refused(table, f"{first} is a point, not a bin; give edges, {len(table) + 1} of them")
    with np.errstate(invalid="ignore"):
        low, high = ((edges * unit) ** (1 / power) for edges in (low, high))
    if told.mass is not None:
        size = SAME * (high - low)
        inside = (low >= told.mass[0] - size) & (high <= told.mass[1] + size)
        rows = rows[inside[rows]]
        if not rows.size:
            text = f"no bin lies inside {told.mass[0]:g} to {told.mass[1]:g} GeV; the table has "
            raise refused(table, f"{text}{low.min():g} to {high.max():g} GeV")
        if len(rows) < len(table):
            notes.append(f"{len(rows)} of {len(table)} bins are used, those inside the masses asked for")
    low, high = low[rows], high[rows]
    for place in np.flatnonzero(~(np.isfinite(low) & np.isfinite(high))):
        name = table.bin_name(int(rows[place]))
        raise refused(table, f"{name} is open; leave it out with mass = [low, high]")
    for place in np.flatnonzero(~(high > low)):
        raise refused(table, f"{table.bin_name(int(rows[place]))}: its upper edge is not above its lower one")
    gap = (low[1:] - high[:-1]) / np.minimum(high - low, np.inf)[1:]
    for place in np.flatnonzero(np.abs(gap) > SAME):
        names = " and ".join(table.bin_name(int(rows[place + k])) for k in (0, 1))
        what = "overlap" if gap[place] < 0 else "leave a gap between them"
        raise refused(table, f"{names} {what}; take others with mass = [low, high], or give edges")
    edges = np.append(low, high[-1])
    factor, how = _content(table, column, edges, (unit, power), told)
    values, kept = column.values[rows], tuple(note for note in (*notes, how) if note)
    return _Reading(table, column, told, rows, edges, values, factor * told.scale, kept)


def _given_edges(
    table: PublishedTable, axis: TableAxis, edges: Sequence[float]
) -> tuple[FloatArray, FloatArray]:
    bounds = np.asarray(edges, dtype=np.float64)
    if len(bounds) != len(table) + 1:
        raise refused(table, f"{len(bounds)} edges for {len(table)} points; one more than points is needed")
    order = np.argsort(axis.value, kind="stable")
    low, high = np.empty(len(table)), np.empty(len(table))
    low[order], high[order] = bounds[:-1], bounds[1:]
    for place in np.flatnonzero(~((axis.value >= low) & (axis.value <= high))):
        name = table.bin_name(int(place))
        raise refused(table, f"{name} does not lie between its edges {low[place]:g} and {high[place]:g}")
    return low, high


def _observable(table: PublishedTable, column: Column) -> str:
    """Return what a column is by its name, "" if that does not say; refuse what is no mass spectrum."""
    name = _clean(column.name)
    fraction = _FRACTION.search(name)
    found = _VARIABLES.findall(fraction[1]) if fraction else []
    if not fraction or not found:
        return ""
    others = [variable for _, variable in found if not variable.startswith("m")]
    head, what = name[: fraction.start()], f"column {column.name!r} is "
    if others or "pt" in head:
        text = f"{what}a density in {', '.join(others) or 'p_T'} as well: no spectrum in mass alone"
        raise refused(table, f"{text}; of a flat one give observable = 'dN/dm' and scale = the width")
    if _TIMES_MASS.search(head):
        text = f"{what}m times a density, and does not say how it was divided; give observable = 'm dN/dm'"
        raise refused(table, f"{text} (taken at the centre of each bin), or 'dN/dlnm'")
    if found[0][0]:
        return "dN/dlnm"
    squared = re.match(r"d\(?m[a-z()+-]*(?:\*\*)?2(?!\d)", fraction[1])
    return "dN/dm2" if squared else "dN/dm"


def _content(
    table: PublishedTable, column: Column, edges: FloatArray, axis: tuple[float, int], told: Conventions
) -> tuple[FloatArray, str]:
    """Return the factor from numbers to contents of bins, and what it assumes, "" for nothing."""
    unit, power = energy_power(column.unit)
    axis_unit, squared = axis[0] ** (1 / axis[1]), axis[1] == 2
    by_name = "" if told.observable else _observable(table, column)
    if power not in (0, -1) and "dN/dm2" not in (told.observable, by_name) and not (power == -2 and squared):
        raise refused(table, f"column {column.name!r} has unit {column.unit!r}: no spectrum in mass alone")
    given = told.observable or ("N" if told.content == "counts" and power == 0 else "")
    kind = given or by_name or {-1: "dN/dm", -2: "dN/dm2"}.get(power, "")
    kind = kind or ("dN/dm" if told.content == "density" else "")
    if not kind:
        text = f"column {column.name!r} does not say what its numbers are; give content = 'counts' (per bin)"
        raise refused(table, f"{text} or 'density' (per unit of mass)")
    low, high = edges[:-1], edges[1:]
    per, width = {
        "N": (0, np.ones_like(low)),
        "dN/dm": (-1, high - low),
        "dN/dm2": (-2, high**2 - low**2),
        "m dN/dm": (0, 2 * (high - low) / (high + low)),
        "dN/dlnm": (0, np.log(high / np.where(low > 0, low, np.nan))),
    }[kind]
    if told.content == "counts" and kind != "N":
        text = f"content = 'counts', but column {column.name!r} has the unit {column.unit!r}"
        raise refused(table, f"{text}: it is a density")
    if power not in (0, per) or not np.isfinite(width).all():
        raise refused(table, f"column {column.name!r} [{column.unit}] cannot be {kind} in these bins")
    size = unit if power else axis_unit**per
    named = kind in ("N", "dN/dm") and (power or told.content or told.observable or kind == "N")
    how = f"a density per {'GeV' if axis_unit == 1 else 'unit of its axis'}" if kind == "dN/dm" else kind
    note = f"column {column.name!r} is {how} by its name, as its header gives no unit"
    return width * size, "" if named else note


def _sources(read: _Reading) -> tuple[Sources, list[str]]:
    """Return the sources of the contents, and what was assumed of them."""
    told, labels = read.told, [error.label for error in read.column.errors]
    for label in (*told.correlated, *told.uncorrelated):
        if label not in labels:
            raise read.refused(f"has no error {label!r}; it has {', '.join(labels) or 'none'}")
    parts, notes, together, alone = [], [], [], []
    for error in read.column.errors:
        shift, more = _symmetric(read, error)
        notes += more
        name, row = f"table, {error.label}", shift * read.factor
        own = error.label in told.uncorrelated or _INDEPENDENT.search(error.label)
        if error.label in told.correlated or not own:
            together.append(error.label)
            parts.append(Source.shifted(name, "spectrum", row))
        else:
            alone.append(error.label)
            parts.append(Source(name, "spectrum", np.diag(row**2)))
    if not parts:
        if told.error is None:
            raise read.refused("gives no errors; say error = 0.1 (relative, bin by bin) or 'poisson'")
        values = np.abs(read.values)
        size = np.sqrt(values) if told.error == "poisson" else told.error * values
        parts.append(Source("table, assumed error", "spectrum", np.diag((size * read.factor) ** 2)))
        notes.append(f"column {read.column.name!r} gives no errors; taken: {told.error}, bin by bin")
    hows = ((alone, "bin by bin"), (together, "fully correlated between bins"))
    text = "; ".join(f"{', '.join(map(repr, labels))} {how}" for labels, how in hows if labels)
    notes += [f"no covariance is given: {text}"] if text else []
    return Sources(tuple(parts)) + _scale(read), notes


def _scale(read: _Reading) -> Sources:
    if not read.told.scale_sigma:
        return Sources(())
    row = read.told.scale_sigma * read.values * read.factor
    return Sources((Source.shifted("scale of the table", "spectrum", row),))


def _sources_of(read: _Reading, given: FloatArray) -> tuple[Sources, list[str]]:
    """Return the sources of contents whose covariance the record gives.

    Errors that the table calls statistical, uncorrelated or total are those of the covariance; every other
    label moves all bins together and is a part of it.
    """
    cov = given[np.ix_(read.rows, read.rows)] * np.outer(read.factor, read.factor)
    parts, notes = [], []
    for error in read.column.errors:
        if not _INDEPENDENT.search(error.label):
            shift, more = _symmetric(read, error)
            notes += more
            parts.append(Source.shifted(f"table, {error.label}", "spectrum", shift * read.factor))
    rest = cov - sum((part.cov for part in parts), np.zeros_like(cov))
    left, whole = np.diag(rest), np.diag(cov)
    for place in np.flatnonzero(left < -NEGLIGIBLE * whole):
        text = ": the errors that move all bins together are larger than the covariance of the record; name "
        raise read.refused(f"{text}those in it with correlated = [...]", int(place))
    if (left > NEGLIGIBLE * whole).any():
        parts.insert(0, Source("table, stat", "spectrum", rest))
    names = ", ".join(part.name.removeprefix("table, ") for part in parts if part.name != "table, stat")
    notes.append(f"the covariance is that of the record, {names or 'nothing'} in it correlated over all bins")
    return Sources(tuple(parts)) + _scale(read), notes


def _symmetric(read: _Reading, error: TableError) -> tuple[FloatArray, list[str]]:
    """Return one standard deviation with its sign, and what was assumed.

    Half the distance of both ends, (plus − minus)/2; where both move the same way, the larger of them.
    """
    minus, plus = error.minus[read.rows], error.plus[read.rows]
    one = np.isnan(minus) != np.isnan(plus)
    none = np.isnan(minus) & np.isnan(plus)
    if none.any():
        raise read.refused(f"has no error {error.label!r}, as other bins do", int(np.argmax(none)))
    minus, plus = np.where(np.isnan(minus), -plus, minus), np.where(np.isnan(plus), -minus, plus)
    same = minus * plus > 0
    largest = np.where(np.abs(plus) >= np.abs(minus), plus, minus)
    shift = np.where(same, largest, 0.5 * (plus - minus))
    uneven = ~np.isclose(plus, -minus, rtol=1e-9, atol=0.0) & ~same
    cases = (
        (uneven, "asymmetric errors {} are replaced by half the distance of their ends"),
        (same, "both ends of {} move the same way; the larger counts in both directions"),
        (one, "only one side of {} is given; the other is taken as large"),
    )
    return shift, [
        f"{text.format(repr(error.label))} ({int(which.sum())} of {len(read.rows)} bins)"
        for which, text in cases
        if which.any()
    ]


def record_covariance(table: PublishedTable, column: Column) -> FloatArray | None:
    """Return the covariance of a column in its own unit, shape (n, n); None if the record holds none.

    It stands in the table of this name with ", covariance" behind it: two axes with the bins of this one, a
    row for every pair of bins, and a column called "Covariance of" and the name of the column.
    """
    other = table.covariance
    wanted = f"covariance of {column.name}".casefold()
    found = [] if other is None else [one for one in other.columns if one.name.casefold() == wanted]
    if other is None or not found:
        return None
    n = len(table)
    if len(table.axes) != 1 or len(other.axes) != 2 or len(other) != n * n:
        text = (
            f"{len(other.axes)} axes and {len(other)} rows; a table of {n} bins needs 2 axes and {n * n} rows"
        )
        raise refused(other, text)
    (size, power), (squared, twice) = energy_power(column.unit), energy_power(found[0].unit)
    if twice != 2 * power:
        text = f"unit {found[0].unit!r} is not the square of {column.unit!r}"
        raise refused(other, text)
    row, at = (_places(table, other, axis) for axis in other.axes)
    cov = np.full((n, n), np.nan)
    cov[row, at] = found[0].values * squared / size**2
    if not np.isfinite(cov).all():
        i, k = np.argwhere(~np.isfinite(cov))[0]
        raise refused(other, f"nothing stands for {table.bin_name(int(i))} with {table.bin_name(int(k))}")
    scale = np.sqrt(np.clip(np.outer(np.diag(cov), np.diag(cov)), 0.0, None))
    if (np.abs(cov - cov.T) > SAME_EDGE * scale).any() or (np.abs(cov) > (1 + SAME_EDGE) * scale).any():
        raise refused(other, "is no covariance: not symmetric, or larger off its diagonal than on it")
    return np.asarray((cov + cov.T) / 2)


def _places(table: PublishedTable, other: PublishedTable, axis: TableAxis) -> npt.NDArray[np.int64]:
    """Return the bin of the table in which each row of an axis of its covariance lies."""
    own = table.axes[0]
    factor = energy_power(axis.unit)[0] / energy_power(own.unit)[0]
    low, high = axis.low[:, None] * factor, axis.high[:, None] * factor
    same = np.isclose(low, own.low, rtol=SAME_EDGE, atol=0.0) & np.isclose(
        high, own.high, rtol=SAME_EDGE, atol=0.0
    )
    for row in np.flatnonzero(same.sum(axis=1) != 1):
        raise refused(other, f"{other.bin_name(int(row))}: no bin of table {table.name!r} has these edges")
    return np.asarray(same.argmax(axis=1))


def _together(cov: FloatArray) -> bool:
    """Return whether one shift makes this covariance, of several bins."""
    if len(cov) < 2 or not np.any(cov - np.diag(np.diag(cov))):
        return False
    shift = _shift(cov)
    return bool(np.allclose(np.outer(shift, shift), cov, rtol=1e-9, atol=1e-9 * np.diag(cov).max()))


def _shift(cov: FloatArray) -> FloatArray:
    """Return the shift of a source that moves all bins together."""
    k = int(np.argmax(np.diag(cov)))
    return np.asarray(cov[k] / np.sqrt(cov[k, k]), dtype=np.float64)


def beam_energies(table: PublishedTable, column: str | int | None = None) -> Mapping[str, float]:
    """Return the energies that a table states: where it says so -> √s [GeV].

    Qualifiers of one column, or of all, and the description are looked at; a text without ``sqrt(s)`` states
    none.
    """
    found: dict[str, float] = {}
    for one in table.columns if column is None else (table.column(column),):
        for name, value in one.qualifiers.items():
            said = _QUALIFIER.search(name) and re.match(r"\s*([\d.eE+]+)\s*([a-zA-Z]*)", value)
            if said:
                unit = energy_power(said[2] or name.rpartition("[")[2])
                with contextlib.suppress(ValueError):
                    found[f"qualifier {name!r} of {one.name!r}"] = float(said[1]) * unit[0]
    for where, text in (("description", table.description), ("comment", table.origin.comment)):
        match = _SAID.search(text.replace("\\", ""))
        if match:
            found[where] = float(match[1]) * energy_power(match[2])[0]
    return found


def check_beam(
    table: PublishedTable, beam_energy: float, highest: float = 0.0, column: str | int | None = None
) -> tuple[str, ...]:
    """Compare the energy of a table with that of a beam on a nucleon at rest; return what was assumed."""
    root_s = float(np.sqrt(2 * M_PROTON**2 + 2 * M_PROTON * beam_energy))
    stated = beam_energies(table, column)
    for where, value in stated.items():
        if abs(value / root_s - 1) > BEAM:
            asked = (value**2 - 2 * M_PROTON**2) / (2 * M_PROTON)
            raise PortabilityError(
                f"{table.where}: {where} says sqrt(s) = {value:g} GeV; a beam of {beam_energy:g} GeV has "
                f"{root_s:.4g} GeV. A spectrum holds at its own energy: give beam_energy = {asked:.4g}"
            )
    if highest > root_s - 2 * M_PROTON:
        raise PortabilityError(
            f"{table.where}: masses up to {highest:g} GeV, more than a beam of {beam_energy:g} GeV makes "
            f"(sqrt(s) = {root_s:.4g} GeV); is {table.axes[0].unit or 'the unit'!r} the unit of its axis?"
        )
    if stated:
        return ()
    return (
        f"the table does not state its energy in a way that is read; {beam_energy:g} GeV is taken as asked",
    )
