"""Coupling intervals in which a signal exceeds a limit: maximise first, then find the roots on each side.

All in ln N against ln g, where a beam-dump yield is smooth: a power law at small couplings, an exponential
fall at large ones. Every mass is a row; rows are treated together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.interpolate import Akima1DInterpolator

from gammastar.core.records import BoolArray, FloatArray

__all__ = ["EMPTY", "Curves", "Islands", "from_function", "from_grid", "islands", "with_maxima"]

IntArray = npt.NDArray[np.int64]

EMPTY = -40.0
"""ln N of no signal."""

FLAT, CLOSE = 1e-4, 1e-9  # errors of maxima in ln N and of roots in ln g


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """ln N along ln g for every mass: the points of the scan and their refined maxima.

    Attributes
    ----------
    row : NDArray of int, shape (p,)
        Mass index of each point, sorted; within a row `x` increases.
    x, y : NDArray, shape (p,)
        ln g and ln N.
    at : callable
        (row, x) -> ln N between the points.
    n_rows : int
    """

    row: IntArray
    x: FloatArray
    y: FloatArray
    at: Callable[[IntArray, FloatArray], FloatArray]
    n_rows: int

    def up_to(self, highest: FloatArray) -> Curves:
        """Return the curves without the points above a largest ln g per row."""
        keep = self.x <= highest[self.row] + 1e-12
        return Curves(self.row[keep], self.x[keep], self.y[keep], self.at, self.n_rows)

    def peaks(self, level: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return ln g and ln N − level of the highest point of each row, shape (n_rows,) each."""
        x, height = np.full(self.n_rows, np.nan), np.full(self.n_rows, EMPTY)
        order = np.lexsort((self.y, self.row))
        x[self.row[order]] = self.x[order]  # the last of equal indices stays: the highest point
        height[self.row[order]] = self.y[order]
        return x, height - level


@dataclass(frozen=True, slots=True, eq=False)
class Islands:
    """Intervals of ln g above a level, one entry each.

    Attributes
    ----------
    row : NDArray of int, shape (n,)
    edges : NDArray, shape (n, 2)
    inside : NDArray of bool, shape (n, 2)
        True where an edge is a root, False where the scan ends first.
    peak : NDArray, shape (n, 2)
        ln g and ln N of the highest point.
    """

    row: IntArray
    edges: FloatArray
    inside: BoolArray
    peak: FloatArray


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

    return _with_maxima(x, y, at)


def from_function(
    mass: FloatArray, coupling: FloatArray, signal: Callable[[FloatArray, FloatArray], FloatArray]
) -> Curves:
    """Return curves of a function (mass, coupling) -> N; the grid of couplings serves as first scan."""
    rows, columns = np.repeat(mass, len(coupling)), np.tile(coupling, len(mass))
    y = _log(signal(rows, columns)).reshape(len(mass), len(coupling))

    def at(row: IntArray, where: FloatArray) -> FloatArray:
        return _log(signal(mass[row], np.exp(where)))

    return _with_maxima(np.log(coupling), y, at)


def _with_maxima(x: FloatArray, y: FloatArray, at: Callable[[IntArray, FloatArray], FloatArray]) -> Curves:
    """Add every local maximum to the points of a scan with common couplings."""
    row = np.repeat(np.arange(len(y)), len(x))
    return with_maxima(row, np.tile(x, len(y)), y.ravel(), at)


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


def islands(curves: Curves, level: FloatArray, *, close: float = CLOSE) -> Islands:
    """Return all intervals in which ln N > level.

    Parameters
    ----------
    curves : Curves
    level : NDArray, shape (n_rows,)
    close : float
        Precision of the edges in ln g.

    Returns
    -------
    Islands
        In order of row, then coupling.
    """
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
    return Islands(row[start], np.column_stack([lower, upper]), inside, peak)


def _root(curves: Curves, level: FloatArray, bracket: tuple[IntArray, IntArray], close: float) -> FloatArray:
    """Return the roots between points above and their neighbours below the level (equal points stay).

    T. R. Chandrupatla, Adv. Eng. Softw. 28 (1997) 145: inverse quadratic steps where they are safe, else
    bisection; each evaluation serves all roots that are still open.
    """
    above, below = bracket
    result = curves.x[above].copy()
    active = np.flatnonzero(above != below)
    row = curves.row[above]
    a, b = curves.x[above], curves.x[below]
    fa, fb = curves.y[above] - level[row], curves.y[below] - level[row]
    c, fc, t = a.copy(), fa.copy(), np.full(len(a), 0.5)
    for _ in range(60):
        if not active.size:
            break
        i = active
        new = a[i] + t[i] * (b[i] - a[i])
        found = curves.at(row[i], new) - level[row[i]]
        same = np.sign(found) == np.sign(fa[i])
        c[i], fc[i] = np.where(same, a[i], b[i]), np.where(same, fa[i], fb[i])
        b[i], fb[i] = np.where(same, b[i], a[i]), np.where(same, fb[i], fa[i])
        a[i], fa[i] = new, found
        result[i] = np.where(np.abs(fa[i]) < np.abs(fb[i]), a[i], b[i])
        limit = 0.5 * close / np.maximum(np.abs(b[i] - a[i]), 1e-300)
        t[i] = np.clip(_step(a[i], b[i], c[i], fa[i], fb[i], fc[i]), limit, 1.0 - np.minimum(limit, 0.5))
        active = i[(limit <= 0.5) & (found != 0)]
    return result


def _step(
    a: FloatArray, b: FloatArray, c: FloatArray, fa: FloatArray, fb: FloatArray, fc: FloatArray
) -> FloatArray:
    """Return the fraction of the bracket for the next point."""
    with np.errstate(divide="ignore", invalid="ignore"):
        xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
        safe = (phi**2 < xi) & ((1.0 - phi) ** 2 < 1.0 - xi)
        inverse = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
    return np.where(safe & np.isfinite(inverse), inverse, 0.5)
