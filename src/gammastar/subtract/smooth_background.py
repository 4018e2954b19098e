"""The like-sign background as a likelihood: ++ and −− pairs are Poisson counts of two smooth fields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gammastar.core.records import FloatArray, PairHists, Spectrum, filled, flow_free
from gammastar.physics import pair_counts

UNKNOWN = 1.0  # relative error of R of a cell without mixed pairs


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
