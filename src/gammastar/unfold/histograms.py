"""Unfolding of one's own histograms."""

from __future__ import annotations

from typing import Any

import numpy as np
from hist import Hist

from gammastar.core.axes import filled, flow_free
from gammastar.core.errors import UserError
from gammastar.core.records import BoolArray, FloatArray, Response, Spectrum

__all__ = [
    "from_hist",
    "spectrum_from_hist",
]


def spectrum_from_hist(
    hist: Hist[Any], *, cov: FloatArray | None = None, domain: BoolArray | None = None
) -> Spectrum:
    """Return the measured counts of a histogram as a spectrum; its flow bins are left out.

    Parameters
    ----------
    hist : Hist
        Counts, or sums of weights: signed ones after a subtraction. Axes named as those of the response.
    cov : NDArray, shape (n, n), optional
        Covariance of the cells in C order; by default diagonal, the variances of the histogram (Weight
        storage: Σw²; otherwise the counts).
    domain : NDArray of bool, shape of the histogram, optional
        Measured cells; by default all.

    Raises
    ------
    UserError
        If `cov` is not symmetric or does not fit.
    ValueError
        If the domain does not fit or values are not finite (from `Spectrum`).

    Examples
    --------
    >>> data = Hist.new.Reg(3, 0.2, 0.8, name="mass").Weight().fill([0.3, 0.5, 0.55], weight=[1, 1, -0.5])
    >>> spectrum_from_hist(data).cov.diagonal()
    array([1.  , 1.25, 0.  ])
    """
    values, variances = flow_free(hist)
    matrix = np.diag(variances) if cov is None else np.asarray(cov, dtype=np.float64)
    if matrix.shape != (len(values),) * 2 or not np.allclose(matrix, matrix.T):
        msg = f"spectrum_from_hist: cov of shape {matrix.shape} for {len(values)} cells; give a symmetric one"
        raise UserError(msg)
    shape = tuple(len(axis) for axis in hist.axes)
    inside = np.ones(shape, dtype=bool) if domain is None else np.asarray(domain, dtype=bool)
    return Spectrum(filled(tuple(hist.axes), values, np.diag(matrix)), matrix, "counts", None, inside)


def _flow(hist: Hist[Any]) -> tuple[FloatArray, FloatArray]:
    """Return values and variances with an underflow and an overflow on every axis."""
    values = np.asarray(hist.values(flow=True), dtype=np.float64)
    found = hist.variances(flow=True)
    variances = values if found is None else np.asarray(found, dtype=np.float64)
    missing = [(int(not axis.traits.underflow), int(not axis.traits.overflow)) for axis in hist.axes]
    return np.pad(values, missing), np.pad(variances, missing)


