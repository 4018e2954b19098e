"""Covariance of unfolded spectra: statistics, Monte Carlo statistics, and χ² tests with them."""

from __future__ import annotations

import numpy as np

from gammastar.core.errors import UserError
from gammastar.core.records import FloatArray, Response, Spectrum

__all__ = ["RECOVERY", "chi2", "hartlap", "mc_statistics", "propagated", "refolding"]

RECOVERY = 0.01  # share of the prior that a cell with a negative estimate starts the next iteration with
BLOCK = 2**25  # matrix elements of the replicas treated at once


def propagated(derivative: FloatArray, cov: FloatArray) -> FloatArray:
    """Return D V Dᵀ, symmetric to rounding.

    Parameters
    ----------
    derivative : NDArray, shape (n, m)
    cov : NDArray, shape (m, m)
    """
    result: FloatArray = derivative @ cov @ derivative.T
    return (result + result.T) / 2


def _unfold_many(y: FloatArray, migration: FloatArray, prior: FloatArray, n_iterations: int) -> FloatArray:
    """Return `y` unfolded with many migration matrices at once, shape (n_replicas, n_true)."""
    efficiency = migration.sum(axis=1, dtype=np.float64)
    inverse = np.divide(1.0, efficiency, out=np.zeros_like(efficiency), where=efficiency > 0)
    scale = abs(y.sum()) / np.maximum(efficiency @ prior, np.finfo(float).tiny)
    rescue = RECOVERY * scale[:, None] * prior
    n = np.broadcast_to(prior, efficiency.shape)
    estimate = n
    for _ in range(n_iterations):
        folded = np.matmul(migration, n[:, :, None].astype(migration.dtype))[:, :, 0].astype(np.float64)
        ratio = np.divide(y, folded, out=np.zeros_like(folded), where=folded > 0)
        back = np.matmul(ratio[:, None, :].astype(migration.dtype), migration)[:, 0, :]
        estimate = n * inverse * back
        n = np.where(estimate > 0, estimate, np.where(prior > 0, rescue, 0.0))
    return estimate


def mc_statistics(y: FloatArray, response: Response, prior: FloatArray, n_iterations: int) -> FloatArray:
    """Return the covariance from the finite simulation: the data unfolded with every replica.

    Parameters
    ----------
    y : NDArray, shape (n_reco,)
        Measured content without fakes.
    response : Response
    prior : NDArray, shape (n_true,)
    n_iterations : int

    Returns
    -------
    NDArray, shape (n_true, n_true)
        0 if the response has fewer than two replicas.

    Notes
    -----
    Estimated from K replicas its rank is at most K − 1: add it to the statistical covariance before
    inverting, or see `hartlap`.
    """
    replicas = response.cov_replicas
    n_true = len(prior)
    if len(replicas) < 2:
        return np.zeros((n_true, n_true))
    block = max(1, BLOCK // response.migration.size)
    parts = [
        _unfold_many(y, replicas[first : first + block], prior, n_iterations)
        for first in range(0, len(replicas), block)
    ]
    return np.cov(np.concatenate(parts), rowvar=False).reshape(n_true, n_true).astype(np.float64)


def hartlap(n_replicas: int, n_cells: int) -> float:
    """Return the factor that makes the inverse of a sample covariance unbiased.

    Parameters
    ----------
    n_replicas, n_cells : int

    Raises
    ------
    UserError
        If there are too few replicas to invert the covariance.

    Notes
    -----
    (K − p − 2)/(K − 1) multiplies the inverse; Hartlap, Simon and Schneider, astro-ph/0608064.

    Examples
    --------
    >>> hartlap(102, 50)
    0.49504950495049505
    """
    if n_replicas <= n_cells + 2:
        msg = f"hartlap: {n_replicas} replicas cannot fix the inverse covariance of {n_cells} cells"
        raise UserError(msg)
    return (n_replicas - n_cells - 2) / (n_replicas - 1)


def chi2(difference: FloatArray, cov: FloatArray) -> tuple[float, int]:
    """Return χ² of a difference and its number of degrees of freedom.

    Parameters
    ----------
    difference : NDArray, shape (n,)
    cov : NDArray, shape (n, n)
        Cells of zero variance are left out; directions without variance are projected out.

    Returns
    -------
    chi2 : float
    ndf : int
        Rank of the covariance.
    """
    use = np.diag(cov) > 0
    sigma = np.sqrt(np.diag(cov)[use])
    pull = difference[use] / sigma
    value, vector = np.linalg.eigh(cov[np.ix_(use, use)] / np.outer(sigma, sigma))
    good = value > 1e-10 * value.max(initial=0.0)
    projected = vector.T @ pull
    return float(np.sum(projected[good] ** 2 / value[good])), int(good.sum())


def refolding(unfolded: Spectrum, measured: Spectrum, response: Response) -> tuple[float, int]:
    """Return χ² between the unfolded spectrum folded again and the measured one, and its cells.

    The number of cells is not the expectation of the χ²: that comes from `refolding_test`.

    Parameters
    ----------
    unfolded, measured : Spectrum
    response : Response

    Notes
    -----
    The covariance is that of the measured spectrum: few iterations leave a χ² above the expectation where the
    prior is wrong. Cells without fakes-corrected expectation are left out.
    """
    genuine = 1 - response.fakes
    expected = response.migration @ unfolded.values.ravel()
    use = (response.migration @ response.prior > 0) & (genuine > 0)
    difference = np.where(use, expected - measured.values.ravel() * genuine, 0.0)
    cov = measured.cov * np.outer(genuine * use, genuine * use)
    return chi2(difference, cov)
