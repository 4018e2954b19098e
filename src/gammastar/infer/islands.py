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

__all__ = ["EMPTY", "Curves", "Islands", "from_function", "from_grid", "islands"]

IntArray = npt.NDArray[np.int64]

EMPTY = -40.0
"""ln N of no signal."""


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
    """Add every local maximum, found by golden section, to the points of the scan."""
    top = np.zeros(y.shape, dtype=np.bool_)
    top[:, 1:-1] = (y[:, 1:-1] >= y[:, :-2]) & (y[:, 1:-1] > y[:, 2:]) & (y[:, 1:-1] > EMPTY)
    row, column = np.nonzero(top)
    low, high = x[column - 1], x[column + 1]
    golden = (np.sqrt(5.0) - 1.0) / 2.0
    left, right = high - golden * (high - low), low + golden * (high - low)
    y_left, y_right = at(row, left), at(row, right)
    for _ in range(24):  # 1e-5 of the first bracket
        go_right = y_left < y_right
        low, high = np.where(go_right, left, low), np.where(go_right, high, right)
        new = np.where(go_right, low + golden * (high - low), high - golden * (high - low))
        y_new = at(row, new)
        left, right = np.where(go_right, right, new), np.where(go_right, new, left)
        y_left, y_right = np.where(go_right, y_right, y_new), np.where(go_right, y_new, y_left)
    best = 0.5 * (low + high)
    value = at(row, best)
    better = value > y[row, column]
    grid_row = np.repeat(np.arange(len(y)), len(x))
    rows = np.concatenate([grid_row, row[better]])
    xs = np.concatenate([np.tile(x, len(y)), best[better]])
    ys = np.concatenate([y.ravel(), value[better]])
    order = np.lexsort((xs, rows))
    return Curves(rows[order], xs[order], ys[order], at, len(y))


def islands(curves: Curves, level: FloatArray) -> Islands:
    """Return all intervals in which ln N > level.

    Parameters
    ----------
    curves : Curves
    level : NDArray, shape (n_rows,)

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
    lower = _root(curves, level, start, np.where(inside[:, 0], start - 1, start))
    upper = _root(curves, level, end, np.where(inside[:, 1], end + 1, end))
    owner = np.cumsum(np.isin(np.arange(len(x)), start))[above] - 1
    order = np.lexsort((y[above], owner))
    best = order[np.searchsorted(owner[order], np.arange(len(start)), side="right") - 1]
    peak = np.column_stack([x[above][best], y[above][best]])
    return Islands(row[start], np.column_stack([lower, upper]), inside, peak)


def _root(curves: Curves, level: FloatArray, above: IntArray, below: IntArray) -> FloatArray:
    """Bisect between a point above and a neighbour below the level (equal points stay)."""
    row, high, low = curves.row[above], curves.x[above], curves.x[below]
    for _ in range(40):
        middle = 0.5 * (high + low)
        over = curves.at(row, middle) > level[row]
        high, low = np.where(over, middle, high), np.where(over, low, middle)
    return np.where(above == below, curves.x[above], 0.5 * (high + low))