def _divide(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    positive = np.broadcast_to(denominator > 0, shape)
    return np.asarray(np.divide(numerator, denominator, out=np.zeros(shape), where=positive))


def _scattered(content: FloatArray, variance: FloatArray, n: int, rng: np.random.Generator) -> FloatArray:
    """Return bootstraps of sums of weights: w̄ Poisson(n_eff), the Poisson(1) bootstrap for equal weights."""
    weight = _divide(variance, content)
    mean = _divide(content**2, variance)
    return np.asarray(rng.poisson(mean, (n, *content.shape)) * weight)


def from_hist(
    migration: Hist[Any],
    n_reco: int,
    *,
    miss: Hist[Any] | None = None,
    fake: Hist[Any] | None = None,
    n_replicas: int = 100,
    rng: np.random.Generator | None = None,
) -> Response:
    """Return the response held by a histogram of (reconstructed…, true…).

    Parameters
    ----------
    migration : Hist
        Axes: first the `n_reco` reconstructed ones, then the true ones. Reconstructed in a flow bin: a miss
        of its true cell. True in a flow bin: a fake from outside the axes. Weight storage carries the
        statistics of the simulation.
    n_reco : int
        Number of reconstructed axes.
    miss : Hist, optional
        True pairs that were not reconstructed at all, on the true axes.
    fake : Hist, optional
        Reconstructed pairs without a true partner, on the reconstructed axes.
    n_replicas : int
        Bootstraps for the covariance from Monte Carlo statistics; 0 leaves it out.
    rng : numpy.random.Generator
        Needed if `n_replicas` is positive.

    Returns
    -------
    Response

    Raises
    ------
    UserError
        If the axes do not fit, contents are negative, or `rng` is missing.

    Notes
    -----
    P(j|i) = N_ji/T_i with T_i everything of true cell i, inside, outside and missed. Replicas draw each
    element as w̄ × Poisson(n_eff), independent between elements: pairs that share an event are not known here
    (`response` knows them).
    """
    if not 0 < n_reco < migration.ndim:
        msg = f"from_hist: n_reco = {n_reco} must leave true axes among the {migration.ndim} of the histogram"
        raise UserError(msg)
    if n_replicas > 0 and rng is None:
        msg = f"from_hist: n_replicas = {n_replicas} needs a random generator `rng`; or set n_replicas = 0"
        raise UserError(msg)
    reco, true = tuple(migration.axes[:n_reco]), tuple(migration.axes[n_reco:])
    for name, extra, axes in (("miss", miss, true), ("fake", fake, reco)):
        if extra is not None and tuple(extra.axes) != axes:
            msg = f"from_hist: the axes of `{name}` differ from those of the migration"
            raise UserError(msg)
    content, variance = _flow(migration)
    if (content < 0).any() or (variance < 0).any():
        msg = f"from_hist: negative contents (smallest {content.min():g}); fill positive weights"
        raise UserError(msg)
    parts = _parts(content, variance, n_reco)
    if miss is not None:
        lost, square = (np.asarray(a, dtype=np.float64).ravel() for a in (miss.values(), miss.variances()))
        parts["lost"] = (parts["lost"][0] + lost, parts["lost"][1] + square)
    fakes = parts["outside"][0] + (0.0 if fake is None else np.asarray(fake.values()).ravel())
    inside, lost = parts["inside"][0], parts["lost"][0]
    prior = inside.sum(axis=0) + lost
    if not (prior > 0).any():
        msg = "from_hist: the histogram holds no true pair inside the true axes"
        raise UserError(msg)
    replicas, total = np.zeros((0, *inside.shape)), np.zeros((0, inside.shape[1]))
    if n_replicas > 0 and rng is not None:
        drawn = _scattered(*parts["inside"], n_replicas, rng)
        total = drawn.sum(axis=1) + _scattered(*parts["lost"], n_replicas, rng)
        replicas = _divide(drawn, total[:, None, :])
    matrix = _divide(inside, prior)
    reconstructed = inside.sum(axis=1) + fakes
    fraction, spectra = _divide(fakes, reconstructed), (prior, replicas, total)
    return Response(matrix, matrix.sum(axis=0), fraction, reco, true, *spectra)


def _parts(
    content: FloatArray, variance: FloatArray, n_reco: int
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Split a histogram with flow into the matrix, what left the reconstructed and the true axes."""
    sizes = [n - 2 for n in content.shape]
    rows, columns = int(np.prod(sizes[:n_reco])), int(np.prod(sizes[n_reco:]))
    core = (slice(1, -1),) * len(sizes)
    reco, true = core[:n_reco], core[n_reco:]
    result: dict[str, tuple[FloatArray, FloatArray]] = {}
    for name in ("inside", "lost", "outside"):
        pair = []
        for array in (content, variance):
            inside = array[core].reshape(rows, columns)
            if name == "inside":
                pair.append(inside)
            elif name == "lost":
                everything = array[(slice(None),) * n_reco + true].sum(axis=tuple(range(n_reco)))
                pair.append(np.clip(everything.ravel() - inside.sum(axis=0), 0, None))
            else:
                everything = array[reco].sum(axis=tuple(range(n_reco, len(sizes))))
                pair.append(np.clip(everything.ravel() - inside.sum(axis=1), 0, None))
        result[name] = (pair[0], pair[1])
    return result
