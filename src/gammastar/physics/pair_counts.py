"""Contents of cells as log-Gaussian fields: as smooth as the data ask for, never negative, with their errors.

The one model of counts of pairs: the like-sign background is a field that is seen directly, the spectrum one
that is seen through a response, on top of the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy import linalg, ndimage, optimize, sparse

from gammastar.core.records import FloatArray, IntArray

# Expected scatter of the logarithm of a cell about its neighbours: over a simulation, of like-sign pairs
ROUGH, SMOOTH = 0.05, 0.03
LEVEL = 3.0  # standard deviation of the logarithm of the overall scale
WIDTH = 0.7  # correlation length along the other axes, in their range
# Amplitude and length on the longest axis, amplitude on others, of all together; then spreads of their
# logarithms and of that of the scatter
CENTRE, SPREAD = (0.3, 0.25, 0.3, 0.3), (1.0, 0.5, 1.0, 0.5, 1.0)
LINE, LINE_SPREAD, LINE_SHAPE = -1.0, 3.0, 0.5  # logarithm of a line over the continuum in its highest bin
SMALLEST = 1e-3  # eigenvalues of a correlation, relative to the largest, below which they are left out
WIDEST = 1.0  # variance of a logarithm up to which contents count as log-normal
LEAST = 0.05  # pairs in a cell: its variance is at least that of so many
POOLED, FIRST = 20, 3  # pairs of which a mean weight is taken; bins of the longest axis before other axes
STEPS, CHANGE = 60, 1e-3  # Newton steps at most; twice what the last one gains in the likelihood
ROUNDS, EVALUATIONS = 2, 100


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """Numbers of pairs in cells, expected to be P λ + b."""

    observed: FloatArray  # shape (n_seen,)
    matrix: sparse.csr_array  # P, seen per content of a cell, shape (n_seen, n)
    # b and its covariance
    base: FloatArray
    base_cov: FloatArray
    weight: float | FloatArray = 1.0  # Variance of a count over its expectation: `mean_weights`
    # Simulated photons behind each column of `matrix`; none where it is known exactly, shape (n,)
    entries: FloatArray = field(default_factory=lambda: np.zeros(0))
    # Σw² of the photons behind each element of `matrix` over (Σw)² of its column; P over entries by default
    squares: sparse.csr_array | None = None
    # Covariance of the counts where it is known, instead of that of their expectation, shape (n_seen, n_seen)
    fixed: FloatArray | None = None

    def covariance(self, content: FloatArray, rough: FloatArray | None = None) -> FloatArray:
        """Return the covariance of the counts about the expectation for these contents.

        Simulated photons of one cell share its sum, P_ji = Σ_j w / Σ w: with Q_ji = Σ_j w² / (Σ w)²
        Cov(P_ji, P_ki) = δ_jk Q_ji − P_ji Q_ki − Q_ji P_ki + P_ji P_ki/T_i, multinomial for equal weights.
        """
        mean = np.maximum(self.matrix @ content + self.base, LEAST)
        total = self.base_cov + np.diag(self.weight * mean) if self.fixed is None else self.fixed.copy()
        if len(self.entries):
            square = content**2
            own = self.matrix / self.entries[None, :] if self.squares is None else self.squares
            shared = np.asarray(((self.matrix * square[None, :]) @ own.T).todense())
            total += np.diag(own @ square) - shared - shared.T + self._folded(square / self.entries)
        return total if rough is None else total + self._folded((rough * content) ** 2)

    def _folded(self, diagonal: FloatArray) -> FloatArray:
        scaled = self.matrix * np.sqrt(diagonal)[None, :]
        return np.asarray((scaled @ scaled.T).todense())


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """Cells before the data."""

    content: FloatArray  # Positive; the field multiplies it, shape (n,)
    shape: tuple[int, ...]  # Of the grid of cells
    used: IntArray  # Number of each cell in the grid, shape (n,)
    # Narrow lines along the first axis, 1 in their highest bin, shape (k, shape[0])
    lines: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    rough: float = ROUGH  # Expected scatter of the logarithms of bins and cells about the smooth ratio
    # Variance of the logarithm of each cell that the simulation adds, shape (n,) or (1,)
    noise: FloatArray = field(default_factory=lambda: np.zeros(1))
    free: float = 0.0  # Scatter of whole bins of the longest axis, beside the fitted one

    @property
    def place(self) -> tuple[IntArray, ...]:
        """Bin of every cell along every axis."""
        return np.unravel_index(self.used, self.shape)

    def basis(self, hyper: FloatArray) -> FloatArray:
        """Return Z, shape (n, r), of a field Z c with unit normals c.

        `hyper`: logarithms of amplitude and correlation length along the longest axis, of the amplitudes
        along the others, of that of all axes together, and of the scatter of whole bins of the longest axis
        and of single cells.
        """
        main, rows = int(np.argmax(self.shape)), self.place
        amplitude, length = np.exp(hyper[:2])
        fine = _root(self.shape[main], length)[rows[main]]
        wide = _root(self.shape[main], 2 * length)[rows[main]]
        columns, together = [np.full((len(self.used), 1), LEVEL), amplitude * fine], fine
        others = [axis for axis in range(len(self.shape)) if axis != main]
        for axis, size in zip(others, np.exp(hyper[2:-3]), strict=True):
            along = _root(self.shape[axis], WIDTH)[rows[axis]]
            columns += [size * along, 0.5 * size * _product(wide, along)]
            together = _product(together, along)
        if not others:
            return np.hstack(columns)
        bins = np.eye(self.shape[main])[rows[main]]
        scatter = np.hypot(np.exp(hyper[-2]), self.free)
        return np.hstack([*columns, np.exp(hyper[-3]) * together, scatter * bins])

    def scatter(self, hyper: FloatArray) -> FloatArray:
        """Return the standard deviation of the logarithm of each cell about the field."""
        return np.asarray(np.sqrt(np.exp(2 * hyper[-1]) + self.noise))

    @property
    def line_basis(self) -> FloatArray:
        """A, shape (n, q), of the logarithm A v of a line: its size, and its shape along the other axes."""
        ones = np.ones((len(self.used), 1))
        shape = ones
        for axis, n in enumerate(self.shape[1:], start=1):
            shape = _product(shape, _root(n, WIDTH)[self.place[axis]])
        return np.hstack([LINE_SPREAD * ones, LINE_SHAPE * shape])


def _root(n: int, length: float) -> FloatArray:
    """Return R, shape (n, rank), with R Rᵀ a Matérn-3/2 correlation of n bins."""
    x = np.arange(n) / max(n - 1, 1)
    distance = np.sqrt(3) * np.abs(x[:, None] - x) / length
    size, vectors = np.linalg.eigh((1 + distance) * np.exp(-distance))
    kept = size > SMALLEST * size[-1]
    return np.asarray(vectors[:, kept] * np.sqrt(size[kept]))


def _product(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.asarray((a[:, :, None] * b[:, None, :]).reshape(len(a), -1))


@dataclass(frozen=True, slots=True, eq=False)
class _Field:
    """λ = x₀ exp(Z c) (1 + Σ t exp(A v)), with coefficients (c, v)."""

    prior: Prior
    basis: FloatArray
    lines: FloatArray

    def content(self, point: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return λ and its derivative by the coefficients."""
        r, q = self.basis.shape[1], self.lines.shape[1]
        smooth = self.prior.content * np.exp(np.clip(self.basis @ point[:r], -50, 50))
        total, slopes = smooth.copy(), []
        for k, line in enumerate(self.prior.lines):
            logarithm = LINE + self.lines @ point[r + k * q : r + (k + 1) * q]
            part = smooth * line[self.prior.place[0]] * np.exp(np.clip(logarithm, -50, 50))
            total += part
            slopes.append(part[:, None] * self.lines)
        return total, np.hstack([total[:, None] * self.basis, *slopes])

    def near(self, logarithm: FloatArray, lines: FloatArray) -> FloatArray:
        """Return coefficients of about this field."""
        inner = self.basis.T @ self.basis
        inner[np.diag_indices_from(inner)] += 1e-2
        return np.concatenate([linalg.solve(inner, self.basis.T @ logarithm, assume_a="pos"), lines])

    def converged(self, counts: Counts, point: FloatArray, rough: FloatArray | None = None) -> FloatArray:
        """Return the most likely coefficients, with the covariance of the counts at their expectation."""
        pace, before = 1.0, np.inf
        for _ in range(STEPS):
            content, slope = self.content(point)
            white = linalg.cholesky(counts.covariance(content, rough), lower=True)
            seen = linalg.solve_triangular(white, counts.matrix @ slope, lower=True)
            left = counts.observed - counts.base - counts.matrix @ content
            gain = seen.T @ linalg.solve_triangular(white, left, lower=True) - point
            inner = seen.T @ seen
            inner[np.diag_indices_from(inner)] += 1
            step = linalg.solve(inner, gain, assume_a="pos")
            largest = np.abs(slope @ step / content).max()  # of the logarithm of any cell
            pace = 0.5 * pace if largest < 1 and gain @ step > 0.5 * before else pace
            point, before = point + step * min(pace, 1.0 / max(largest, 1e-300)), gain @ step
            if before < CHANGE:
                break
        return point


