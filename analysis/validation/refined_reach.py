"""The reach from few evaluations of the yield: masses are added where a contour bends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Reach
from gammastar.infer.contours import assembled
from gammastar.infer.coupling_intervals import (
    EMPTY,
    FLAT,
    CouplingIntervals,
    Curves,
    IntArray,
    intervals_above,
    with_maxima,
)

__all__ = ["RefinedReach", "refined_reach"]

STEP = 1e-5  # relative distance of points at either side of a jump
CLOSE, PEAK = 2e-3, 3e-3  # precision of edges in ln g and of maxima in ln N
NARROW = 2e-4  # gaps in ln m that are not divided any further

Function = Callable[[FloatArray, FloatArray], FloatArray]


@dataclass(frozen=True, slots=True, eq=False)
class RefinedReach:
    """A reach with what it cost.

    Attributes
    ----------
    reach : Reach
    evaluations : int
        Points (mass, coupling) at which the yield was asked for.
    misfit : float
        Largest distance [decades] of an edge from the straight line between its neighbours in mass; a contour
        drawn through the points is wrong by less than it, by about a quarter where masses are even.
    """

    reach: Reach
    evaluations: int
    misfit: float


def refined_reach(
    signal: Function,
    limit: float | Callable[[FloatArray], FloatArray],
    *,
    mass_range: tuple[float, float],
    coupling_range: tuple[float, float],
    special: Sequence[float | tuple[float, float]] = (),
    n_mass: int = 12,
    tolerance: float = 0.01,
    budget: int = 1000,
) -> RefinedReach:
    """Return the couplings at which a signal exceeds its limit, with masses where they are needed.

    Parameters
    ----------
    signal : callable
        (mass, coupling) -> expected events, arrays of equal length.
    limit : float or callable
        Limit on the events, or a function of an array of masses.
    mass_range, coupling_range : (float, float)
        Scanned ranges, mass in GeV.
    special : sequence of float or (float, float)
        Masses at which the yield jumps (thresholds: points at either side enter the first scan), and
        resonances as mass and width (their centre and a width to either side enter).
    n_mass : int
        Masses of the first scan, evenly spaced in the logarithm.
    tolerance : float
        Of the contour drawn through the points [decades]. Masses are added where an edge misses the line
        between its neighbours by more than 1.2 times this, and between the last one and the tip.
    budget : int
        Evaluations after which no mass is added any more.

    Returns
    -------
    RefinedReach

    Raises
    ------
    PhysicsError
        For ranges that do not increase.

    Notes
    -----
    The first scan has 14 couplings per mass, so that a second island of at least a seventh of the range is
    seen; added masses look around the edges of their neighbours only, and scan anew where these differ in
    the number of islands.
    """
    for name, (low, high) in (("mass_range", mass_range), ("coupling_range", coupling_range)):
        if not 0 < low < high < np.inf:
            msg = f"refined_reach: {name} = {(low, high)} must be positive and increase"
            raise PhysicsError(msg)
    scan = _Scan(signal, limit, (float(np.log(coupling_range[0])), float(np.log(coupling_range[1]))))
    first = np.unique(np.r_[np.geomspace(*mass_range, n_mass), _near(special, mass_range)])
    scan.add(first, [None] * len(first))
    misfit = np.inf
    while True:
        wanted, misfit = _wanted(scan, tolerance)
        room = max(budget - scan.evaluations, 0) // 20
        if not wanted.size or room == 0:
            break
        chosen = wanted[:room]
        scan.add(chosen, [_around(scan, m) for m in chosen])
    return RefinedReach(_reach(scan), scan.evaluations, float(misfit))


def _near(special: Sequence[float | tuple[float, float]], bounds: tuple[float, float]) -> list[float]:
    found: list[float] = []
    for feature in special:
        if isinstance(feature, tuple):
            mass, width = feature
            found += [mass - width, mass, mass + width]
        else:
            found += [feature * (1.0 - STEP), feature * (1.0 + STEP)]
    return [mass for mass in found if bounds[0] < mass < bounds[1]]


class _Scan:
    """Points, edges and peaks of the masses looked at so far, in order of mass."""

    def __init__(
        self,
        signal: Function,
        limit: float | Callable[[FloatArray], FloatArray],
        bounds: tuple[float, float],
    ) -> None:
        self.signal, self.limit, self.bounds = signal, limit, bounds
        self.evaluations = 0
        self.mass = np.empty(0)
        self.curves: list[tuple[FloatArray, FloatArray]] = []
        self.edges: list[FloatArray] = []  # per mass, shape (islands, 2), ln g
        self.inside: list[FloatArray] = []
        self.peaks: list[FloatArray] = []

    def level(self, mass: FloatArray) -> FloatArray:
        value = self.limit(mass) if callable(self.limit) else self.limit
        return np.asarray(np.log(np.broadcast_to(np.asarray(value, np.float64), mass.shape)), np.float64)

    def near_tip(self, mass: float) -> bool:
        """Return whether an island ends between the neighbours of a mass."""
        right = int(np.searchsorted(self.mass, mass))
        if not 0 < right < len(self.mass):
            return False
        return len(self.edges[right - 1]) != len(self.edges[right])

    def add(self, masses: FloatArray, starts: Sequence[FloatArray | None]) -> None:
        """Look at new masses; a start is a list of ln g to begin with, None the common scan."""
        common = np.linspace(*self.bounds, 14)
        grids = [common if start is None else start for start in starts[: len(masses)]]
        precision = np.array([PEAK if start is None else np.inf for start in starts[: len(masses)]])
        precision[[self.near_tip(mass) for mass in masses.tolist()]] = FLAT
        row = np.repeat(np.arange(len(masses)), [len(grid) for grid in grids])
        x = np.concatenate(grids)

        def at(rows: IntArray, where: FloatArray) -> FloatArray:
            self.evaluations += len(where)
            values = np.asarray(self.signal(masses[rows], np.exp(where)), dtype=np.float64)
            if not np.all(np.isfinite(values) & (values >= 0)):
                msg = "refined_reach: the signal must be finite and not negative"
                raise PhysicsError(msg)
            return np.maximum(np.log(np.maximum(values, 1e-300)), EMPTY)

        curves = with_maxima(row, x, at(row, x), at, flat=precision)
        found = intervals_above(curves, self.level(masses), close=CLOSE)
        order = np.argsort(np.r_[self.mass, masses], kind="stable")
        self.mass = np.r_[self.mass, masses][order]
        for i in range(len(masses)):
            self.curves.append(_of_row(curves, i))
            self.edges.append(found.edges[found.row == i])
            self.inside.append(found.inside[found.row == i].astype(np.float64))
            self.peaks.append(found.peak[found.row == i])
        for name in ("curves", "edges", "inside", "peaks"):
            values = getattr(self, name)
            setattr(self, name, [values[k] for k in order])


def _of_row(curves: Curves, row: int) -> tuple[FloatArray, FloatArray]:
    here = curves.row == row
    return curves.x[here], curves.y[here]


def _wanted(scan: _Scan, tolerance: float) -> tuple[FloatArray, float]:
    """Return masses that are needed, worst first, and the largest misfit [decades] where edges compare."""
    log_mass = np.log(scan.mass)
    count = np.array([len(edges) for edges in scan.edges])
    gap = np.diff(log_mass)
    score, where = np.zeros(len(gap)), 0.5 * (log_mass[1:] + log_mass[:-1])
    height = np.array([np.max(y) for _, y in scan.curves]) - scan.level(scan.mass)
    for i in np.flatnonzero(np.diff(count)).tolist():  # an island begins or ends in this gap
        score[i] = 1.0 if gap[i] > 10 * NARROW else 0.0
        if height[i] * height[i + 1] < 0:  # at its tip: where the largest signal falls to the limit
            part = float(np.clip(height[i] / (height[i] - height[i + 1]), 0.1, 0.9))
            where[i] = log_mass[i] + part * gap[i]
    misfits = [0.0]
    for i in np.flatnonzero(np.diff(count)).tolist():
        miss, inner = _at_tip(scan, log_mass, count, (i, float(where[i])))
        misfits.append(miss)
        if miss > tolerance:
            score[inner] = max(score[inner], miss)
    for i in range(1, len(log_mass) - 1):
        if not count[i - 1] == count[i] == count[i + 1] or count[i] == 0:
            continue
        if min(gap[i - 1], gap[i]) < 3 * STEP:  # across a jump nothing is a straight line
            continue
        part = gap[i - 1] / (gap[i - 1] + gap[i])
        line = (1 - part) * scan.edges[i - 1] + part * scan.edges[i + 1]
        free = (scan.inside[i - 1] * scan.inside[i] * scan.inside[i + 1]).astype(bool)
        off = np.abs(scan.edges[i] - line)[free] / np.log(10.0)
        miss = float(off.max()) if off.size else 0.0
        misfits.append(miss)
        if miss > 1.2 * tolerance:
            wide = 1 if part < 0.5 else 0  # the wider gap first
            score[i - 1 + wide] = max(score[i - 1 + wide], miss)
            score[i - wide] = max(score[i - wide], 0.3 * miss if abs(part - 0.5) > 0.1 else miss)
    score[gap < NARROW] = 0.0
    order = np.argsort(-score, kind="stable")
    order = order[score[order] > 0]
    return np.exp(where[order]), max(misfits)


def _at_tip(
    scan: _Scan, log_mass: FloatArray, count: npt.NDArray[np.int64], tip: tuple[int, float]
) -> tuple[float, int]:
    """Return how far edges bend towards the tip beyond gap i [decades], and the gap before it."""
    i, end = tip
    last, before = (i, i - 1) if count[i] > count[i + 1] else (i + 1, i + 2)
    inner = min(last, before)
    if max(count[i], count[i + 1]) != 1 or not 0 <= before < len(count) or count[before] != 1:
        return 0.0, max(min(inner, len(count) - 2), 0)
    part = (log_mass[last] - log_mass[before]) / (end - log_mass[before])
    middle = scan.peaks[last][0, 0]
    line = (1.0 - part) * scan.edges[before][0] + part * middle
    width = np.abs(scan.edges[last][0] - line)[scan.inside[last][0] > 0]
    # between two points of a square root the chord misses by a third of this or less
    return float(width.max() / np.log(10.0)) / 3.0 if width.size else 0.0, inner


def _around(scan: _Scan, mass: float) -> FloatArray | None:
    """Return where to look at a mass between two with one island each; None for the common scan."""
    right = int(np.searchsorted(scan.mass, mass))
    left = right - 1
    sides = [k for k in (left, right) if len(scan.edges[k]) == 1]
    if len(sides) < 2 and not (sides and len(scan.edges[left]) + len(scan.edges[right]) == 1):
        return None
    if not all(scan.inside[k].all() for k in sides):
        return None
    edges = np.mean([scan.edges[k][0] for k in sides], axis=0)
    peak = float(np.mean([scan.peaks[k][0, 0] for k in sides]))
    slack = np.full(2, 0.1)
    if len(sides) == 2:
        slack += 0.5 * np.abs(scan.edges[right][0] - scan.edges[left][0])
    points = np.r_[edges[0] - slack[0], edges[0] + slack[0], peak, edges[1] - slack[1], edges[1] + slack[1]]
    return np.unique(np.clip(points, *scan.bounds))


def _reach(scan: _Scan) -> Reach:
    row = np.repeat(np.arange(len(scan.mass)), [len(x) for x, _ in scan.curves])
    x = np.concatenate([x for x, _ in scan.curves])
    y = np.concatenate([y for _, y in scan.curves])

    def at(rows: IntArray, where: FloatArray) -> FloatArray:
        return np.array(
            [np.interp(w, *scan.curves[r]) for r, w in zip(rows.tolist(), where.tolist(), strict=True)]
        )

    owner = np.repeat(np.arange(len(scan.mass)), [len(edges) for edges in scan.edges])
    edges, peaks = (np.concatenate(pairs).reshape(-1, 2) for pairs in (scan.edges, scan.peaks))
    inside = np.concatenate(scan.inside).reshape(-1, 2) > 0
    curves = Curves(row, x, y, at, len(scan.mass))
    found = CouplingIntervals(owner, edges, inside, peaks)
    return assembled(scan.mass, curves, found, np.exp(scan.level(scan.mass)))
