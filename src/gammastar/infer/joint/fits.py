"""Fits of many data sets at once: Newton steps inside the bounds, per data set its own active bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.joint.expectation import Arrays, Curvature, Point, curvature, negative_log
from gammastar.infer.joint.model import JointData

POINT = ("core", "like", "gamma")
STEPS = 100
DONE = 1e-9  # what a step would still gain of −ln L
FLAT, DAMPED = 1e-7, 1.0  # least curvature along an eigenvector of the scaled Hessian, and the most of it
SURE = 1e-6  # damping up to which a step tells what is still to be gained
FEW, FEWEST = 50, 20  # opposite-sign pairs below which fits begin twice where μ is free, or always
BARE = 1e-3  # factor of contents at the start of a fit that leaves the pairs to like signs
PROJECTED, TURNS = 6, 36  # halvings along the projection, and all
LIFTED = 0.1
TINY = 1e-10
MANY = 32  # data sets from which on their equations are solved all at once
SAFE = 1e-4  # least pivot of a matrix that counts as positive
ALIKE = 1e-13  # of the determinant of a bin, less of which is what rounding leaves
NEAR = 1e-6  # factors this small and pushed towards zero go there
BLOCK = 1000  # data sets that are fitted together: what fits into the cache


@dataclass(frozen=True, slots=True, eq=False)
class Fits:
    """Fitted parameters of n data sets."""

    point: Point
    value: FloatArray  # −ln L without constants, shape (n,)
    slope: FloatArray  # Of −ln L with μ; zero where μ was free, shape (n,)
    done: npt.NDArray[np.bool_]  # shape (n,)


def start_of(arrays: Arrays, data: JointData, strength: float | FloatArray) -> Point:
    """Return where fits begin: contents from all pairs, like-sign contents from their own bins."""
    (i, j), n, k = arrays.cells.shape, len(data), arrays.n_nuisances
    like = data.pairs[:, 1:].sum(axis=1) / arrays.like[1:].sum(axis=0)
    left = data.pairs[:, 0].sum(axis=1) - (arrays.like[0] * like).sum(axis=1) - arrays.templates.sum()
    whole = np.clip(left / arrays.cells.sum(), 0.1, None)
    core = np.concatenate(
        [
            np.broadcast_to(np.reshape(strength, (-1, 1)), (n, 1)),
            np.broadcast_to(whole[:, None], (n, j)),
            data.auxiliary,
        ],
        axis=1,
    )
    if core.shape[1] != 1 + j + k:
        raise PhysicsError(f"JointData.auxiliary: {data.auxiliary.shape[1]} measurements for {k} nuisances")
    return Point(core, np.maximum(like, 0.1), np.where(arrays.sigma > 0, data.simulated, 1.0).reshape(n, i))


def fit(
    arrays: Arrays,
    data: JointData,
    strength: float | FloatArray | None = None,
    start: Point | None = None,
    *,
    most: float | FloatArray = np.inf,
    precision: float = DONE,
) -> Fits:
    """Return the fits of all data sets, at fixed signal strengths or with 0 ≤ μ ≤ `most` free (None).

    Notes
    -----
    Projected Newton steps (D. P. Bertsekas, SIAM J. Control Optim. 20 (1982) 221): parameters at a bound
    that the gradient would cross rest, the others take a Newton step, which is projected and shortened until
    the likelihood grows. Cells, like-sign contents, γ and μ are not negative. Next to a bound the Hessian has
    gradient over distance on its diagonal (T. F. Coleman and Y. Li, SIAM J. Optim. 6 (1996) 418): a bin
    without pairs bends nothing, and its content ends at zero in one step. Eigenvalues are taken without
    their sign (Y. Dauphin et al., arXiv:1406.2572): μ n_j has a saddle at zero, where plain Newton steps end;
    those near zero are damped while steps fail. With few pairs there are several minima, in the pairs or
    without them: fits then begin without contents and at the fit without signal too, and the lowest counts.
    """
    begin = start_of(arrays, data, 1.0 if strength is None else strength) if start is None else start
    ends = np.broadcast_to(np.asarray(most, dtype=np.float64), (len(data),))
    asked = _Asked(None if strength is not None else ends, precision)
    found = _from(arrays, data, strength, begin, asked)
    pairs = data.pairs[:, 0].sum(axis=1)

    def lower(found: Fits, rows: npt.NDArray[np.intp], start: Point) -> Fits:
        every = (
            None
            if strength is None
            else np.broadcast_to(np.asarray(strength, np.float64), (len(data),))[rows]
        )
        return _lower(found, _from(arrays, data.part(rows), every, start, asked.part(rows)), rows)

    if (rows := np.flatnonzero(pairs < FEWEST)).size:
        bare = start_of(arrays, data.part(rows), 1.0)
        bare.core[:, 1 : 1 + arrays.cells.shape[1]] = BARE
        found = lower(found, rows, bare)
    rows = np.flatnonzero(pairs < (FEW if strength is None else FEWEST))
    if rows.size and (strength is None or np.any(strength)):
        without = fit(arrays, data.part(rows), 0.0, begin.part(rows), precision=precision)
        found = lower(found, rows, without.point)
    return found


def fit_held(
    arrays: Arrays, data: JointData, start: Point, held: Point, *, most: float | FloatArray = np.inf
) -> Fits:
    """Return fits in which some parameters of each data set stay where they begin."""
    ends = np.broadcast_to(np.asarray(most, dtype=np.float64), (len(data),))
    return _from(arrays, data, None, start, _Asked(ends, DONE, held))


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """How data sets are fitted: largest μ of each (None where it is fixed), precision, what stays."""

    most: FloatArray | None
    precision: float = DONE
    held: Point | None = None

    def part(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_] | slice) -> _Asked:
        return _Asked(
            None if self.most is None else self.most[rows],
            self.precision,
            None if self.held is None else self.held.part(rows),
        )


def _from(
    arrays: Arrays, data: JointData, strength: float | FloatArray | None, begin: Point, asked: _Asked
) -> Fits:
    """Return the fits that begin somewhere."""
    n = len(data)
    begin = _possible(arrays, data, begin) if asked.held is None else begin
    if strength is not None:
        core = begin.core.copy()
        core[:, 0] = strength
        begin = Point(core, begin.like, begin.gamma)
    parts = [
        _fit(arrays, data.part(rows), begin.part(rows), asked.part(rows))
        for rows in (slice(a, a + BLOCK) for a in range(0, n, BLOCK))
    ]
    join = np.concatenate
    columns = [join([getattr(p.point, name) for p in parts]) for name in POINT]
    value, slope, done = (
        join([getattr(part, name) for part in parts]) for name in ("value", "slope", "done")
    )
    return Fits(Point(*columns), value, slope, done)


def _lower(found: Fits, other: Fits, rows: npt.NDArray[np.intp]) -> Fits:
    """Return fits with those of some data sets exchanged where the others are better."""
    better = other.value < found.value[rows]
    at = rows[better]
    point = Point(*(getattr(found.point, name).copy() for name in POINT))
    for name in POINT:
        getattr(point, name)[at] = getattr(other.point, name)[better]
    columns = [getattr(found, name).copy() for name in ("value", "slope", "done")]
    for column, name in zip(columns, ("value", "slope", "done"), strict=True):
        column[at] = getattr(other, name)[better]
    return Fits(point, *columns)


def _possible(arrays: Arrays, data: JointData, start: Point) -> Point:
    """Return a start at which no count is impossible: contents are lifted where one is."""
    lost = ~np.isfinite(negative_log(arrays, start, data))
    if not lost.any():
        return start
    core, like = start.core.copy(), start.like.copy()
    cells = slice(1, 1 + arrays.cells.shape[1])
    core[lost, cells], like[lost] = np.maximum(core[lost, cells], LIFTED), np.maximum(like[lost], LIFTED)
    return Point(core, like, np.where(lost[:, None], np.maximum(start.gamma, LIFTED), start.gamma))


def _fit(arrays: Arrays, data: JointData, start: Point, asked: _Asked) -> Fits:
    """Return the fits of one block."""
    n, precision = len(data), asked.precision
    point = Point(start.core.copy(), start.like.copy(), start.gamma.copy())
    value, slope, done = np.full(n, np.inf), np.zeros(n), np.zeros(n, dtype=bool)
    rows, damping = np.arange(n), np.full(n, FLAT)
    for _ in range(STEPS):
        own, seen = point.part(rows), data.part(rows)
        found = curvature(arrays, own, seen)
        value[rows], slope[rows] = found.value, found.core[:, 0]
        here = asked.part(rows)
        step, gain = _step(arrays, own, found, asked=here, damping=damping[rows])
        finished = gain < precision * (1.0 + 1e-4 * np.abs(found.value))
        unsure = finished & (damping[rows] > SURE)
        damping[rows[unsure]] = FLAT
        finished &= ~unsure
        done[rows[finished]] = True
        go = ~finished
        if not go.any():
            break
        rows = rows[go]
        where = own.part(go), seen.part(np.flatnonzero(go))
        moved, turns = _search(arrays, where, step.part(go), found.part(go), most=here.part(go).most)
        stuck = (turns == TURNS) & (damping[rows] >= DAMPED)  # the next step would be the same one
        damping[rows] = np.clip(damping[rows] * np.where(turns > 1, 10.0, 0.1), FLAT, DAMPED)
        for name in POINT:
            getattr(point, name)[rows] = getattr(moved, name)
        rows = rows[~stuck]
        if not rows.size:
            break
    return Fits(point, value, slope if asked.most is None else np.zeros(n), done)


def _held(
    arrays: Arrays, point: Point, found: Curvature, *, most: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """Return which parameters may move, as numbers 0 and 1: core (n, m) and bins (n, i, 2)."""
    j = arrays.cells.shape[1]
    core = np.ones_like(point.core)
    core[:, : 1 + j] = ~((point.core[:, : 1 + j] <= NEAR) & (found.core[:, : 1 + j] > 0))
    if most is None:
        core[:, 0] = 0.0
    else:
        core[:, 0] *= ~((point.core[:, 0] >= most) & (found.core[:, 0] < 0))
    at = np.stack([point.like, point.gamma], axis=-1)
    bins = (~((at <= NEAR) & (found.bins > 0))).astype(np.float64)
    bins[:, arrays.sigma <= 0, 1] = 0.0
    return core, bins


def _step(
    arrays: Arrays,
    point: Point,
    found: Curvature,
    *,
    asked: _Asked,
    damping: FloatArray,
) -> tuple[Point, FloatArray]:
    """Return the step of the parameters that may move, and what it gains to first order."""
    most, stays = asked.most, asked.held
    core, bins = _held(arrays, point, found, most=most)
    if stays is not None:
        core, bins = core * (1.0 - stays.core), bins * (1.0 - np.stack([stays.like, stays.gamma], axis=-1))
    wall_core, wall_bins = _walls(arrays, point, found, most=most)
    block = found.bins_bins * bins[..., :, None] * bins[..., None, :]
    for a in (0, 1):
        block[..., a, a] += (1.0 - bins[..., a]) + bins[..., a] * wall_bins[..., a] + 1e-12
    product = block[..., 0, 0] * block[..., 1, 1]
    det = np.maximum(product - block[..., 0, 1] ** 2, ALIKE * product)
    inverse = np.empty_like(block)
    inverse[..., 0, 0], inverse[..., 1, 1] = block[..., 1, 1] / det, block[..., 0, 0] / det
    inverse[..., 0, 1] = inverse[..., 1, 0] = -block[..., 0, 1] / det
    cross = found.bins_core * bins[..., None] * core[:, None, None, :]
    down, slope = found.core * core, found.bins * bins
    weighted = inverse @ cross  # (n, i, 2, m)
    n, m = down.shape
    flat = cross.reshape(n, -1, m)
    square = found.core_core * core[:, :, None] * core[:, None, :]
    square = square - np.swapaxes(flat, 1, 2) @ weighted.reshape(n, -1, m)
    diagonal = np.arange(m)
    square[:, diagonal, diagonal] += (1.0 - core) + core * wall_core
    right = down - (slope.reshape(n, 1, -1) @ weighted.reshape(n, -1, m))[:, 0]
    step = _solved(square, right, damping) * core
    behind = -(inverse @ (slope[..., None] + (cross @ step[:, None, :, None])))[..., 0] * bins
    gain = -(down * step).sum(axis=1) - (slope * behind).sum(axis=(1, 2))
    j = arrays.cells.shape[1]  # what is held next to zero goes there
    step[:, 1 : j + 1] -= (1.0 - core[:, 1 : j + 1]) * point.core[:, 1 : j + 1]
    if most is not None:
        low = point.core[:, 0] <= NEAR
        step[:, 0] -= low * (1.0 - core[:, 0]) * point.core[:, 0]
    behind[..., 0] -= (1.0 - bins[..., 0]) * point.like
    like, gamma = behind[..., 0].copy(), behind[..., 1].copy()
    if stays is not None:
        step = step * (1.0 - stays.core)
        like, gamma = like * (1.0 - stays.like), gamma * (1.0 - stays.gamma)
    return Point(np.asarray(step, np.float64), like, gamma), gain


def _walls(
    arrays: Arrays, point: Point, found: Curvature, *, most: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """Return gradient over distance of the bounds that it points to, for core (n, m) and bins (n, i, 2).

    On the diagonal of the Hessian they let a step that nothing else bends end at the bound.
    """
    j = 1 + arrays.cells.shape[1]
    core = np.zeros_like(point.core)
    core[:, :j] = np.maximum(found.core[:, :j], 0.0) / np.maximum(point.core[:, :j], NEAR)
    if most is not None:
        core[:, 0] += np.maximum(-found.core[:, 0], 0.0) / np.maximum(most - point.core[:, 0], NEAR)
    at = np.stack([point.like, point.gamma], axis=-1)
    return core, np.maximum(found.bins, 0.0) / np.maximum(at, NEAR)


def _solved(square: FloatArray, right: FloatArray, damping: FloatArray) -> FloatArray:
    """Return the Newton steps with the absolute values of the eigenvalues: none leads up, or to a saddle."""
    diagonal = np.arange(right.shape[1])
    scale = 1.0 / np.sqrt(np.maximum(np.abs(square[:, diagonal, diagonal]), TINY))
    matrix, vector = square * scale[:, :, None] * scale[:, None, :], right * scale
    if len(right) < MANY:
        return -_turned(matrix, vector, damping) * scale
    found, least = _eliminated(matrix, vector, damping)
    rest = np.flatnonzero(~(least > SAFE))
    found[rest] = _turned(matrix[rest], vector[rest], damping[rest])
    return -found * scale


def _turned(matrix: FloatArray, vector: FloatArray, damping: FloatArray) -> FloatArray:
    """Return (|S| + d)⁻¹ r along the eigenvectors of S."""
    values, vectors = np.linalg.eigh(matrix)
    turned = np.swapaxes(vectors, 1, 2) @ vector[:, :, None]
    turned /= (np.abs(values) + damping[:, None])[:, :, None]
    return np.asarray((vectors @ turned)[:, :, 0], dtype=np.float64)


def _eliminated(matrix: FloatArray, vector: FloatArray, damping: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (S + d)⁻¹ r by Gauss's elimination in all data sets at once, and the least pivots less d.

    Of positive matrices, whose pivots all are, this is what their eigenvectors give.
    """
    m = vector.shape[1]
    a, b = np.moveaxis(matrix, 0, -1).copy(), vector.T.copy()
    a[np.arange(m), np.arange(m)] += damping
    with np.errstate(all="ignore"):
        for k in range(m - 1):
            share = a[k + 1 :, k] / a[k, k]
            a[k + 1 :, k + 1 :] -= share[:, None] * a[k, None, k + 1 :]
            b[k + 1 :] -= share * b[k]
        for k in range(m - 1, -1, -1):
            b[k] = (b[k] - (a[k, k + 1 :] * b[k + 1 :]).sum(axis=0)) / a[k, k]
    return b.T.copy(), a[np.arange(m), np.arange(m)].min(axis=0) - damping