class Goodness(NamedTuple):
    """χ² of the counts about the fit; its mean and standard deviation where nothing is wrong."""

    chi2: float
    mean: float
    spread: float
    n_counts: int


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """Contents of cells."""

    # The covariance is of data, simulation, base, and of what the data leave to the prior
    content: FloatArray
    cov: FloatArray
    # Counts, and their covariance about the truth
    expected: FloatArray
    seen_cov: FloatArray
    hyper: FloatArray  # Logarithms of amplitudes and length, see `Prior.basis`
    goodness: Goodness


def hyperparameters(counts: Counts, prior: Prior) -> FloatArray:
    """Return the amplitudes and the length of largest marginal likelihood, with priors of their own.

    About a first fit the counts are linear in the field and normal with the covariance of their expectation
    (penalised quasi-likelihood; Breslow and Clayton, J. Am. Stat. Assoc. 88 (1993) 9).
    """
    kinds = [0, 1, *[2] * (len(prior.shape) - 1), 3]
    centre = np.log([*(CENTRE[k] for k in kinds), prior.rough, prior.rough])
    spread = np.array([*(SPREAD[k] for k in kinds), SPREAD[-1], SPREAD[-1]])
    hyper, lines, point = centre, prior.line_basis, None
    for _ in range(ROUNDS):
        model = _Field(prior, prior.basis(hyper), lines)
        r = model.basis.shape[1]
        if point is None:
            point = np.zeros(r + len(prior.lines) * lines.shape[1])
        point = model.converged(counts, point, prior.scatter(hyper))
        content, slope = model.content(point)
        matrix = counts.matrix.toarray() * content
        left = counts.observed - counts.base - counts.matrix @ content
        logarithm = model.basis @ point[:r]
        data = left + matrix @ logarithm + counts.matrix @ slope[:, r:] @ point[r:]
        # One basis in which the covariance is diagonal at any scatter of the cells
        white = linalg.cholesky(counts.covariance(content, np.sqrt(prior.noise)), lower=True)
        cells = linalg.solve_triangular(white, matrix, lower=True)
        size, turn = linalg.eigh(cells @ cells.T)
        size = np.maximum(size, 0.0)
        seen, on_lines, data = (
            turn.T @ part
            for part in (
                cells,
                linalg.solve_triangular(white, counts.matrix @ slope[:, r:], lower=True),
                linalg.solve_triangular(white, data, lower=True),
            )
        )

        def loss(
            hyper: FloatArray,
            size: FloatArray = size,
            seen: FloatArray = seen,
            on_lines: FloatArray = on_lines,
            data: FloatArray = data,
        ) -> float:
            far = (hyper - centre) / spread
            if np.abs(far).max() > 5:
                return np.inf
            variance = 1 + np.exp(2 * hyper[-1]) * size
            scale = 1 / np.sqrt(variance)
            design = scale[:, None] * np.hstack([seen @ prior.basis(hyper), on_lines])
            inner = design.T @ design
            inner[np.diag_indices_from(inner)] += 1
            root = linalg.cholesky(inner, lower=True)
            fitted = linalg.solve_triangular(root, design.T @ (scale * data), lower=True)
            quadratic = far @ far + (scale * data) @ (scale * data) - fitted @ fitted
            return float(np.log(np.diag(root)).sum() + 0.5 * (np.log(variance).sum() + quadratic))

        simplex = np.vstack([hyper, hyper + np.diag(np.full(len(hyper), 0.7))])
        options = {"maxfev": EVALUATIONS, "xatol": 0.1, "fatol": 0.1, "initial_simplex": simplex}
        hyper = np.asarray(optimize.minimize(loss, hyper, method="Nelder-Mead", options=options).x)
        point = _Field(prior, prior.basis(hyper), lines).near(logarithm, point[r:])
    return hyper


