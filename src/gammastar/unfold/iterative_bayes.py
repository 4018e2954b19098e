"""Iterative Bayesian unfolding, its strength, and what the finite simulation does to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np
from scipy import sparse

from gammastar.core.errors import UserError
from gammastar.core.records import FloatArray, Response, Spectrum, divided, filled
from gammastar.unfold.folding import Method, Options, Unfolder, check_axes, propagated
from gammastar.unfold.response_matrix import EFFICIENCY_FLOOR

RECOVERY = 0.01  # share of the prior that a cell with a negative estimate starts the next iteration with
ITERATIONS = (1.0, 2.0, 4.0, 6.0, 10.0, 20.0)  # of a scan
BLOCK = 2**25  # matrix elements of the replicas treated at once


def unfold_values(
    y: FloatArray, response: Response, prior: FloatArray, n_iterations: int
) -> tuple[FloatArray, FloatArray]:
    """Return the unfolded values and their derivative with respect to `y`.

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
    scaled, column = transposed.copy(), transposed.indices
    row = np.repeat(np.arange(len(prior)), np.diff(transposed.indptr))
    efficiency = response.efficiency
    inverse = divided(1.0, efficiency)
    rescue = RECOVERY * prior * abs(y.sum()) / max(float(efficiency @ prior), np.finfo(float).tiny)
    n, slope = prior.astype(np.float64), np.zeros((len(prior), len(y)))
    while True:
        folded = migration @ n
        per_folded = divided(1.0, folded)
        ratio = y * per_folded
        gain = inverse * (transposed @ ratio)
        estimate = n * gain
        scale = transposed.data * (n * inverse)[row]
        scaled.data = scale * per_folded[column]
        derivative = scaled.toarray() + gain[:, None] * slope
        scaled.data = scale * (ratio * per_folded)[column]
        derivative -= scaled @ (migration @ slope)
        yield estimate, derivative
        kept = estimate > 0
        n = np.where(kept, estimate, np.where(prior > 0, rescue, 0.0))
        slope = np.where(kept[:, None], derivative, 0.0)


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
        raise UserError(f"unfold: n_iterations = {n_iterations} must be at least 1")
    if not 0 < efficiency_floor <= 1:
        raise UserError(f"unfold: efficiency_floor = {efficiency_floor} must lie in (0, 1]")
    start = response.prior if prior is None else np.asarray(prior, dtype=np.float64).ravel()
    if start.shape != response.prior.shape or not np.isfinite(start).all() or (start < 0).any():
        raise UserError(f"unfold: the prior must hold {response.prior.size} finite numbers, none negative")
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


def with_least_error(unfolded: Spectrum, measured: Spectrum, response: Response) -> Spectrum:
    """Return a spectrum none of whose errors is below that of the data alone.

    The update multiplies: a cell that fluctuated low goes to zero and takes its propagated error along. Its
    variance is at least 1/Σ_j P_ji²/V_jj, as if all other cells were known (Fisher). V_jj is that of the
    measured cell, or where this is larger of what the unfolded cells put there.
    """
    expected = response.migration @ np.clip(unfolded.values.ravel(), 0.0, None)
    variance = np.maximum(np.diag(measured.cov), expected)
    known = divided(1.0, variance)
    information = response.migration.T**2 @ known
    least = divided(1.0, information)
    lacking = np.clip(least - np.diag(unfolded.cov), 0.0, None)
    cov = unfolded.cov + np.diag(np.where(unfolded.domain.ravel(), lacking, 0.0))
    hist = filled(tuple(unfolded.hist.axes), unfolded.values, np.diag(cov))
    return replace(unfolded, hist=hist, cov=cov)


def values_alone(measured: Spectrum, response: Response, *, n_iterations: int = 4) -> Spectrum:
    """Return the values of `iterative` in all cells with a covariance of zeros: for toys, much faster."""
    y = measured.values.ravel() * (1 - response.fakes)
    values = _unfolded(y, response.migration[None], response.prior[None], n_iterations)[0]
    domain = response.efficiency > 0
    hist = filled(response.true, np.where(domain, values, 0.0), np.zeros(len(values)))
    shape = tuple(len(axis) for axis in response.true)
    none = np.zeros((len(values), len(values)))
    return Spectrum(hist, none, "counts", measured.exposure, domain.reshape(shape))


def mc_statistics(y: FloatArray, response: Response, prior: FloatArray, n_iterations: int) -> FloatArray:
    """Return the covariance from the finite simulation, to first order in the deviation of every replica.

    With f = P n and M_i = Σ_j P_ji y_j/f_j a deviation dP, dn moves an iteration n' = n M/ε by

        dn'/n' = dn/n − dε/ε + [Σ_j dP_ji y_j/f_j − Σ_j P_ji y_j df_j/f_j²]/M,  df = dP n + P dn,

    dε_i = Σ_j dP_ji. Unfolding with the replicas themselves scatters more: their noise comes on top of that
    of the response. Estimated from K replicas the rank is at most K − 1: add it to the statistical covariance
    before inverting, or see `hartlap`.
    """
    n_true = len(prior)
    if len(response.cov_replicas) < 2:
        return np.zeros((n_true, n_true))
    blocks = _blocks(response, prior)
    parts = [_shifts(y, response, replicas, start, prior, n_iterations) for replicas, start in blocks]
    return np.cov(np.concatenate(parts), rowvar=False).reshape(n_true, n_true).astype(np.float64)


