"""Iterative (D'Agostini) unfolding with acceptance, efficiency and fakes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from scipy import sparse

from gammastar.core.errors import UserError
from gammastar.core.records import FloatArray, Response, Spectrum
from gammastar.core.stats import filled
from gammastar.unfold.covariance import propagated
from gammastar.unfold.response import EFFICIENCY_FLOOR
from gammastar.unfold.simulated import RECOVERY, mc_statistics, simulation_bias

__all__ = ["check_axes", "iterative", "stable_iterations", "unfold_values"]


def check_axes(found: Sequence[Any], wanted: Sequence[Any], what: str) -> None:
    """Refuse a spectrum whose axes are not those of the response.

    Raises
    ------
    UserError
        If names or edges differ.
    """
    same = len(found) == len(wanted) and all(
        a.name == b.name and len(a) == len(b) and np.allclose(a.edges, b.edges, rtol=1e-9, atol=0)
        for a, b in zip(found, wanted, strict=True)
    )
    if not same:
        names = [[f"{a.name}({len(a)})" for a in axes] for axes in (found, wanted)]
        msg = f"unfold: {what} has the axes {names[0]}, the response {names[1]}; names and edges must agree"
        raise UserError(msg)


def unfold_values(
    y: FloatArray, response: Response, prior: FloatArray, n_iterations: int
) -> tuple[FloatArray, FloatArray]:
    """Return the unfolded values and their derivative with respect to `y`.

    Parameters
    ----------
    y : NDArray, shape (n_reco,)
        Measured content without fakes; may be negative or not integer.
    response : Response
    prior : NDArray, shape (n_true,)
        Start of the iteration, not negative.
    n_iterations : int

    Returns
    -------
    n : NDArray, shape (n_true,)
    derivative : NDArray, shape (n_true, n_reco)

    Notes
    -----
    n' = M y with M_ij = P(j|i) n_i / (ε_i f_j), f = P n (arXiv:1010.0632), and the full chain of derivatives
    ∂n'_i/∂y_j = M_ij + (n'_i/n_i) ∂n_i/∂y_j − Σ_k M_ik (y_k/f_k) (P ∂n/∂y)_kj (Adye, arXiv:1105.1160).
    Cells that come out negative stay so in the result; as the prior of the next iteration they are replaced
    by 1 % of the first prior, scaled to the data, so that no f_j vanishes or changes sign.
    """
    return next(islice(_steps(y, response, prior), n_iterations - 1, None))


def _steps(y: FloatArray, response: Response, prior: FloatArray) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield the estimate and its derivative of one iteration after the other, without end."""
    migration = sparse.csr_array(response.migration)
    transposed = sparse.csr_array(response.migration.T)
    efficiency = response.efficiency
    inverse = np.divide(1.0, efficiency, out=np.zeros_like(efficiency), where=efficiency > 0)
    rescue = RECOVERY * prior * abs(y.sum()) / max(float(efficiency @ prior), np.finfo(float).tiny)
    n, slope = prior.astype(np.float64), np.zeros((len(prior), len(y)))
    while True:
        folded = migration @ n
        per_folded = np.divide(1.0, folded, out=np.zeros_like(folded), where=folded > 0)
        ratio = y * per_folded
        gain = inverse * (transposed @ ratio)
        estimate = n * gain
        scale = sparse.diags_array(n * inverse) @ transposed
        derivative = (scale @ sparse.diags_array(per_folded)).toarray() + gain[:, None] * slope
        derivative -= (scale @ sparse.diags_array(ratio * per_folded)) @ (migration @ slope)
        yield estimate, derivative
        kept = estimate > 0
        n = np.where(kept, estimate, np.where(prior > 0, rescue, 0.0))
        slope = np.where(kept[:, None], derivative, 0.0)


