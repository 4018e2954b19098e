"""What the finite simulation does to an iterative unfolding: its covariance and its bias, from bootstraps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gammastar.core.records import FloatArray, Response

__all__ = ["RECOVERY", "mc_statistics", "simulation_bias"]

RECOVERY = 0.01  # share of the prior that a cell with a negative estimate starts the next iteration with
BLOCK = 2**25  # matrix elements of the replicas treated at once


def mc_statistics(y: FloatArray, response: Response, prior: FloatArray, n_iterations: int) -> FloatArray:
    """Return the covariance from the finite simulation, to first order in the deviation of every replica.

    Parameters
    ----------
    y : NDArray, shape (n_reco,)
        Measured content without fakes.
    response : Response
        With `prior_replicas` the start of the iteration deviates as well.
    prior : NDArray, shape (n_true,)
    n_iterations : int

    Returns
    -------
    NDArray, shape (n_true, n_true)
        0 if the response has fewer than two replicas.

    Notes
    -----
    With f = P n and M_i = Σ_j P_ji y_j/f_j a deviation dP, dn moves an iteration n' = n M/ε by

        dn'/n' = dn/n − dε/ε + [Σ_j dP_ji y_j/f_j − Σ_j P_ji y_j df_j/f_j²]/M,  df = dP n + P dn,

    dε_i = Σ_j dP_ji. Unfolding with the replicas themselves scatters more: their noise comes on top of that
    of the response. Estimated from K replicas the rank is at most K − 1: add it to the statistical covariance
    before inverting, or see `hartlap`.
    """
    n_true = len(prior)
    if len(response.cov_replicas) < 2:
        return np.zeros((n_true, n_true))
    parts = [
        _shifts(y, response, replicas, start, prior, n_iterations)
        for replicas, start in _blocks(response, prior)
    ]
    return np.cov(np.concatenate(parts), rowvar=False).reshape(n_true, n_true).astype(np.float64)


def simulation_bias(y: FloatArray, response: Response, prior: FloatArray, n_iterations: int) -> FloatArray:
    """Return the bias from the finite simulation: the mean result of the replicas less that of the response.

    Parameters
    ----------
    y, response, prior, n_iterations
        As for `mc_statistics`.

    Returns
    -------
    NDArray, shape (n_true,)
        0 if the response has fewer than two replicas.

    Notes
    -----
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
    result: FloatArray = np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)
    return result


def _product(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the matrix product in the precision of the replicas, as doubles."""
    kind = np.float32 if np.float32 in (a.dtype, b.dtype) else np.float64
    found = np.matmul(a.astype(kind, copy=False), b.astype(kind, copy=False))
    return np.asarray(found, dtype=np.float64)