def fit(counts: Counts, prior: Prior, hyper: FloatArray | None = None) -> Fitted:
    """Return the contents of the cells; `hyper` are those of `hyperparameters` by default."""
    hyper = hyperparameters(counts, prior) if hyper is None else hyper
    smooth = _Field(prior, prior.basis(hyper), prior.line_basis)
    r = smooth.basis.shape[1]
    point = np.zeros(r + len(prior.lines) * smooth.lines.shape[1])
    scatter = prior.scatter(hyper)
    point = smooth.converged(counts, point, scatter)
    covariance = smooth.basis @ smooth.basis.T
    covariance[np.diag_indices_from(covariance)] += scatter**2
    model = _Field(prior, linalg.cholesky(covariance, lower=True), smooth.lines)
    begun = linalg.solve_triangular(model.basis, smooth.basis @ point[:r], lower=True)
    point = model.converged(counts, np.concatenate([begun, point[r:]]))
    content, slope = model.content(point)
    cov = counts.covariance(content)
    white = linalg.cholesky(cov, lower=True)
    seen = linalg.solve_triangular(white, counts.matrix @ slope, lower=True)
    expected = counts.matrix @ content + counts.base
    inner = seen.T @ seen
    inner[np.diag_indices_from(inner)] += 1
    factor = linalg.cholesky(inner, lower=True)
    root = linalg.solve_triangular(factor, slope.T, lower=True)
    goodness = _goodness(counts, expected, cov, root)
    widened = root * _log_normal(np.einsum("ij,ij->j", root, root) / np.maximum(content, 1e-150) ** 2)
    return Fitted(content, widened.T @ widened, expected, cov, hyper, goodness)


