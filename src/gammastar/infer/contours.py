"""Limits and yields become contours, with their numerical errors, and the masses that they still need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core import constants
from gammastar.core.errors import PhysicsError
from gammastar.core.records import BoolArray, FloatArray, Limit, Reach
from gammastar.infer.coupling_intervals import (
    EMPTY,
    CouplingIntervals,
    Curves,
    from_function,
    from_grid,
    intervals_above,
    mass_ends,
)

Signal: TypeAlias = npt.ArrayLike | Callable[[FloatArray, FloatArray], FloatArray]


def reach(
    mass: npt.ArrayLike,
    coupling: npt.ArrayLike,
    signal: Signal,
    limit: Limit | npt.ArrayLike,
    *,
    expected: npt.ArrayLike | None = None,
    reliable: npt.ArrayLike | None = None,
    threshold: float | None = None,
) -> Reach:
    """Return the couplings at which the signal exceeds its limit, for each mass.

    Parameters
    ----------
    mass : array_like, shape (n,)
        Increasing masses [GeV].
    coupling : array_like, shape (k,)
        Increasing couplings of the scan; 20 per decade locate the edges to 1e-3 of a decade.
    signal : array_like, shape (n, k), or callable
        Expected events, or a function of arrays (mass, coupling) of equal shape that returns them.
    limit : Limit or array_like, shape (n,), (n, k) or ()
        Upper limit on the signal. Of a `Limit` the observed value, or the median while it is masked; its
        expected limits give the bands. A limit per coupling needs a grid of yields: nuisances of the signal
        may change along the coupling.
    expected : array_like, shape (n, 5), (5,) or, with a limit per coupling, (n, k, 5), optional
        Limits at −2 … +2 standard deviations where `limit` is not a `Limit`.
    reliable : array_like of bool, shape (n, k), or of float, shape (n,), optional
        False where the yield rests on energies that no measurement populates, or the coupling where they
        begin. The upper edge stops at the largest reliable coupling of each mass.
    threshold : float, optional
        Mass below which the spectrum was not measured, 2 m_μ for dimuons [GeV]: nothing is claimed below.

    Returns
    -------
    Reach
        One entry per mass and island, in order; nan edges where nothing is reached. `Reach.bands` holds the
        edges for the expected limits.

    Raises
    ------
    PhysicsError
        For scans that do not increase, yields that are negative or not finite, limits that are not positive.

    Notes
    -----
    An island that reaches the first or last mass is clipped there: nothing says where it ends. Elsewhere it
    ends where its largest signal falls to the limit, interpolated in mass (`mass_ends`); `Reach.intervals`
    are all masses at which anything is reached. The edges are roots
    of ln N − ln N_limit in ln g, found after the maximum, so that an island between two couplings of the scan
    is not lost.

    Examples
    --------
    >>> m, g = np.array([0.3, 0.5]), np.geomspace(1e-8, 1e-3, 101)
    >>> peak = np.exp(-(np.log(g / 1e-5) ** 2))
    >>> found = reach(m, g, [10 * peak, 0.1 * peak], 2.3)
    >>> np.log10(found.edges[0] / 1e-5).round(2)
    array([-0.53,  0.53])
    >>> bool(np.isnan(found.edges[1]).all())
    True
    """
    masses, couplings = _increasing("mass", mass), _increasing("coupling", coupling)
    if not isinstance(limit, Limit) and np.ndim(limit) == 2:
        scan = (reliable, threshold)
        return _per_coupling((masses, couplings), signal, np.asarray(limit, np.float64), expected, scan)
    limits, bands = _levels(limit, expected, len(masses))
    curves = _curves(masses, couplings, signal)
    highest = _highest(couplings, reliable, len(masses))
    measured = masses >= (0.0 if threshold is None else threshold)
    curves = curves.up_to(np.where(measured, highest, -np.inf))
    return assembled(
        masses, curves, intervals_above(curves, np.log(limits)), limits, measured=measured, bands=bands
    )


def _per_coupling(
    axes: tuple[FloatArray, FloatArray],
    signal: Signal,
    limit: FloatArray,
    expected: npt.ArrayLike | None,
    scan: tuple[npt.ArrayLike | None, float | None],
) -> Reach:
    """Return the reach where the limit changes along the coupling: islands of signal over limit above one."""
    shape = (len(axes[0]), len(axes[1]))
    levels = None if expected is None else np.asarray(expected, dtype=np.float64)
    if callable(signal) or limit.shape != shape or (levels is not None and levels.shape != (*shape, 5)):
        raise PhysicsError(
            f"reach: a limit per coupling needs yields and limits of shape {shape}, and {(*shape, 5)} bands"
        )
    if not all(np.all(np.isfinite(a) & (a > 0)) for a in (limit, *([] if levels is None else [levels]))):
        raise PhysicsError(
            "reach: limits must be positive and finite; a masked search needs its expected limits"
        )
    values = np.asarray(signal, dtype=np.float64)
    options: dict[str, Any] = {"reliable": scan[0], "threshold": scan[1]}
    found = reach(*axes, values / limit, 1.0, **options)
    row = np.searchsorted(axes[0], found.mass)
    bands = None
    if levels is not None:
        bands = np.full((len(row), 5, 2), np.nan)
        for column in range(5):
            other = reach(*axes, values / levels[:, :, column], 1.0, **options)
            bands[:, column] = _overlapping(found, other, largest=True)
    at = _along(axes[1], limit[row], np.log(found.edges))
    best = np.log(axes[1])[(values / limit)[row].argmax(axis=1)]  # of masses without any point
    peak = best if found.peak is None else np.where(np.isnan(found.peak), best, np.log(found.peak))
    own = _along(axes[1], limit[row], peak[:, None])[:, 0]
    return replace(
        found, signal=found.signal * own, limit=own, bands=bands, peak=np.exp(peak), edge_limits=at
    )


def _along(coupling: FloatArray, limit: FloatArray, where: FloatArray) -> FloatArray:
    """Return limits per entry, (n, k), between couplings: straight in both logarithms, at `where`, (n, m)."""
    grid = np.log(coupling)
    rows = [np.interp(x, grid, np.log(own)) for x, own in zip(where, limit, strict=True)]
    return np.asarray(np.exp(rows), dtype=np.float64)


def _overlapping(found: Reach, other: Reach, *, largest: bool = False) -> FloatArray:
    """Return the edges of the islands of `other` that overlap those of `found` most, (n, 2); nan without any.

    With `largest`, an entry of `found` that reaches nothing takes the largest island at its mass.
    """
    result = np.full((len(found.mass), 2), np.nan)
    for i, mass in enumerate(found.mass):
        rivals = other.edges[(other.mass == mass) & np.isfinite(other.edges[:, 0])]
        if not len(rivals):
            continue
        own = found.edges[i]
        if np.isfinite(own[0]):
            common = np.minimum(own[1], rivals[:, 1]) / np.maximum(own[0], rivals[:, 0])
            if common.max() > 1.0:
                result[i] = rivals[int(np.argmax(common))]
        elif largest:
            result[i] = rivals[np.argmax(rivals[:, 1] / rivals[:, 0])]
    return result


def assembled(
    masses: FloatArray,
    curves: Curves,
    found: CouplingIntervals,
    limits: FloatArray,
    *,
    measured: BoolArray | None = None,
    bands: FloatArray | None = None,
) -> Reach:
    """Return a reach from the islands above the limits, with an empty entry per mass that has none."""
    measured = np.ones(len(masses), dtype=np.bool_) if measured is None else measured
    level = np.log(limits)
    peak, height = curves.peaks(level)
    outer = mass_ends(masses, curves, found, level)
    missing = np.setdiff1d(np.arange(len(masses)), found.row)
    order = np.argsort(np.concatenate([found.row, missing]), kind="stable")
    row = np.concatenate([found.row, missing])[order]
    blank = np.full((len(missing), 2), np.nan)
    edges = np.exp(np.concatenate([found.edges, blank])[order])
    where = np.concatenate([found.peak[:, 0], peak[missing]])[order]
    largest = np.concatenate([found.peak[:, 1], (height + level)[missing]])[order]
    inside = np.concatenate([found.inside, np.ones_like(blank, dtype=np.bool_)])[order]
    sides = _sides(row, inside, np.isfinite(edges[:, 0]), measured)
    return Reach(
        mass=masses[row],
        edges=edges,
        signal=np.where(largest > EMPTY, np.exp(largest), 0.0),
        limit=limits[row],
        closed=np.array([side == "" for side in sides], dtype=np.bool_),
        clipped_side=sides,
        intervals=outer.intervals,
        ends=np.concatenate([outer.ends, np.full((len(missing), 2, 2), np.nan)])[order],
        bands=None if bands is None else _bands(curves, bands, row, where),
        peak=np.exp(where),
        edge_limits=np.where(np.isfinite(edges), limits[row][:, None], np.nan),
    )


def _increasing(name: str, values: npt.ArrayLike) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    few = 1 if name == "mass" else 4
    good = array.ndim == 1 and len(array) >= few and np.isfinite(array).all()
    if not (good and array[0] > 0 and (np.diff(array) > 0).all()):
        raise PhysicsError(f"reach: {name} must be a list of at least {few} positive, increasing numbers")
    return array


def _levels(
    limit: Limit | npt.ArrayLike, expected: npt.ArrayLike | None, n: int
) -> tuple[FloatArray, FloatArray | None]:
    """Return the limit per mass and the expected limits, shape (n, 5)."""
    if isinstance(limit, Limit):
        value: npt.ArrayLike = limit.observed if np.isfinite(limit.observed) else limit.expected[2]
        expected = limit.expected if expected is None else expected
    else:
        value = limit
    try:
        limits = np.broadcast_to(np.asarray(value, dtype=np.float64), (n,))
        bands = None if expected is None else np.broadcast_to(np.asarray(expected, dtype=np.float64), (n, 5))
    except ValueError as error:
        raise PhysicsError(
            f"reach: the limits do not fit {n} masses (expected limits: five per mass): {error}"
        ) from error
    for array in (limits, bands):
        if array is not None and not np.all(np.isfinite(array) & (array > 0)):
            raise PhysicsError(
                "reach: limits must be positive and finite; a masked search needs its expected limits"
            )
    return limits, bands


def _curves(mass: FloatArray, coupling: FloatArray, signal: Signal) -> Curves:
    if callable(signal):
        return from_function(mass, coupling, signal)
    grid = np.asarray(signal, dtype=np.float64)
    if grid.shape != (len(mass), len(coupling)):
        raise PhysicsError(f"reach: signal has shape {grid.shape}, expected {(len(mass), len(coupling))}")
    if not np.all(np.isfinite(grid) & (grid >= 0)):
        row, column = np.argwhere(~(np.isfinite(grid) & (grid >= 0)))[0]
        raise PhysicsError(
            f"reach: signal {grid[row, column]!r} at {mass[row]:g} GeV and coupling {coupling[column]:g} "
            "must be finite and not negative"
        )
    return from_grid(coupling, grid)


def _highest(coupling: FloatArray, reliable: npt.ArrayLike | None, n: int) -> FloatArray:
    """Return the largest reliable ln g of each mass."""
    if reliable is None:
        return np.full(n, np.inf)
    if np.shape(reliable) == (n,) and np.asarray(reliable).dtype.kind == "f":
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(np.asarray(reliable, dtype=np.float64)))
    flags: BoolArray = np.asarray(reliable, dtype=np.bool_)
    if flags.shape != (n, len(coupling)):
        raise PhysicsError(f"reach: reliable has shape {flags.shape}, expected {(n, len(coupling))}")
    last = len(coupling) - 1 - np.argmax(flags[:, ::-1], axis=1)
    return np.where(flags.any(axis=1), np.log(coupling)[last], -np.inf)


def _sides(
    row: npt.NDArray[np.int64], inside: BoolArray, reached: BoolArray, measured: BoolArray
) -> tuple[str, ...]:
    """Return where each entry is clipped: in coupling if so, else at the ends in mass."""
    ends = np.flatnonzero(measured)
    first, last = (ends[0], ends[-1]) if ends.size else (-1, -1)
    conditions = [
        ~reached,
        ~inside[:, 0] & ~inside[:, 1],
        ~inside[:, 0],
        ~inside[:, 1],
        row == first,
        row == last,
    ]
    names = ["", "lower, upper", "lower", "upper", "lower mass", "upper mass"]
    return tuple(np.select(conditions, names, default="").tolist())


def _bands(curves: Curves, expected: FloatArray, row: npt.NDArray[np.int64], where: FloatArray) -> FloatArray:
    """Return the edges for each expected limit of the island that holds the peak of each entry."""
    result = np.full((len(row), 5, 2), np.nan)
    for column in range(5):
        found: CouplingIntervals = intervals_above(curves, np.log(expected[:, column]))
        inside = (found.edges[:, 0] <= where[:, None]) & (where[:, None] <= found.edges[:, 1])
        match = inside & (found.row == row[:, None])
        entry, island = np.nonzero(match)
        result[entry, column] = np.exp(found.edges[island])
    return result


Grid: TypeAlias = tuple[Any, Any, FloatArray, Any]


def with_errors(
    found: Reach,
    mass: npt.ArrayLike,
    coupling: npt.ArrayLike,
    signal: npt.ArrayLike,
    limit: npt.ArrayLike,
    *,
    signal_error: npt.ArrayLike = 0.0,
    limit_error: float = 0.0,
    method: str = "",
    **scan: Any,
) -> Reach:
    """Return a reach with the numerical errors of its edges and the method of its limit.

    An error of the yield or of the limit moves the level; the edges are found anew one standard deviation up
    and down, so that the flattening towards the tip is in them. Where the weaker signal does not reach the
    limit at all, the edge may be anywhere up to the peak: the whole half-width counts. Interpolation: half
    the change when every other coupling of the scan is left out, the largest of an entry and its neighbours,
    because the change of a single one may vanish by chance. The interpolation is of third order, so that this
    is an upper estimate on average.
    """
    values = np.asarray(signal, dtype=np.float64)
    relative = np.divide(
        np.broadcast_to(np.asarray(signal_error, dtype=np.float64), values.shape),
        values,
        out=np.zeros_like(values),
        where=values > 0,
    )
    if not (
        np.all(np.isfinite(relative) & (relative >= 0)) and np.isfinite(limit_error) and limit_error >= 0
    ):
        raise PhysicsError("with_errors: errors of yields and limits must be finite and not negative")
    errors = np.stack(
        [
            _moved(found, (mass, coupling, values, limit), np.minimum(relative, 1.0), scan),
            _moved(found, (mass, coupling, values, limit), np.full_like(values, limit_error), scan),
            _coarser(found, (mass, coupling, values, limit), scan),
        ],
        axis=2,
    )
    for k, side in enumerate(("lower", "upper")):  # the end of a scan is no edge of a contour
        errors[[side in entry.split(", ") for entry in found.clipped_side], k] = np.nan
    names = tuple(method if np.isfinite(edge[0]) else "" for edge in found.edges)
    return replace(found, errors=errors, method=names)


def _moved(found: Reach, grid: Grid, relative: FloatArray, scan: Mapping[str, Any]) -> FloatArray:
    """Return half the distance of the edges at a signal one standard deviation up and down [decades]."""
    if not relative.any():
        return np.where(np.isfinite(found.edges), 0.0, np.nan)
    mass, coupling, values, limit = grid
    up, down = (
        _overlapping(found, reach(mass, coupling, values * factor, limit, **scan))
        for factor in (np.exp(relative), np.exp(-relative))
    )
    middle = np.exp(np.log(found.edges).mean(axis=1))[:, None]
    down = np.where(np.isfinite(down), down, middle)
    up = np.where(np.isfinite(up), up, found.edges)
    shifts = np.abs(np.log10(np.stack([up, down]) / found.edges))
    lost = ~np.isfinite(found.edges)
    return np.where(lost, np.nan, np.maximum(0.5 * shifts.sum(axis=0), 0.0))


def _coarser(found: Reach, grid: Grid, scan: Mapping[str, Any]) -> FloatArray:
    """Return half the shift of the edges when every other coupling is left out [decades]."""
    mass, coupling, values, limit = grid
    points = np.asarray(coupling, dtype=np.float64)
    if len(points) < 8:
        return np.full(found.edges.shape, np.nan)
    kept = np.arange(len(points) % 2 == 0, len(points), 2)  # the last coupling stays
    options = dict(scan)
    if options.get("reliable") is not None and np.ndim(options["reliable"]) == 2:
        options["reliable"] = np.asarray(options["reliable"])[:, kept]
    levels = np.asarray(limit, dtype=np.float64)
    levels = levels[:, kept] if levels.ndim == 2 else levels
    other = _overlapping(found, reach(mass, points[kept], values[:, kept], levels, **options))
    shift = np.abs(np.log10(other / found.edges)) / 2.0
    spacing = float(np.log10(points[1] / points[0]))
    reached = np.isfinite(found.edges)
    for k, side in enumerate(("lower", "upper")):
        reached[[side in entry.split(", ") for entry in found.clipped_side], k] = False
    shift = np.where(reached, shift, 0.0)
    shift = np.where(np.isfinite(shift), np.minimum(shift, spacing), np.where(reached, spacing, 0.0))
    padded = np.pad(shift, ((1, 1), (0, 0)))
    shift = np.maximum.reduce([padded[:-2], padded[1:-1], padded[2:]])
    return np.where(np.isfinite(found.edges), shift, np.nan)


NARROW = 2e-3  # relative gaps that are not divided any further


def more_masses(
    found: Reach,
    *,
    tolerance: float = 0.01,
    special: Sequence[tuple[float, float]] | None = None,
    most: int = 20,
) -> FloatArray:
    """Return further masses, the most needed first.

    A gap is divided where an island begins or ends in it, and where an edge misses the straight line between
    its neighbours in mass by more than 1.2 times the tolerance; edges that the scan clips do not count.
    """
    if not tolerance > 0:
        raise PhysicsError(f"more_masses: tolerance = {tolerance!r} decades must be positive")
    mass = np.unique(found.mass)
    inside = np.array(
        [[s not in side.split(", ") for s in ("lower", "upper")] for side in found.clipped_side]
    )
    reached = np.isfinite(found.edges[:, 0])
    rows = [np.flatnonzero((found.mass == m) & reached) for m in mass]
    log_mass, gap = np.log(mass), np.diff(np.log(mass))
    score = np.array([float(len(a) != len(b)) for a, b in pairwise(rows)])
    for i in range(1, len(mass) - 1):
        near = [rows[k] for k in (i - 1, i, i + 1)]
        if not len(near[0]) == len(near[1]) == len(near[2]) > 0:
            continue
        part = gap[i - 1] / (gap[i - 1] + gap[i])
        before, here, after = (np.log10(found.edges[row]) for row in near)
        free = inside[near[0]] & inside[near[1]] & inside[near[2]]
        off = np.abs(here - (1 - part) * before - part * after)[free]
        if off.size and off.max() > 1.2 * tolerance:
            score[i - 1 : i + 1] = np.maximum(score[i - 1 : i + 1], min(float(off.max()), 0.9))
    score[gap < NARROW] = 0.0
    order = np.argsort(-score, kind="stable")
    middle = np.exp(0.5 * (log_mass[order] + log_mass[order + 1]))[score[order] > 0]
    if special is None:
        special = [(constants.mass(code), constants.width(code)) for code in (113, 223, 333)]
    centres = [m for m, width in special if _passed(mass, m, width)]
    return np.asarray([*centres, *middle][:most], dtype=np.float64)


def _passed(mass: FloatArray, centre: float, width: float) -> bool:
    """Return whether a grid that covers a resonance has no point near its centre."""
    return bool(mass[0] < centre < mass[-1] and np.abs(mass - centre).min() > 0.5 * width)
