"""Counts of pairs as smooth fields: the like-sign background as a likelihood, and posterior weights.

++ and −− pairs are Poisson counts of two fields; opposite-sign pairs are weighted with the probability of
their cell to be signal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import brentq
from scipy.special import chdtrc

from gammastar.core.records import FloatArray, PairHists, Spectrum, filled, flow_free, rescaled
from gammastar.physics import pair_counts

UNKNOWN = 1.0  # relative error of R of a cell without mixed pairs
LEAST_P = 0.01  # p-value of a projection below which weights do not agree with the subtraction
FARTHEST = 10.0  # standard deviations by which the sum of a fit is moved to that of the subtraction


@dataclass(frozen=True, slots=True, eq=False)
class SmoothBackground:
    """B = 2R √(p m) of all cells."""

    # Without an error of R that is common to all cells
    value: FloatArray
    cov: FloatArray
    r_factor: FloatArray  # shape (n_cells,)
    # √(m/p): what a ++ pair counts for, R times; a −− pair counts for R over it, shape (n_cells,)
    ratio: FloatArray

    def subtracted(self, hists: PairHists, common: float) -> Spectrum:
        """Return the pairs without background, of its variance at least; `common`: error of R."""
        (os, variance), axes = flow_free(hists.os), tuple(hists.os.axes)
        weight = pair_counts.mean_weights(os, variance, tuple(map(len, axes)))
        cov = self.cov + np.diag(np.maximum(variance, weight * self.value))
        cov += np.outer(self.value, self.value) * common**2
        shape = tuple(len(axis) for axis in axes)
        return Spectrum(
            filled(axes, os - self.value, np.diag(cov)), cov, "counts", None, np.ones(shape, dtype=bool)
        )


def smooth_background(
    hists: PairHists, r_factor: float | FloatArray, r_factor_sigma: float | FloatArray
) -> SmoothBackground:
    """Return the background of like-sign pairs whose expectations are smooth over the cells.

    2√(N₊₊N₋₋) of counts is biased low where they are few, and has no error at zero; of expectations it is
    neither. The fields are those of `gammastar.physics.pair_counts`, their smoothness is fitted.
    """
    shape = tuple(len(axis) for axis in hists.os.axes)
    logs, covs = zip(*(_field(*flow_free(part), shape) for part in (hists.pp, hists.mm)), strict=True)
    relative = 0.25 * (covs[0] + covs[1])
    if np.ndim(r_factor):
        r, own = _smooth_ratio(np.ravel(r_factor), np.ravel(r_factor_sigma), shape)
        relative = relative + own
    else:
        r = np.full(len(logs[0]), float(r_factor))
    value = 2 * r * np.exp(0.5 * (logs[0] + logs[1]))
    return SmoothBackground(value, relative * np.outer(value, value), r, np.exp(0.5 * (logs[1] - logs[0])))


def _field(
    values: FloatArray, variances: FloatArray, shape: tuple[int, ...]
) -> tuple[FloatArray, FloatArray]:
    """Return the logarithm of the expectation of counts, and its covariance."""
    weight = pair_counts.mean_weights(values, variances, shape)
    found = pair_counts.seen_directly(values, shape, weight)
    return np.log(found.content), found.cov / np.outer(found.content, found.content)


def _smooth_ratio(r: FloatArray, sigma: FloatArray, shape: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
    """Return R of cells as a field, and the covariance of its logarithm."""
    found = pair_counts.seen_directly(r, shape, errors=np.where(sigma > 0, sigma, UNKNOWN))
    return found.content, found.cov / np.outer(found.content, found.content)


def signal_shares(hists: PairHists, subtracted: Spectrum) -> FloatArray:
    """Return the share of signal in the opposite-sign pairs of each cell (n_cells,), not negative.

    Opposite-sign pairs are counts of λ + B, with λ a field of `gammastar.physics.pair_counts`; the share is
    λ/(λ + B). At the maximum of a Poisson likelihood Σ N λ/(λ + B) = Σ λ along every direction in which λ is
    free: the weights have the projections of the fit. In a cell whose background fluctuated above its
    pairs 1 − B/N would be cut off at zero, and the sum of many such cells too large. The weights of all pairs
    have the sum of `subtracted`; given it, λ moves by its covariance with it: little where it is well known.
    """
    os, variance = flow_free(hists.os)
    left, n = subtracted.values.ravel(), len(os)
    weight = pair_counts.mean_weights(os, variance, subtracted.values.shape)
    base = np.maximum(os - left, 0.0)
    base_cov = np.diag(np.maximum(np.diag(subtracted.cov) - np.maximum(variance, weight * base), 0.0))
    counts = pair_counts.Counts(os, sparse.csr_array(sparse.eye_array(n)), base, base_cov, weight)
    mean = np.full(n, max(float(left.mean()), pair_counts.LEAST))
    found = pair_counts.fit(counts, pair_counts.Prior(mean, subtracted.values.shape, np.arange(n)))
    total, along = float(left.sum()), found.cov.sum(axis=1)

    def shares(k: float) -> FloatArray:
        signal = found.content * np.exp(np.clip(k * along / found.content, -50, 50))
        return np.asarray(signal / (signal + base))

    def missing(k: float) -> float:
        return float(shares(k) @ os) - total

    far = FARTHEST / np.sqrt(max(float(along.sum()), 1e-300))
    best = shares(brentq(missing, -far, far) if missing(-far) < 0 < missing(far) else 0.0)
    return rescaled(best, total * float(best.sum()) / max(float(best @ os), 1e-300))


def disagreement(hists: PairHists, subtracted: Spectrum, shares: FloatArray) -> str:
    """Say in which projections the weights differ from the subtracted pairs, "" if in none."""
    values = subtracted.values
    off = shares.reshape(values.shape) * np.asarray(hists.os.values()) - values
    place = np.indices(values.shape).reshape(values.ndim, -1)
    far = []
    for axis, index in zip(subtracted.hist.axes, place, strict=True):
        rows = (index == np.arange(len(axis))[:, None]).astype(np.float64)
        cov, difference = rows @ subtracted.cov @ rows.T, rows @ off.ravel()
        chi2 = float(difference @ np.linalg.pinv(cov, hermitian=True) @ difference)
        if chdtrc(len(axis), chi2) < LEAST_P:
            far.append(f"{axis.name} (χ² {chi2:.0f} of {len(axis)} bins)")
    where = f"{', '.join(far)}; look at r_factor"
    return f"weights that are not negative differ from the subtracted pairs in {where}" if far else ""
