"""Intervals of contents of cells by profile likelihood: of the counts alone, without a prior of their shape.

−ln L of Poisson counts N of expectation P x + b + η, with η normal of covariance C, is convex in
the contents x ≥ 0 and in η. At an end of the interval of t = a·x it lies c/2 above its minimum, all else at
its best.
All ends are found at once, each in the window of the cells that migration couples to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize
from scipy.special import ndtr, ndtri

from gammastar.core.records import FloatArray, IntArray, Rng
from gammastar.physics.pair_counts import Counts

WINDOW = 20  # cells that vary with a sum, the most correlated ones, beside its own
SEEN = 0.03  # of a cell of the window, at least, in a row that is used
EMPTY = 1e-3  # pairs in an empty cell
BARRIER = (1e-2, 2e-4)  # x z of the interior points, at first and at last
STEPS, INSIDE, EXACT = 30, 0.95, 5e-3  # Newton steps, part of the way to a bound, change of a count in σ
ENDS = 4  # steps towards an end
VALUES, TOGETHER = 1000, 250  # toy values of the likelihood ratio in all, and sums of one toy
BLOCK = 250  # toy values of similar expected pairs, from which a threshold is taken
STEEP = np.array([[0.3], [3.0]])  # rise of √(−2 Δ ln L) per error, at least and at most


def profile_intervals(
    counts: Counts, content: FloatArray, sums: FloatArray, n_sigma: float = 1.0, *, rng: Rng | None = None
) -> FloatArray:
    """Return the ends of the intervals of sums of contents, shape (m, 2), at 0 or above.

    Cells of the fitted `content` out of a window keep it, errors are those at it; `sums` (m, n) are the
    coefficients, none negative; `rng` is for pseudo-experiments, which scale the rise of −2 ln L to coverage.

    For one standard deviation c is 1 where the sum lies as far from 0. Closer, where its best value is often
    0, c is that of a normal number with this bound whose interval holds the truth as often (Feldman and
    Cousins, Phys. Rev. D 57 (1998) 3873): 0.23 at 0. Bounds of the other cells make intervals longer than
    need be, few pairs too short: √c is scaled by what holds the truth in pseudo-experiments, a function of
    the expected pairs.
    """
    seen = (sums > 0).any(axis=1)
    if not seen.any():
        return np.zeros((len(sums), 2))
    windows = _windows(counts, content, sums[seen])
    start, coefficients = windows.fit, windows.coefficients
    best, _, z = _minimum(start, coefficients, None)
    least, centre = best.loss(), (coefficients * best.x).sum(axis=1)
    sigma = _errors(best, z, coefficients)
    truths, critical = _critical(n_sigma)
    bend, scale = np.gradient(critical, truths), np.ones(len(centre))
    if rng is not None:
        scale = _scale(windows, truths, critical, float(2 * ndtr(n_sigma) - 1), rng)
    ends = []
    for sign in (-1.0, 1.0):
        t, fit = np.maximum(centre + sign * n_sigma * sigma, 0.05 * sigma), best
        for _ in range(ENDS):
            fit, slope, z = _minimum(fit, coefficients, t)
            error = _errors(fit, z, coefficients)
            rise = np.sqrt(np.maximum(2 * (fit.loss() - least), 1e-12))
            off = rise - scale * np.interp(t / error, truths, critical)
            steep = np.clip(
                sign * (slope / rise - scale * np.interp(t / error, truths, bend) / error), *STEEP / error
            )
            t = t - sign * np.clip(off / steep, -error, error)
            lowest = 1e-3 * error
            end = np.where(t < lowest, 0.0, t) if sign < 0 else t
            t = np.maximum(t, lowest) if sign < 0 else np.maximum(t, centre)
            t = np.minimum(t, np.maximum(centre, lowest)) if sign < 0 else t
        ends.append(end)
    intervals = np.zeros((len(sums), 2))
    intervals[seen] = np.stack(ends, axis=1)
    return intervals


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """Contents of windows between their bounds; first index of all: the window."""

    observed: FloatArray
    seen: FloatArray  # P
    base: FloatArray
    cov: FloatArray  # C
    x: FloatArray
    shift: FloatArray  # η

    @property
    def mean(self) -> FloatArray:
        """μ = P x + b + η."""
        return _times(self.seen, self.x) + self.base + self.shift

    def loss(self) -> FloatArray:
        """−ln L; at the best η, C⁻¹ η is minus the derivative of its Poisson part."""
        mean = self.mean
        pull = self.observed / mean - 1
        return np.asarray((mean - self.observed * np.log(mean) + 0.5 * pull * self.shift).sum(axis=1))


def _critical(n_sigma: float) -> tuple[FloatArray, FloatArray]:
    """Return truths in units of their error, and √c: the truth is kept where −2 ln L rises by less than c."""
    level, truths = float(2 * ndtr(n_sigma) - 1), np.linspace(0.0, n_sigma, 41)

    def missed(rise: float, truth: float) -> float:
        low = -(truth**2 + rise) / (2 * truth) if truth else -np.inf
        return float(ndtr(np.sqrt(rise)) - ndtr(low) - level)

    inner = [optimize.brentq(missed, 1e-9, n_sigma**2, (truth,)) for truth in truths[1:-1]]
    return truths, np.array([float(ndtri(level)), *np.sqrt(inner), n_sigma])


@dataclass(frozen=True, slots=True, eq=False)
class _Windows:
    """Windows at the fitted contents; counts of all rows, of which each window uses some."""

    fit: _Fit
    coefficients: FloatArray  # of the sums
    row: IntArray
    mean: FloatArray  # of all counts
    cov: FloatArray  # beside the Poisson one

    def take(self, some: IntArray) -> _Windows:
        """Return some of the windows."""
        it = self.fit
        fit = _Fit(*(part[some] for part in (it.observed, it.seen, it.base, it.cov, it.x, it.shift)))
        return replace(self, fit=fit, coefficients=self.coefficients[some], row=self.row[some])


def _scale(windows: _Windows, truths: FloatArray, critical: FloatArray, level: float, rng: Rng) -> FloatArray:
    """Return the factors on √c with which intervals hold the fitted contents in pseudo-experiments."""
    n = len(windows.coefficients)
    size, vectors = np.linalg.eigh(windows.cov)
    root = vectors * np.sqrt(np.maximum(size, 0.0))
    pairs, ratio = [], []
    toys = max(1, TOGETHER // n)
    for _ in range(VALUES // TOGETHER):
        chosen = rng.permutation(n)[:TOGETHER]
        some, toy = windows.take(np.tile(chosen, toys)), np.repeat(np.arange(toys), len(chosen))
        mean = windows.mean + rng.normal(size=(toys, len(root))) @ root.T
        drawn = np.maximum(rng.poisson(np.maximum(mean, 0.0)), EMPTY)
        start = replace(some.fit, observed=drawn[toy[:, None], some.row])
        true = (some.coefficients * start.x).sum(axis=1)
        best = _minimum(start, some.coefficients, None)[0]
        there, _, z = _minimum(best, some.coefficients, true)
        rise = np.sqrt(np.maximum(2 * (there.loss() - best.loss()), 0.0))
        ratio.append(rise / np.interp(true / _errors(there, z, some.coefficients), truths, critical))
        pairs.append(np.log(true))
    where, found = np.concatenate(pairs), np.concatenate(ratio)
    blocks = np.array_split(np.argsort(where), max(1, len(where) // BLOCK))
    middle = [np.median(where[block]) for block in blocks]
    scale = [np.quantile(found[block], level) for block in blocks]
    at = np.log((windows.coefficients * windows.fit.x).sum(axis=1))
    return np.asarray(np.interp(at, middle, scale))


def _windows(counts: Counts, content: FloatArray, sums: FloatArray) -> _Windows:
    """Return the windows at the fitted contents, in pairs of the mean weight of their cell that are seen."""
    weight = np.broadcast_to(counts.weight, counts.observed.shape)
    matrix = counts.matrix.toarray() / weight[:, None]
    scale = 1 / np.maximum(matrix.sum(axis=0), 1e-300)
    matrix, start, weights = matrix * scale, content / scale, sums * scale
    observed, base = counts.observed / weight, counts.base / weight
    mean = np.maximum(matrix @ start + base, EMPTY)
    whole = counts.covariance(content) / np.outer(weight, weight)
    extra = whole - np.diag(np.maximum(mean, 0.05 / weight))
    fisher = matrix.T @ np.linalg.solve(whole, matrix)
    fisher[np.diag_indices_from(fisher)] += 1e-6 * np.trace(fisher) / len(fisher)
    inverse = np.linalg.inv(fisher)
    near = np.abs(weights @ inverse) / np.sqrt(np.diag(inverse))
    near[weights > 0] = np.inf
    n = min(WINDOW + int((weights > 0).sum(axis=1).max()), matrix.shape[1])
    cell = np.argsort(-near, axis=1)[:, :n]
    best = np.array([matrix[:, window].max(axis=1) for window in cell])
    row = np.argsort(-best, axis=1)[:, : int((best > SEEN).sum(axis=1).max())]
    seen = matrix[row[:, :, None], cell[:, None, :]]
    x = start[cell]
    rest = (matrix @ start + base)[row] - np.matmul(seen, x[:, :, None])[:, :, 0]
    cov = extra[row[:, :, None], row[:, None, :]]
    x = np.maximum(x, EMPTY)
    low = np.matmul(seen, x[:, :, None])[:, :, 0] + rest
    coefficients = np.take_along_axis(weights, cell, axis=1)
    fit = _Fit(np.maximum(observed[row], EMPTY), seen, rest, cov, x, np.maximum(EMPTY - low, 0.0))
    return _Windows(fit, coefficients, row, mean, extra)


def _minimum(
    fit: _Fit, coefficients: FloatArray, t: FloatArray | None
) -> tuple[_Fit, FloatArray, FloatArray]:
    """Return the minimum of −ln L, at sums `t` where these are given, its slope in t, and z.

    Primal-dual interior points: x z falls to `BARRIER`. η is eliminated: its curvature D + C⁻¹, D = N/μ²,
    leaves Pᵀ √D (1 + √D C √D)⁻¹ √D P for the contents.
    """
    barrier = np.full(len(fit.x), BARRIER[0])
    z = barrier[:, None] / fit.x
    diagonal = np.arange(fit.x.shape[1])
    slope = np.zeros(len(fit.x))
    for _ in range(STEPS):
        mean = fit.mean
        gradient = 1 - fit.observed / mean
        root: FloatArray = np.sqrt(fit.observed) / mean
        inner = root[:, :, None] * fit.cov * root[:, None, :] + np.eye(root.shape[1])
        inverse: FloatArray = np.asarray(np.linalg.inv(inner), dtype=np.float64)
        pushed: FloatArray = _times(fit.cov, gradient) + fit.shift
        scaled = root[:, :, None] * fit.seen
        white = np.matmul(inverse, scaled)
        curvature = np.matmul(scaled.transpose(0, 2, 1), white)
        curvature[:, diagonal, diagonal] += z / fit.x
        right = _times(white.transpose(0, 2, 1), root * pushed) + barrier[:, None] / fit.x
        right -= _times(fit.seen.transpose(0, 2, 1), gradient)
        step, along = np.moveaxis(np.linalg.solve(curvature, np.stack([right, coefficients], axis=2)), 2, 0)
        if t is not None:
            left = t - (coefficients * (fit.x + step)).sum(axis=1)
            slope = left / (coefficients * along).sum(axis=1)
            step = step + slope[:, None] * along
        pushed += _times(fit.cov, root * (root * _times(fit.seen, step)))
        shift = _times(fit.cov, root * _times(inverse, root * pushed)) - pushed
        change = _times(fit.seen, step) + shift
        pace = np.minimum(_within(fit.x, step), _within(mean, change))
        dual = barrier[:, None] / fit.x - z - z / fit.x * step
        z = z + _within(z, dual)[:, None] * dual
        fit = replace(fit, x=fit.x + pace[:, None] * step, shift=fit.shift + pace[:, None] * shift)
        if (barrier <= BARRIER[1]).all() and (pace > 0.99).all() and np.abs(change * root).max() < EXACT:
            break
        barrier = np.where(pace > 0.5, np.maximum(0.1 * barrier, BARRIER[1]), barrier)
    return fit, slope, z


def _errors(fit: _Fit, z: FloatArray, coefficients: FloatArray) -> FloatArray:
    """Return the standard deviations of the sums if these contents are true; other cells keep to bounds."""
    variance = fit.cov + fit.mean[:, :, None] * np.eye(fit.mean.shape[1])
    curvature = np.matmul(fit.seen.transpose(0, 2, 1), np.linalg.solve(variance, fit.seen))
    diagonal = np.arange(fit.x.shape[1])
    curvature[:, diagonal, diagonal] += np.where(coefficients > 0, 1e-9, z / fit.x)
    along = np.linalg.solve(curvature, coefficients[:, :, None])[:, :, 0]
    return np.asarray(np.sqrt((coefficients * along).sum(axis=1)))


def _times(matrix: FloatArray, vector: FloatArray) -> FloatArray:
    return np.asarray(np.matmul(matrix, vector[:, :, None])[:, :, 0])


def _within(value: FloatArray, step: FloatArray) -> FloatArray:
    """Return the part of a step, at most 1, that keeps values positive."""
    most = np.where(step < 0, -value / np.minimum(step, -1e-300), np.inf).min(axis=1)
    return np.asarray(np.minimum(1.0, INSIDE * most))
