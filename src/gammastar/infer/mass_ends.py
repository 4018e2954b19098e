"""Where islands of a contour end in mass, and in which intervals of mass anything is excluded at all."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.interpolate import Akima1DInterpolator

from gammastar.core.records import BoolArray, FloatArray, MassInterval
from gammastar.infer.islands import Curves, IntArray, Islands

__all__ = ["MassEnds", "mass_ends"]

FAINT = -8.0  # ln N over the limit below which a signal would bend the cubic through its neighbours
REACH = 3  # masses at either side of a gap that the cubic sees


@dataclass(frozen=True, slots=True, eq=False)
class MassEnds:
    """Ends in mass.

    Attributes
    ----------
    ends : NDArray, shape (islands, 2, 2)
        Mass [GeV] and coupling at which an island ends before the mass below and before the mass above; nan
        where it goes on or is clipped.
    intervals : tuple of MassInterval
        In order of mass.
    """

    ends: FloatArray
    intervals: tuple[MassInterval, ...]


class _Rows:
    """Points of the masses of a scan, in ln N over the limit."""

    def __init__(self, mass: FloatArray, curves: Curves, level: FloatArray) -> None:
        self.mass = mass
        bounds = list(pairwise(np.searchsorted(curves.row, np.arange(curves.n_rows + 1)).tolist()))
        self.x = [curves.x[a:b] for a, b in bounds]
        self.y = [curves.y[a:b] - level[i] for i, (a, b) in enumerate(bounds)]

    def has(self, row: int) -> bool:
        return 0 <= row < len(self.x) and len(self.x[row]) > 0

    def hill(self, row: int, x: float) -> int:
        """Return the point on top of the hill on whose slope ln g = x lies."""
        y = self.y[row]
        k = int(np.argmin(np.abs(self.x[row] - x)))
        while True:
            best = max((j for j in (k - 1, k + 1) if 0 <= j < len(y)), key=lambda j: y[j], default=k)
            if not y[best] > y[k]:
                return k
            k = best

    def on_rim(self, row: int, k: int) -> bool:
        """Return whether a point is the first or the last one: the top of its hill may lie beyond."""
        return k in {0, len(self.x[row]) - 1}

    def track(self, row: int, x: float, step: int) -> list[tuple[int, int]]:
        """Return row and point of the tops of one hill, from `row` on in one direction."""
        found: list[tuple[int, int]] = []
        while self.has(row) and len(found) <= REACH:
            k = self.hill(row, x)
            found.append((row, k))
            if self.y[row][k] <= FAINT:
                break
            row, x = row + step, float(self.x[row][k])
        return found


def mass_ends(mass: FloatArray, curves: Curves, found: Islands, level: FloatArray) -> MassEnds:
    """Return where islands end in mass and the intervals of mass with any island.

    Parameters
    ----------
    mass : NDArray, shape (n,)
        Masses of the scan [GeV], increasing.
    curves : Curves
        One row per mass; a row without points was not looked at.
    found : Islands
        Of these curves above `level`.
    level : NDArray, shape (n,)
        Logarithm of the limit.

    Returns
    -------
    MassEnds

    Notes
    -----
    An island goes on at the next mass if an island there overlaps it in the coupling, or if the hill of the
    signal on which it lies is above the limit there too. Otherwise it ends where the top of that hill falls
    to the limit, interpolated in mass (cubic, modified Akima). An interval joins what islands cover, so
    that a gap is seen even where one island ends and another begins between two masses of the scan. An end is
    not closed where the scan ends first: in mass, for want of reliable yields at the next mass, or because
    the top of the hill lies at the last coupling.
    """
    rows = _Rows(mass, curves, level)
    entries = [np.flatnonzero(found.row == i) for i in range(len(mass))]
    ends = np.full((len(found.row), 2, 2), np.nan)
    goes_on = np.zeros((len(found.row), 2), dtype=np.bool_)
    closed = np.zeros((len(found.row), 2), dtype=np.bool_)
    for i in range(len(mass) - 1):
        for a, b in _linked(rows, found, entries[i], entries[i + 1], i):
            goes_on[a, 1] = goes_on[b, 0] = True
    for entry, row in enumerate(found.row.tolist()):
        for side, step in ((0, -1), (1, 1)):
            if not goes_on[entry, side] and rows.has(row + step):
                ends[entry, side], closed[entry, side] = _end(rows, row, float(found.peak[entry, 0]), step)
    return MassEnds(ends, _intervals(mass, found, ends, goes_on, closed))


def _linked(rows: _Rows, found: Islands, here: IntArray, there: IntArray, row: int) -> list[tuple[int, int]]:
    """Return pairs of islands at two neighbouring masses that are one."""
    pairs = []
    for a in here.tolist():
        for b in there.tolist():
            low, high = found.edges[a], found.edges[b]
            overlap = min(low[1], high[1]) > max(low[0], high[0])
            if overlap or _climbs(rows, found, a, b, row + 1) or _climbs(rows, found, b, a, row):
                pairs.append((a, b))
    return pairs


def _climbs(rows: _Rows, found: Islands, one: int, other: int, row: int) -> bool:
    """Return whether the hill under an island's peak is that of another island, at the mass of the other."""
    top = rows.x[row][rows.hill(row, float(found.peak[one, 0]))]
    return bool(found.edges[other, 0] <= top <= found.edges[other, 1])


