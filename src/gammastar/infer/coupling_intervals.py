"""Coupling intervals in which a signal exceeds a limit: maximise first, then find the roots on each side.

All in ln N against ln g, where a beam-dump yield is smooth: a power law at small couplings, an exponential
fall at large ones. Every mass is a row; rows are treated together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.interpolate import Akima1DInterpolator
from scipy.optimize import elementwise

from gammastar.core.records import BoolArray, FloatArray, MassInterval

IntArray = npt.NDArray[np.int64]

EMPTY = -40.0
"""ln N of no signal."""

FLAT, CLOSE = 1e-4, 1e-9  # errors of maxima in ln N and of roots in ln g


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """ln N along ln g for every mass: the points of the scan and their refined maxima."""

    row: IntArray  # Mass index of each point, sorted; within a row `x` increases, shape (p,)
    # ln g and ln N, shape (p,)
    x: FloatArray
    y: FloatArray
    at: Callable[[IntArray, FloatArray], FloatArray]  # (row, x) -> ln N between the points
    n_rows: int

    def up_to(self, highest: FloatArray) -> Curves:
        """Return the curves up to a largest ln g per row, which becomes their last point."""
        keep = self.x <= highest[self.row] + 1e-12
        last = np.flatnonzero(keep[:-1] & ~keep[1:] & (self.row[:-1] == self.row[1:]))
        cut = last[highest[self.row[last]] > self.x[last] + 1e-12]
        row = self.row[cut]
        rows = np.concatenate([self.row[keep], row])
        x = np.concatenate([self.x[keep], highest[row]])
        y = np.concatenate([self.y[keep], self.at(row, highest[row])])
        order = np.lexsort((x, rows))
        return Curves(rows[order], x[order], y[order], self.at, self.n_rows)

    def peaks(self, level: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return ln g and ln N − level of the highest point of each row, shape (n_rows,) each."""
        x, height = np.full(self.n_rows, np.nan), np.full(self.n_rows, EMPTY)
        order = np.lexsort((self.y, self.row))
        x[self.row[order]] = self.x[order]  # the last of equal indices stays: the highest point
        height[self.row[order]] = self.y[order]
        return x, height - level


@dataclass(frozen=True, slots=True, eq=False)
class CouplingIntervals:
    """Intervals of ln g above a level, one entry each."""

    row: IntArray  # shape (n,)
    edges: FloatArray  # shape (n, 2)
    inside: BoolArray  # True where an edge is a root, False where the scan ends first, shape (n, 2)
    peak: FloatArray  # ln g and ln N of the highest point, shape (n, 2)


def _log(signal: npt.ArrayLike) -> FloatArray:
    values = np.asarray(signal, dtype=np.float64)
    return np.asarray(np.maximum(np.log(np.where(values > 0, values, 1e-300)), EMPTY), dtype=np.float64)


def from_grid(coupling: FloatArray, signal: FloatArray) -> Curves:
    """Return curves through a grid of yields, shape (masses, couplings), as cubics that do not overshoot."""
    x, y = np.log(coupling), _log(signal)
    pieces = np.asarray(Akima1DInterpolator(x, y, axis=1, method="makima").c)  # (4, couplings − 1, masses)

    def at(row: IntArray, where: FloatArray) -> FloatArray:
        piece = np.clip(np.searchsorted(x, where, side="right") - 1, 0, len(x) - 2)
        c, t = pieces[:, piece, row], where - x[piece]
        return np.asarray(((c[0] * t + c[1]) * t + c[2]) * t + c[3], dtype=np.float64)

    return with_maxima(np.repeat(np.arange(len(y)), len(x)), np.tile(x, len(y)), y.ravel(), at)


def from_function(
    mass: FloatArray, coupling: FloatArray, signal: Callable[[FloatArray, FloatArray], FloatArray]
) -> Curves:
    """Return curves of a function (mass, coupling) -> N; the grid of couplings serves as first scan."""
    rows, columns = np.repeat(mass, len(coupling)), np.tile(coupling, len(mass))
    y = _log(signal(rows, columns))

    def at(row: IntArray, where: FloatArray) -> FloatArray:
        return _log(signal(mass[row], np.exp(where)))

    return with_maxima(np.repeat(np.arange(len(mass)), len(coupling)), np.log(columns), y, at)


def with_maxima(
    row: IntArray,
    x: FloatArray,
    y: FloatArray,
    at: Callable[[IntArray, FloatArray], FloatArray],
    *,
    flat: FloatArray | float = FLAT,
) -> Curves:
    """Return curves through points sorted by row and x, with every local maximum refined by parabolas.

    A maximum is refined until it moves by less than `flat` in ln N, a number or one per row; with infinity
    it stays as it is.
    """
    precision = np.broadcast_to(np.asarray(flat, dtype=np.float64), (int(row[-1]) + 1,))
    inner = np.flatnonzero((row[1:-1] == row[:-2]) & (row[1:-1] == row[2:])) + 1
    top = inner[(y[inner] >= y[inner - 1]) & (y[inner] > y[inner + 1]) & (y[inner] > EMPTY)]
    where = np.stack([x[top - 1], x[top], x[top + 1]])
    value = np.stack([y[top - 1], y[top], y[top + 1]])
    active = np.flatnonzero(np.isfinite(precision[row[top]]))
    for _ in range(12):
        if not active.size:
            break
        new = _vertex(where[:, active], value[:, active])
        found = at(row[top[active]], new)
        moved = np.abs(found - value[1, active])
        where[:, active], value[:, active] = _narrowed(where[:, active], value[:, active], new, found)
        active = active[moved > precision[row[top[active]]]]
    rows = np.concatenate([row, row[top]])
    xs, ys = np.concatenate([x, where[1]]), np.concatenate([y, value[1]])
    order = np.lexsort((xs, rows))
    fresh = np.r_[True, (np.diff(rows[order]) > 0) | (np.diff(xs[order]) > 1e-12)]
    order = order[fresh]
    return Curves(rows[order], xs[order], ys[order], at, int(row[-1]) + 1)


