"""Covariance of unfolded spectra, and χ² tests with it."""

from __future__ import annotations

import numpy as np

from gammastar.core.errors import UserError
from gammastar.core.records import FloatArray, Response, Spectrum

__all__ = ["chi2", "hartlap", "propagated", "refolding"]


def propagated(derivative: FloatArray, cov: FloatArray) -> FloatArray:
    """Return D V Dᵀ, symmetric to rounding.

    Parameters
    ----------
    derivative : NDArray, shape (n, m)
    cov : NDArray, shape (m, m)
    """
    result: FloatArray = derivative @ cov @ derivative.T
    return (result + result.T) / 2


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