def _end(rows: _Rows, row: int, x: float, step: int) -> tuple[tuple[float, float], bool]:
    """Return mass and coupling at which the hill at a mass falls to the limit on the way to the next mass."""
    inner = rows.track(row, x, -step)
    outer = rows.track(row + step, x, step)
    here, next_ = inner[0], outer[0]
    closed = not (rows.on_rim(*here) or rows.on_rim(*next_))
    start, stop = float(rows.mass[row]), float(rows.mass[row + step])
    height = [float(rows.y[r][k]) for r, k in (here, next_)]
    if height[1] <= FAINT:  # no signal at all at the next mass: the straight line ends in between
        part = height[0] / (height[0] - FAINT)
        return (start + part * (stop - start), float(np.exp(rows.x[row][here[1]]))), closed
    seen = sorted(p for p in inner + outer if rows.y[p[0]][p[1]] > FAINT)
    both = np.array([[rows.y[r][k], rows.x[r][k]] for r, k in seen])
    curve = Akima1DInterpolator(rows.mass[[r for r, _ in seen]], both, method="makima")
    inside, outside = start, stop
    for _ in range(50):
        middle = 0.5 * (inside + outside)
        inside, outside = (middle, outside) if curve(middle)[0] > 0 else (inside, middle)
    return (inside, float(np.exp(curve(inside)[1]))), closed


def _intervals(
    mass: FloatArray, found: Islands, ends: FloatArray, goes_on: BoolArray, closed: BoolArray
) -> tuple[MassInterval, ...]:
    """Return the union of what the islands cover in mass."""
    pieces: list[list[tuple[float, float, bool]]] = []  # both ends of each: mass, coupling, closed
    for i in np.unique(found.row).tolist():
        here = np.flatnonzero(found.row == i)
        piece = []
        for side, farthest in ((0, min), (1, max)):
            best = here[np.argmax(found.peak[here, 1])]
            at = (float(mass[i]), float(np.exp(found.peak[best, 0])), False)
            if goes_on[here, side].any():
                neighbour = float(mass[i + (1 if side else -1)])
                at = (neighbour, at[1], False)
            else:
                known = [k for k in here.tolist() if np.isfinite(ends[k, side, 0])]
                if known:
                    k = farthest(known, key=lambda k: ends[k, side, 0])
                    at = (float(ends[k, side, 0]), float(ends[k, side, 1]), bool(closed[k, side]))
            piece.append(at)
        if pieces and piece[0][0] <= pieces[-1][1][0]:
            pieces[-1][1] = piece[1] if piece[1][0] >= pieces[-1][1][0] else pieces[-1][1]
        else:
            pieces.append(piece)
    return tuple(MassInterval(low[0], high[0], low[1], high[1], low[2], high[2]) for low, high in pieces)
