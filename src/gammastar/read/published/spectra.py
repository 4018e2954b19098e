"""From a published table to a mass spectrum with its sources, or to like-sign histograms."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from gammastar.core.axes import MASS, filled, variable
from gammastar.core.constants import M_PROTON
from gammastar.core.errors import InputFileError, PortabilityError
from gammastar.core.records import FloatArray, PairHists, Quantity, Spectrum
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

NEGLIGIBLE = 1e-9  # of a variance
SAME_EDGE = 1e-9  # relative: edges and elements of a covariance that differ by less are equal
SAME = 1e-6  # of a bin: edges of neighbours that differ by less are one
BEAM = 0.01  # relative: beam energies that differ by more are two
_INDEPENDENT = re.compile(r"(?i)^\s*(stat|uncor|error|err|tot|unc\b|mc stat)|uncorr")
_DIFFERENTIAL = re.compile(r"(?i)d[^/]*/\s*\(?\s*d\W*m")
_QUALIFIER = re.compile(r"(?i)sqrt\W*s(\W*_?\W*nn)?(?![a-z])")
_SAID = re.compile(r"(?i)sqrt\W{0,3}s(?:_?\W{0,3}nn)?\W{0,6}=\W{0,3}([\d.]+)\W{0,3}(tev|gev|mev)")


@dataclass(frozen=True, slots=True)
class Conventions:
    """How the numbers of a table are to be taken, where the table leaves it open."""

    # Numbers per bin, or per unit of mass; by default what units and name of the column say
    content: Literal["counts", "density"] | None = None
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
class _Bins:
    """Rows in order of mass, edges [GeV] and the factor to contents of bins."""

    rows: npt.NDArray[np.int64]
    edges: FloatArray
    factor: FloatArray
    notes: tuple[str, ...]


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
    told = conventions or Conventions()
    chosen = table.column(column)
    bins = _binned(table, chosen, told)
    values = _values(table, chosen, bins.rows, told)
    contents = values * bins.factor
    known = None if told.correlated or told.uncorrelated else record_covariance(table, chosen)
    if known is None:
        sources, notes = _sources(table, chosen, values, bins, told)
    else:
        within = known[np.ix_(bins.rows, bins.rows)] * np.outer(bins.factor, bins.factor)
        sources, notes = _sources_of(table, chosen, bins, within)
        sources += _scale(values, bins, told)
    cov = sources.total()
    shifts = {part.name: _shift(part.cov) for part in sources.parts if _together(part.cov)}
    for error in chosen.errors:  # a covariance does not know the sign that the table gives
        name = f"table, {error.label}"
        if name in shifts and _symmetric(table, chosen, error, bins.rows)[0] @ shifts[name] < 0:
            shifts[name] = -shifts[name]
    hist = filled((variable(MASS, bins.edges.tolist()),), contents, np.diag(cov))
    inside = np.ones(len(contents), dtype=np.bool_)
    spectrum = Spectrum(hist, cov, quantity, None, inside, shifts=shifts)
    return MeasuredTable(spectrum, sources, (_origin(table, chosen), *bins.notes, *notes), table.origin)


def published_pairs(
    table: PublishedTable,
    *,
    unlike: str | int,
    like: str | int | None = None,
    charges: tuple[str | int, str | int] | None = None,
    conventions: Conventions | None = None,
) -> tuple[PairHists, tuple[str, ...]]:
    """Return histograms of opposite-sign, ++ and -- pairs of a table, and what was assumed."""
    told = conventions or Conventions()
    if (like is None) == (charges is None):
        msg = f"{table.where}: give `like`, the pairs of both charges, or `charges`, the columns of ++ and --"
        raise InputFileError(msg)
    names = (unlike, *(charges or (like,)))
    notes: list[str] = []
    hists = []
    for name in names:
        one = table.column(name)
        bins = _binned(table, one, told)
        values = _values(table, one, bins.rows, told)
        if one.errors or told.error is not None:
            sources, more = _sources(table, one, values, bins, told)
            variance = np.diag(sources.total())
            notes += [f"column {one.name!r}: {note}" for note in more]
        else:
            variance = np.abs(values) * bins.factor**2
            notes.append(f"column {one.name!r} gives no errors: those of Poisson numbers are taken")
        share = 1.0 if name == unlike or charges else 0.5
        axes = (variable(MASS, bins.edges.tolist()),)
        hists.append(filled(axes, share * values * bins.factor, share * variance))
    if charges is None:
        notes.append("like-sign pairs are shared equally between ++ and --, as the table gives their sum")
        hists.append(hists[-1].copy())
    return PairHists(hists[0], hists[1], hists[2]), (_origin(table, table.column(unlike)), *notes)


def _origin(table: PublishedTable, column: Column) -> str:
    doi = f", {table.origin.doi}" if table.origin.doi else ""
    return (
        f"published table {table.name!r}, column {column.name!r}{doi}, file {table.origin.path.name} "
        f"(sha256 {table.origin.sha256[:12]})"
    )


def _mass_axis(table: PublishedTable, told: Conventions) -> tuple[TableAxis, float]:
    """Return the axis and what its unit is in GeV."""
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
    if power != 1:
        raise refused(table, f"axis {axis.name!r} has the unit {unit!r}, which is no energy; is it a mass?")
    if told.mass_unit and axis.unit and energy_power(told.mass_unit)[0] != scale:
        raise refused(table, f"mass_unit = {told.mass_unit!r}, but the header of {axis.name!r} says {unit!r}")
    return axis, scale


def _binned(table: PublishedTable, column: Column, told: Conventions) -> _Bins:
    axis, unit = _mass_axis(table, told)
    low, high, notes = axis.low, axis.high, []
    rows = np.argsort(low, kind="stable")
    if told.edges is not None:
        low, high = _given_edges(table, axis, told.edges)
        rows = np.argsort(low, kind="stable")
        notes.append("bin edges are given by hand")
    elif (low == high).any():
        first = table.bin_name(int(np.argmax(low == high)))
        raise refused(table, f"{first} is a point, not a bin; give edges, {len(table) + 1} of them")
    if told.mass is not None:
        size = SAME * (high - low) * unit
        inside = (low * unit >= told.mass[0] - size) & (high * unit <= told.mass[1] + size)
        rows = rows[inside[rows]]
        if not rows.size:
            text = f"no bin lies inside {told.mass[0]:g} to {told.mass[1]:g} GeV; the table has "
            raise refused(table, f"{text}{low.min() * unit:g} to {high.max() * unit:g} GeV")
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
    edges = np.append(low, high[-1]) * unit
    factor, how = _content(table, column, np.diff(edges), unit, told)
    return _Bins(rows, edges, factor * told.scale, tuple(note for note in (*notes, how) if note))


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


def _content(
    table: PublishedTable, column: Column, width: FloatArray, axis_unit: float, told: Conventions
) -> tuple[FloatArray, str]:
    """Return the factor from numbers to contents of bins, and what it assumes, "" for nothing."""
    unit, power = energy_power(column.unit)
    if power == -1:
        if told.content == "counts":
            text = f"content = 'counts', but column {column.name!r} has the unit {column.unit!r}"
            raise refused(table, f"{text}: it is a density")
        return width * unit, ""
    if power != 0:
        raise refused(table, f"column {column.name!r} has unit {column.unit!r}: no spectrum in mass alone")
    if told.content == "density" or (told.content is None and _DIFFERENTIAL.search(column.name)):
        how = f"column {column.name!r} is a density per {'GeV' if axis_unit == 1 else 'unit of its axis'}"
        return width / axis_unit, "" if told.content else f"{how} by its name, as its header gives no unit"
    if told.content is None:
        text = f"column {column.name!r} does not say what its numbers are; give content = 'counts' (per bin)"
        raise refused(table, f"{text} or 'density' (per unit of mass)")
    return np.ones_like(width), ""


def _values(
    table: PublishedTable, column: Column, rows: npt.NDArray[np.int64], told: Conventions
) -> FloatArray:
    values = column.values[rows]
    for bad, text in (
        (np.isnan(values), "has no value"),
        (column.limits[rows], "is an upper limit, no measured number"),
        ((values < 0) & (told.negative == "refuse"), "is negative; negative = 'keep' takes it as it is"),
    ):
        if bad.any():
            place = int(rows[np.argmax(bad)])
            raise refused(table, f"column {column.name!r}, {table.bin_name(place)} {text}")
    return values


def _sources(
    table: PublishedTable, column: Column, values: FloatArray, bins: _Bins, told: Conventions
) -> tuple[Sources, list[str]]:
    """Return the sources of the contents, and what was assumed of them."""
    known = [error.label for error in column.errors]
    for label in (*told.correlated, *told.uncorrelated):
        if label not in known:
            text = f"column {column.name!r} has no error {label!r}; it has {', '.join(known) or 'none'}"
            raise refused(table, text)
    parts, notes, together, alone = [], [], [], []
    for error in column.errors:
        shift, more = _symmetric(table, column, error, bins.rows)
        notes += more
        name, row = f"table, {error.label}", shift * bins.factor
        if error.label in told.correlated or not (
            error.label in told.uncorrelated or _INDEPENDENT.search(error.label)
        ):
            together.append(error.label)
            parts.append(Source.shifted(name, "spectrum", row))
        else:
            alone.append(error.label)
            parts.append(Source(name, "spectrum", np.diag(row**2)))
    if not parts:
        parts.append(_assumed(table, column, values, bins, told))
        notes.append(f"column {column.name!r} gives no errors; taken: {told.error}, bin by bin")
    if together or alone:
        notes.append(
            "no covariance is given: "
            + "; ".join(
                f"{', '.join(map(repr, labels))} {how}"
                for labels, how in ((alone, "bin by bin"), (together, "fully correlated between bins"))
                if labels
            )
        )
    return Sources(tuple(parts)) + _scale(values, bins, told), notes


def _scale(values: FloatArray, bins: _Bins, told: Conventions) -> Sources:
    if not told.scale_sigma:
        return Sources(())
    row = told.scale_sigma * values * bins.factor
    return Sources((Source.shifted("scale of the table", "spectrum", row),))


def _sources_of(
    table: PublishedTable, column: Column, bins: _Bins, cov: FloatArray
) -> tuple[Sources, list[str]]:
    """Return the sources of contents whose covariance the record gives.

    Errors that the table calls statistical, uncorrelated or total are those of the covariance; every other
    label moves all bins together and is a part of it.
    """
    parts, notes = [], []
    for error in column.errors:
        if not _INDEPENDENT.search(error.label):
            shift, more = _symmetric(table, column, error, bins.rows)
            notes += more
            parts.append(Source.shifted(f"table, {error.label}", "spectrum", shift * bins.factor))
    rest = cov - sum((part.cov for part in parts), np.zeros_like(cov))
    left, whole = np.diag(rest), np.diag(cov)
    for place in np.flatnonzero(left < -NEGLIGIBLE * whole):
        name = table.bin_name(int(bins.rows[place]))
        text = f"column {column.name!r}, {name}: the errors that move all bins together are larger than the"
        raise refused(table, f"{text} covariance of the record; name those in it with correlated = [...]")
    if (left > NEGLIGIBLE * whole).any():
        parts.insert(0, Source("table, stat", "spectrum", rest))
    names = ", ".join(part.name.removeprefix("table, ") for part in parts if part.name != "table, stat")
    notes.append(f"the covariance is that of the record, {names or 'nothing'} in it correlated over all bins")
    return Sources(tuple(parts)), notes


def _assumed(
    table: PublishedTable, column: Column, values: FloatArray, bins: _Bins, told: Conventions
) -> Source:
    if told.error is None:
        text = f"column {column.name!r} gives no errors; say error = 0.1 (relative, bin by bin) or 'poisson'"
        raise refused(table, text)
    size = np.sqrt(np.abs(values)) if told.error == "poisson" else told.error * np.abs(values)
    return Source("table, assumed error", "spectrum", np.diag((size * bins.factor) ** 2))


def _symmetric(
    table: PublishedTable, column: Column, error: TableError, rows: npt.NDArray[np.int64]
) -> tuple[FloatArray, list[str]]:
    """Return one standard deviation with its sign, and what was assumed.

    Notes
    -----
    Half the distance of both ends, (plus − minus)/2; where both move the same way, the larger of them.
    """
    minus, plus = error.minus[rows], error.plus[rows]
    one = np.isnan(minus) != np.isnan(plus)
    none = np.isnan(minus) & np.isnan(plus)
    if none.any():
        place = table.bin_name(int(rows[np.argmax(none)]))
        text = f"column {column.name!r}, {place} has no error {error.label!r}, as other bins do"
        raise refused(table, text)
    minus, plus = np.where(np.isnan(minus), -plus, minus), np.where(np.isnan(plus), -minus, plus)
    same = minus * plus > 0
    largest = np.where(np.abs(plus) >= np.abs(minus), plus, minus)
    shift = np.where(same, largest, 0.5 * (plus - minus))
    notes = []
    uneven = ~np.isclose(plus, -minus, rtol=1e-9, atol=0.0) & ~same
    for which, text in (
        (uneven, "asymmetric errors {} are replaced by half the distance of their ends"),
        (same, "both ends of {} move the same way; the larger counts in both directions"),
        (one, "only one side of {} is given; the other is taken as large"),
    ):
        if which.any():
            notes.append(f"{text.format(repr(error.label))} ({int(which.sum())} of {len(rows)} bins)")
    return shift, notes


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