def _moved(arrays: Arrays, point: Point, step: Point, scale: FloatArray, most: FloatArray | None) -> Point:
    """Return the projected point; nuisances go at most three standard deviations at once.

    What is cut is cut of the shortened step: a short one keeps its direction, which leads down.
    """
    j, t = arrays.cells.shape[1], scale[:, None]
    core = point.core + np.concatenate(
        [t * step.core[:, : 1 + j], np.clip(t * step.core[:, 1 + j :], -3.0, 3.0)], axis=1
    )
    core[:, : 1 + j] = np.maximum(core[:, : 1 + j], 0.0)
    core[:, 0] = core[:, 0] if most is None else np.minimum(core[:, 0], most)
    like, gamma = point.like + t * step.like, point.gamma + np.clip(t * step.gamma, -1.0, 1.0)
    return Point(core, np.maximum(like, 0.0), np.maximum(gamma, 0.0))


def _room(arrays: Arrays, point: Point, step: Point) -> FloatArray:
    """Return the part of each step that crosses no bound, but for those that are next to it, shape (n,)."""
    j = arrays.cells.shape[1]
    room = np.ones(len(point.core))
    for at, change in ((point.core[:, : 1 + j], step.core[:, : 1 + j]), (point.like, step.like)):
        crossing = (change < 0) & (at > NEAR)
        part = np.divide(at, -change, out=np.full_like(at, np.inf), where=crossing)
        room = np.minimum(room, part.min(axis=1))
    return room