def _goodness(counts: Counts, expected: FloatArray, cov: FloatArray, root: FloatArray) -> Goodness:
    """Compare counts with a fit of covariance rootᵀ root.

    Cells of less than one expected pair count as one together: no χ² holds in them, less so with weights.
    The fourth cumulant of a Poisson number widens χ² by 1/μ per cell.
    """
    many = (expected >= counts.weight) | (counts.fixed is not None)
    group = np.where(many, np.cumsum(many) - 1, many.sum())
    n = int(group.max()) + 1
    sums = sparse.csr_array((np.ones(len(group)), (group, np.arange(len(group)))), shape=(n, len(group)))
    of_fit, total = sums @ counts.matrix @ root.T, np.asarray(sums @ cov @ sums.T)
    poisson = counts.weight * np.maximum(expected, LEAST)
    left = sums @ (counts.observed - expected)
    held = linalg.solve(total, total - of_fit @ of_fit.T, assume_a="pos")
    fourth = (sums @ (counts.weight**2 * poisson)) / (sums @ poisson) ** 2 * (counts.fixed is None)
    spread = np.sqrt(2 * (held * held.T).sum() + (np.diag(held) ** 2 * fourth).sum())
    chi2 = float(left @ linalg.solve(total, left, assume_a="pos"))
    return Goodness(chi2, float(np.trace(held)), float(spread), n)


def _log_normal(variance: FloatArray) -> FloatArray:
    """Return the rms distance of a log-normal number from its median, over σ times the median."""
    s = np.clip(variance, 1e-12, WIDEST)
    return np.asarray(np.sqrt((np.exp(2 * s) - 2 * np.exp(s / 2) + 1) / s))


def mean_weights(values: FloatArray, variances: FloatArray, shape: Sequence[int]) -> FloatArray:
    """Return the mean weight of a pair Σw²/Σw, of the cells around each that hold `POOLED` pairs, flat.

    Few pairs are pooled with those beside them, along the longest axis first: the weight of the pairs that
    happen to be in a cell makes its variance follow its fluctuation.
    """
    counts, squares = values.reshape(shape), variances.reshape(shape)
    total = float(counts.sum())
    result = np.full(counts.shape, float(squares.sum()) / total if total > 0 else 1.0)
    left, main = np.ones(counts.shape, dtype=bool), int(np.argmax(shape))
    for reach in range(max(shape)):
        size = [2 * (reach if axis == main else reach // FIRST) + 1 for axis in range(len(shape))]
        around = [ndimage.uniform_filter(x, size, mode="constant") * np.prod(size) for x in (counts, squares)]
        enough = left & (around[0] > 0) & (around[1] > 0) & (around[0] ** 2 >= POOLED * around[1])
        result[enough] = around[1][enough] / around[0][enough]
        left &= ~enough
        if not left.any():
            break
    return result.ravel()


def seen_directly(
    observed: FloatArray,
    shape: Sequence[int],
    weight: float | FloatArray = 1.0,
    *,
    errors: FloatArray | None = None,
) -> Fitted:
    """Return the smooth expectation of counts in all cells of a grid, or of values with known errors."""
    n = len(observed)
    fixed = None if errors is None else np.diag(errors**2)
    matrix = sparse.csr_array(sparse.eye_array(n))
    counts = Counts(observed, matrix, np.zeros(n), np.zeros((n, n)), weight, fixed=fixed)
    mean = np.full(n, max(float(observed.mean()), LEAST))
    return fit(counts, Prior(mean, tuple(shape), np.arange(n), rough=SMOOTH))