def simulation_bias(y: FloatArray, response: Response, prior: FloatArray, n_iterations: int) -> FloatArray:
    """Return the bias from the finite simulation: the mean result of the replicas less that of the response.

    A replica is to the response what the response is to the exact one, so its mean shift estimates the bias:
    Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 10.2. It is of second order in the
    errors of the simulation: four times the events leave a quarter of it.
    """
    if len(response.cov_replicas) < 2:
        return np.zeros(len(prior))
    parts = [_unfolded(y, replicas, start, n_iterations) for replicas, start in _blocks(response, prior)]
    nominal = _unfolded(y, response.migration[None], prior[None], n_iterations)[0]
    return np.asarray(np.concatenate(parts).mean(axis=0) - nominal)


def _blocks(response: Response, prior: FloatArray) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield replicas of the migration and their priors, as many at once as fit."""
    replicas, starts = response.cov_replicas, response.prior_replicas
    block = max(1, BLOCK // response.migration.size)
    for first in range(0, len(replicas), block):
        part = replicas[first : first + block]
        fixed = np.broadcast_to(prior, (len(part), len(prior)))
        yield part, starts[first : first + block] if len(starts) else fixed


def _shifts(
    y: FloatArray,
    response: Response,
    replicas: FloatArray,
    starts: FloatArray,
    prior: FloatArray,
    n_iterations: int,
) -> FloatArray:
    """Return what every replica moves to first order, shape (n_replicas, n_true)."""
    migration, efficiency = response.migration, response.efficiency
    inverse = _inverse(efficiency)
    lost = inverse * (replicas.sum(axis=1, dtype=np.float64) - efficiency)
    rescue = RECOVERY * prior * abs(y.sum()) / max(float(efficiency @ prior), np.finfo(float).tiny)
    n, slope = prior, starts - prior
    derivative = slope
    for _ in range(n_iterations):
        folded = migration @ n
        per_folded = _inverse(folded)
        ratio = y * per_folded
        back = migration.T @ ratio
        d_folded = _product(replicas, n) - folded + slope @ migration.T
        d_back = _product(ratio, replicas) - back - (ratio * per_folded * d_folded) @ migration
        estimate, derivative = n * inverse * back, inverse * (slope * back + n * d_back - n * back * lost)
        kept = estimate > 0
        n = np.where(kept, estimate, np.where(prior > 0, rescue, 0.0))
        slope = np.where(kept, derivative, 0.0)
    return np.asarray(derivative)


def _unfolded(y: FloatArray, migration: FloatArray, prior: FloatArray, n_iterations: int) -> FloatArray:
    """Return `y` unfolded with many migration matrices, each from its own prior: (n_replicas, n_true)."""
    efficiency = migration.sum(axis=1, dtype=np.float64)
    inverse = _inverse(efficiency)
    expected = np.einsum("ki,ki->k", efficiency, prior)
    rescue = RECOVERY * prior * (abs(y.sum()) / np.maximum(expected, np.finfo(float).tiny))[:, None]
    n = estimate = np.asarray(prior, dtype=np.float64)
    for _ in range(n_iterations):
        folded = _product(migration, n[:, :, None])[:, :, 0]
        ratio = y * _inverse(folded)
        estimate = n * inverse * _product(ratio[:, None, :], migration)[:, 0, :]
        n = np.where(estimate > 0, estimate, np.where(prior > 0, rescue, 0.0))
    return np.asarray(estimate)


def _inverse(values: FloatArray) -> FloatArray:
    """Return the inverse, 0 where the values are not positive."""
    return divided(1.0, values)


def _product(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the matrix product in the precision of the replicas, as doubles."""
    kind = np.float32 if np.float32 in (a.dtype, b.dtype) else np.float64
    found = np.matmul(a.astype(kind, copy=False), b.astype(kind, copy=False))
    return np.asarray(found, dtype=np.float64)


def _prepare(_measured: Spectrum, _response: Response, options: Options) -> tuple[Unfolder, float]:
    n, floor = options.n_iterations, options.efficiency_floor

    def unfolder(measured: Spectrum, response: Response) -> Spectrum:
        found = iterative(measured, response, n_iterations=n, efficiency_floor=floor, debias=options.debias)
        return with_least_error(found, measured, response)

    return unfolder, float(n)


def _describe(options: Options, strength: float) -> str:
    less = ", bias from the finite simulation subtracted" if options.debias else ""
    return f"iterative Bayesian, {strength:g} iterations{less}"


def _candidates(
    _measured: Spectrum, _response: Response, options: Options, strengths: Sequence[float]
) -> dict[float, Unfolder]:
    unfold = partial(iterative, efficiency_floor=options.efficiency_floor)
    return {n: partial(unfold, n_iterations=int(n)) for n in strengths or ITERATIONS}


ITERATIVE = Method(
    _prepare,
    _describe,
    _candidates,
    takes=frozenset({"n_iterations", "debias", "scan"}),
    allows_smeared=True,
    toys=True,
)