def _vertex(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the vertices of parabolas through three points each, kept off the points themselves."""
    left, right = x[1] - x[0], x[2] - x[1]
    drop_left, drop_right = y[1] - y[0], y[1] - y[2]
    below = 2.0 * (left * drop_right + right * drop_left)
    shift = (right**2 * drop_left - left**2 * drop_right) / np.where(below > 0, below, 1.0)
    shift = np.where(below > 0, shift, 0.0)
    shift = np.clip(shift, -0.9 * left, 0.9 * right)
    small = 0.02 * np.minimum(left, right)
    longer = np.where(right > left, small, -small)
    return np.asarray(x[1] + np.where(np.abs(shift) < small, longer, shift), dtype=np.float64)


def _narrowed(
    x: FloatArray, y: FloatArray, new: FloatArray, found: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the three points around the maximum after one more was evaluated."""
    order = np.argsort(np.vstack([x, new]), axis=0)
    xs = np.take_along_axis(np.vstack([x, new]), order, axis=0)
    ys = np.take_along_axis(np.vstack([y, found]), order, axis=0)
    middle = np.where(ys[1] >= ys[2], 1, 2)
    pick = np.stack([middle - 1, middle, middle + 1])
    return np.take_along_axis(xs, pick, axis=0), np.take_along_axis(ys, pick, axis=0)


def intervals_above(curves: Curves, level: FloatArray, *, close: float = CLOSE) -> CouplingIntervals:
    """Return all intervals in which ln N > level."""
    row, x, y = curves.row, curves.x, curves.y
    above = y > level[row]
    first = np.diff(row, prepend=-1) > 0
    final = np.diff(row, append=curves.n_rows) > 0
    start = np.flatnonzero(above & (first | ~np.roll(above, 1)))
    end = np.flatnonzero(above & (final | ~np.roll(above, -1)))
    inside = np.column_stack([~first[start], ~final[end]])
    lower = _root(curves, level, (start, np.where(inside[:, 0], start - 1, start)), close)
    upper = _root(curves, level, (end, np.where(inside[:, 1], end + 1, end)), close)
    owner = np.cumsum(np.isin(np.arange(len(x)), start))[above] - 1
    order = np.lexsort((y[above], owner))
    best = order[np.searchsorted(owner[order], np.arange(len(start)), side="right") - 1]
    peak = np.column_stack([x[above][best], y[above][best]])
    return CouplingIntervals(row[start], np.column_stack([lower, upper]), inside, peak)


def _root(curves: Curves, level: FloatArray, bracket: tuple[IntArray, IntArray], close: float) -> FloatArray:
    """Return the roots between points above and their neighbours below the level (equal points stay)."""
    above, below = bracket
    result = curves.x[above].copy()
    (open_,) = np.nonzero(above != below)
    if open_.size:
        outer, inner = above[open_], below[open_]
        row = curves.row[outer]

        def over(x: FloatArray, *given: FloatArray) -> FloatArray:
            """Return ln N over the level; at the ends of the bracket it is known and costs no yield."""
            row, level, ends, values = given[0].astype(np.int64), given[1], given[2:4], given[4:6]
            result = np.where(x == ends[0], *values)
            (new,) = np.nonzero((x != ends[0]) & (x != ends[1]))
            result[new] = curves.at(row[new], x[new])
            return result - level

        ends, values = (curves.x[outer], curves.x[inner]), (curves.y[outer], curves.y[inner])
        given = (row.astype(np.float64), level[row], *ends, *values)
        found = elementwise.find_root(over, ends, args=given, tolerances={"xatol": close, "xrtol": 0.0})
        result[open_] = found.x
    return result


FAINT = -8.0  # ln N over the limit below which a signal would bend the cubic through its neighbours
REACH = 3  # masses at either side of a gap that the cubic sees


@dataclass(frozen=True, slots=True, eq=False)
class MassEnds:
    """Ends in mass."""

    # Mass [GeV] and coupling at which an island ends before the mass below and before the mass above; nan
    # where it goes on or is clipped, shape (islands, 2, 2)
    ends: FloatArray
    intervals: tuple[MassInterval, ...]  # In order of mass


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


def mass_ends(mass: FloatArray, curves: Curves, found: CouplingIntervals, level: FloatArray) -> MassEnds:
    """Return where islands end in mass and the intervals of mass with any island.

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


def _linked(
    rows: _Rows, found: CouplingIntervals, here: IntArray, there: IntArray, row: int
) -> list[tuple[int, int]]:
    """Return pairs of islands at two neighbouring masses that are one."""
    pairs = []
    for a in here.tolist():
        for b in there.tolist():
            low, high = found.edges[a], found.edges[b]
            overlap = min(low[1], high[1]) > max(low[0], high[0])
            if overlap or _climbs(rows, found, a, b, row + 1) or _climbs(rows, found, b, a, row):
                pairs.append((a, b))
    return pairs


def _climbs(rows: _Rows, found: CouplingIntervals, one: int, other: int, row: int) -> bool:
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
    mass: FloatArray, found: CouplingIntervals, ends: FloatArray, goes_on: BoolArray, closed: BoolArray
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
