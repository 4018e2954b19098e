"""Is a refolding χ² as it should be: its law under the unfolded spectrum, by toys of data and simulation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from gammastar.core.errors import UserError
from gammastar.core.records import FloatArray, Response, Spectrum
from gammastar.core.stats import filled
from gammastar.unfold.choose import Unfolder
from gammastar.unfold.covariance import refolding
from gammastar.unfold.response import without_replicas

__all__ = ["Refolding", "refolding_test"]


@dataclass(frozen=True, slots=True, eq=False)
class Refolding:
    """A refolding χ² beside those of toys.

    Attributes
    ----------
    chi2 : float
    cells : int
        Measured cells that enter it.
    toys : NDArray, shape (n_toys,)
        χ² of toys in which nothing is wrong.
    """

    chi2: float
    cells: int
    toys: FloatArray

    @property
    def expected(self) -> float:
        """Mean of the toys."""
        return float(self.toys.mean())

    @property
    def ndf(self) -> float:
        """Effective degrees of freedom, 2 E²/Var: χ² times ndf/expected follows their law nearly."""
        variance = float(self.toys.var(ddof=1))
        return 2 * self.expected**2 / variance if variance > 0 else float("inf")

    @property
    def p_value(self) -> float:
        """Chance of a larger χ², from the χ² law of the same mean and variance as the toys."""
        if self.expected <= 0 or not np.isfinite(self.ndf):
            return float(np.mean(self.toys >= self.chi2))
        return float(stats.chi2.sf(self.chi2 * self.ndf / self.expected, self.ndf))

    def __str__(self) -> str:
        """Return the test in one line."""
        return (
            f"refolding chi2 = {self.chi2:.1f} in {self.cells} cells, expected {self.expected:.1f} "
            f"(effective ndf {self.ndf:.1f}, {len(self.toys)} toys), p = {self.p_value:.2g}"
        )


def refolding_test(
    measured: Spectrum,
    response: Response,
    unfolder: Unfolder,
    *,
    rng: np.random.Generator,
    n_toys: int = 100,
) -> Refolding:
    """Unfold, fold again, and tell which χ² that should give.

    Parameters
    ----------
    measured : Spectrum
    response : Response
        Its replicas are the simulations of the toys; without replicas it is taken as exact.
    unfolder : function (measured, response) → Spectrum
    rng : numpy.random.Generator
    n_toys : int

    Returns
    -------
    Refolding

    Raises
    ------
    UserError
        If n_toys is below 10.

    Notes
    -----
    The number of measured cells is not the expectation: an unfolding fits up to as many numbers as there are
    true cells. With residuals A = P D − 1 of a method with derivative D, data of covariance V, and r times
    as many data as simulated pairs, E χ² = tr V⁻¹A V Aᵀ + r tr V⁻¹A C Aᵀ; C = V − Σ t_i P_i P_iᵀ is what
    the simulation adds to the folded spectrum of truth t. For least squares that is (n_reco − n_true)(1 + r).
    Toys need no derivative: the unfolded spectrum (the scaled prior outside its domain) is folded, fluctuates
    with the covariance of the data (Gaussian), and is unfolded with a replica of the response.
    """
    if n_toys < 10:
        msg = f"refolding_test: n_toys = {n_toys} must be at least 10"
        raise UserError(msg)
    found = unfolder(measured, response)
    chi2, cells = refolding(found, measured, response)
    inside = found.domain.ravel()
    known = float(response.prior[inside].sum())
    scale = float(found.values.sum()) / known if known > 0 else 1.0
    truth = np.where(inside, found.values.ravel(), response.prior * scale)
    genuine = np.where(response.fakes < 1, 1 - response.fakes, 1.0)
    expected = response.migration @ truth / genuine
    value, vector = np.linalg.eigh(measured.cov)
    root = vector * np.sqrt(np.clip(value, 0, None))
    toys = np.zeros(n_toys)
    for k in range(n_toys):
        y = expected + root @ rng.standard_normal(len(expected))
        hist = filled(response.reco, y.reshape(measured.values.shape), np.diag(measured.cov))
        data = replace(measured, hist=hist)
        simulated = _drawn(response, k)
        toys[k] = refolding(unfolder(data, simulated), data, simulated)[0]
    return Refolding(chi2, cells, toys)


def _drawn(response: Response, k: int) -> Response:
    """Return the k-th replica as a response without replicas."""
    plain, n = without_replicas(response), len(response.cov_replicas)
    if n == 0:
        return plain
    migration, priors = response.cov_replicas[k % n].astype(np.float64), response.prior_replicas
    prior = priors[k % n] if len(priors) else response.prior
    return replace(plain, migration=migration, efficiency=migration.sum(axis=0), prior=prior)