def stable_iterations(
    measured: Spectrum,
    response: Response,
    *,
    change: float = 0.05,
    most: int = 50,
    efficiency_floor: float = EFFICIENCY_FLOOR,
) -> int:
    """Return the number of iterations after which one more hardly moves the result.

    Parameters
    ----------
    measured : Spectrum
    response : Response
    change : float
        Largest change of any cell that stops, in its statistical standard deviations.
    most : int
        Upper limit of the number.
    efficiency_floor : float
        Cells of lower efficiency do not count.

    Raises
    ------
    UserError
        If the axes do not fit.

    Notes
    -----
    The standard deviation of a cell holds at least one reconstructed pair, 1/ε. Fewer iterations lean on the
    prior: their errors are small and do not contain the distance to the truth.
    """
    check_axes(tuple(measured.hist.axes), response.reco, "the measured spectrum")
    genuine = 1 - response.fakes
    use = response.efficiency >= efficiency_floor
    one_pair = 1 / response.efficiency[use]
    before: FloatArray | None = None
    steps = _steps(measured.values.ravel() * genuine, response, response.prior)
    for k, (estimate, derivative) in enumerate(islice(steps, most), start=1):
        slope = derivative[use] * genuine
        variance = np.einsum("ij,ij->i", slope @ measured.cov, slope) + one_pair**2
        if before is not None:
            moved = np.abs(estimate[use] - before) / np.sqrt(variance)
            if moved.max(initial=0.0) < change:
                return k
        before = estimate[use]
    return most


def iterative(
    measured: Spectrum,
    response: Response,
    *,
    n_iterations: int = 4,
    efficiency_floor: float = EFFICIENCY_FLOOR,
    prior: FloatArray | None = None,
    debias: bool = False,
) -> Spectrum:
    """Unfold resolution, acceptance and efficiency.

    Parameters
    ----------
    measured : Spectrum
        On the reconstructed axes of `response`; signed contents and correlated errors are welcome.
    response : Response
    n_iterations : int
        Strength of the regularisation: few iterations stay near the prior, many follow the data.
    efficiency_floor : float
        True cells of lower efficiency are left out: value and covariance 0, not in the domain.
    prior : NDArray, shape of the true cells, optional
        Start of the iteration, taken as exact; the true spectrum of the simulation by default.
    debias : bool
        Subtract the bias that the finite simulation makes, as its replicas show it; without replicas
        nothing is subtracted.

    Returns
    -------
    Spectrum
        On the true axes. Its covariance is that of `measured` through the full derivative plus, if the
        response has replicas, that of the Monte Carlo statistics (`mc_statistics`).

    Raises
    ------
    UserError
        If axes, prior or the number of iterations do not fit.

    Notes
    -----
    D'Agostini, NIM A362 (1995) 487 and arXiv:1010.0632; derivative: Adye, arXiv:1105.1160. The bias and its
    estimate: `simulation_bias`. Subtracting it adds to the scatter: the estimate follows the simulation, and
    of K replicas it has an error of its own, 1/K of the variance from Monte Carlo statistics.
    """
    check_axes(tuple(measured.hist.axes), response.reco, "the measured spectrum")
    if n_iterations < 1:
        msg = f"unfold: n_iterations = {n_iterations} must be at least 1"
        raise UserError(msg)
    if not 0 < efficiency_floor <= 1:
        msg = f"unfold: efficiency_floor = {efficiency_floor} must lie in (0, 1]"
        raise UserError(msg)
    start = response.prior if prior is None else np.asarray(prior, dtype=np.float64).ravel()
    if start.shape != response.prior.shape or not np.isfinite(start).all() or (start < 0).any():
        msg = f"unfold: the prior must hold {response.prior.size} finite numbers, none negative"
        raise UserError(msg)
    if prior is not None:
        response = replace(response, prior_replicas=np.zeros((0, start.size)))
    genuine = 1 - response.fakes
    y = measured.values.ravel() * genuine
    values, derivative = unfold_values(y, response, start, n_iterations)
    cov = propagated(derivative * genuine, measured.cov)
    cov = cov + mc_statistics(y, response, start, n_iterations)
    if debias:
        values = values - simulation_bias(y, response, start, n_iterations)
    domain = response.efficiency >= efficiency_floor
    values = np.where(domain, values, 0.0)
    cov = np.where(np.outer(domain, domain), cov, 0.0)
    shape = tuple(len(axis) for axis in response.true)
    hist = filled(response.true, values, np.diag(cov))
    return Spectrum(hist, cov, "counts", measured.exposure, domain.reshape(shape))