def _search(
    arrays: Arrays,
    where: tuple[Point, JointData],
    step: Point,
    found: Curvature,
    *,
    most: FloatArray | None,
) -> tuple[Point, npt.NDArray[np.int64]]:
    """Return the points at which −ln L falls as it should, and how often the steps were shortened.

    Steps are halved along the projection on the bounds, and, where that does not help, before the first one.
    """
    point, data = where
    n = len(found.value)
    best = Point(point.core.copy(), point.like.copy(), point.gamma.copy())
    scale, rows, turns = np.ones(n), np.arange(n), np.zeros(n, dtype=np.int64)
    for turn in range(TURNS):
        if turn == PROJECTED:
            scale[rows] = _room(arrays, point.part(rows), step.part(rows))
        own = point.part(rows)
        trial = _moved(arrays, own, step.part(rows), scale[rows], None if most is None else most[rows])
        value = negative_log(arrays, trial, data.part(rows))
        promised = (
            (found.core[rows] * (own.core - trial.core)).sum(axis=1)
            + (found.bins[rows, :, 0] * (own.like - trial.like)).sum(axis=1)
            + (found.bins[rows, :, 1] * (own.gamma - trial.gamma)).sum(axis=1)
        )
        before = found.value[rows]
        good = value <= before - 1e-4 * promised + 1e-13 * np.abs(before)
        for name in POINT:
            getattr(best, name)[rows[good]] = getattr(trial, name)[good]
        rows = rows[~good]
        if not rows.size:
            break
        scale[rows] *= 0.5
        turns[rows] += 1
    return best, turns
