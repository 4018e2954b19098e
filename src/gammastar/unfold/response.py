"""Detector response from simulation: migration, efficiency, fakes and their bootstrap replicas."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from gammastar.core.axes import KINEMATICS
from gammastar.core.errors import UserError
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import FloatArray, Response
from gammastar.core.stats import effective_size

__all__ = ["acceptance_weights", "cells", "response", "smeared_response", "without_replicas"]

IntArray = npt.NDArray[np.int64]

BLOCK = 2**24  # Poisson numbers held at once (128 MB)
DOUBLE_LIMIT = 2**28  # bytes of the replicas beyond which they are stored in single precision
REPLICA_LIMIT = 2**31  # bytes of the replicas at most
EFFICIENCY_FLOOR = 0.01

log = logging.getLogger(__name__)


def cells(values: FloatArray, axes: Sequence[Any]) -> IntArray:
    """Return the cell of every row.

    Parameters
    ----------
    values : NDArray, shape (n, 3) [GeV]
        mass, pt, energy; nan is outside.
    axes : sequence of hist axes
        Any choice of the three, in any order, by name.

    Returns
    -------
    NDArray of int, shape (n,)
        Cell number in C order, -1 outside the axes.

    Raises
    ------
    UserError
        If an axis is none of mass, pt and energy.
    """
    cell = np.zeros(len(values), dtype=np.int64)
    inside = np.isfinite(values).all(axis=1)
    for axis in axes:
        if axis.name not in KINEMATICS:
            msg = f"response: axis {axis.name!r} is none of {', '.join(KINEMATICS)}"
            raise UserError(msg)
        column = np.ascontiguousarray(values[:, KINEMATICS.index(axis.name)])
        index = np.asarray(axis.index(column), dtype=np.int64)
        inside &= (index >= 0) & (index < len(axis))
        cell = cell * len(axis) + index
    return np.where(inside, cell, -1)


def n_cells(axes: Sequence[Any]) -> int:
    """Return the number of cells of some axes."""
    return int(np.prod([len(axis) for axis in axes]))


def divide(numerator: Any, denominator: Any) -> FloatArray:
    """Return the ratio, 0 where the denominator is not positive."""
    shape = np.broadcast_shapes(np.shape(numerator), np.shape(denominator))
    positive = np.broadcast_to(np.asarray(denominator) > 0, shape)
    result: FloatArray = np.divide(numerator, denominator, out=np.zeros(shape), where=positive)
    return result


def affordable(n_replicas: int, n_entries: int) -> tuple[int, type[np.floating[Any]]]:
    """Return how many replicas of a matrix fit into memory, and their precision."""
    single = n_replicas * n_entries * 8 > DOUBLE_LIMIT
    kind: type[np.floating[Any]] = np.float32 if single else np.float64
    most = REPLICA_LIMIT // (4 * n_entries)
    if n_replicas > most:
        log.warning(
            "response: %d replicas of %d matrix elements do not fit into %.0f GB; %d are kept",
            *(n_replicas, n_entries, REPLICA_LIMIT / 2**30, most),
        )
    return min(n_replicas, most), kind


def _replicas(
    codes: IntArray, true_cell: IntArray, matched: MatchedPairs, shape: tuple[int, int], n: int, rng: Any
) -> tuple[FloatArray, FloatArray]:
    """Return migration matrices and true spectra of Poisson(1) bootstraps of events.

    `codes` is the matrix element of each entry (−1: not reconstructed inside the axes). Only elements that
    are filled at all are computed, as one sparse product (elements x events) @ (events x replicas).
    """
    n_kept, kind = affordable(n, shape[0] * shape[1])
    result, priors = np.zeros((n_kept, shape[0] * shape[1]), dtype=kind), np.zeros((n_kept, shape[1]))
    _, event = np.unique(matched.event, return_inverse=True)
    n_events = int(event.max(initial=-1)) + 1
    hit = codes >= 0
    element, place = np.unique(codes[hit], return_inverse=True)
    filling = sparse.csr_array((matched.weight[hit], (place, event[hit])), shape=(len(element), n_events))
    inside = true_cell >= 0
    truth = sparse.csr_array(
        (matched.weight[inside], (true_cell[inside], event[inside])), shape=(shape[1], n_events)
    )
    block = max(1, BLOCK // max(n_events, 1))
    for start in range(0, n_kept, block):
        stop = min(start + block, n_kept)
        draw = rng.poisson(1.0, (stop - start, n_events)).astype(np.float64).T
        counts, totals = filling @ draw, truth @ draw
        result[start:stop, element] = divide(counts, totals[element % shape[1]]).T
        priors[start:stop] = totals.T
    return result.reshape(n_kept, *shape).astype(kind, copy=False), priors


def response(
    matched: MatchedPairs,
    axes_reco: Sequence[Any],
    axes_true: Sequence[Any],
    *,
    n_replicas: int = 100,
    rng: np.random.Generator | None = None,
) -> Response:
    """Return the response of simulated pairs.

    A true pair inside `axes_true` that is not reconstructed, or reconstructed outside `axes_reco`, is a miss.
    A reconstructed pair without a true partner inside `axes_true` is a fake.

    Parameters
    ----------
    matched : MatchedPairs
    axes_reco, axes_true : sequence of hist axes
        Any choice of mass, pt and energy.
    n_replicas : int
        Bootstraps of the simulated events, for the covariance from Monte Carlo statistics; 0 leaves it out.
    rng : numpy.random.Generator
        Needed if `n_replicas` is positive.

    Returns
    -------
    Response

    Raises
    ------
    UserError
        If there is no true pair inside the axes, an axis is unknown, or `rng` is missing.

    Notes
    -----
    P(j|i) = N_ji / T_i, with T_i all true pairs of cell i, ε_i = Σ_j P(j|i); D'Agostini, arXiv:1010.0632.
    All pairs of one event share their bootstrap weight. Large replicas are kept in single precision.
    """
    if n_replicas > 0 and rng is None:
        msg = f"response: n_replicas = {n_replicas} needs a random generator `rng`; or set n_replicas = 0"
        raise UserError(msg)
    axes_reco, axes_true = tuple(axes_reco), tuple(axes_true)
    n_reco, n_true = n_cells(axes_reco), n_cells(axes_true)
    i, j = cells(matched.true, axes_true), cells(matched.reco, axes_reco)
    prior = np.bincount(i[i >= 0], matched.weight[i >= 0], n_true).astype(np.float64)
    if not (prior > 0).any():
        msg = f"response: none of {len(i)} true pairs lies inside the true axes; check units and axes"
        raise UserError(msg)
    codes = np.where((i >= 0) & (j >= 0), j * n_true + i, -1)
    filled = codes >= 0
    counts = np.bincount(codes[filled], matched.weight[filled], n_reco * n_true).reshape(n_reco, n_true)
    migration = divide(counts, prior)
    outside = (i < 0) & (j >= 0)
    k = cells(matched.fakes, axes_reco)
    fake = np.bincount(j[outside], matched.weight[outside], n_reco)
    fake = fake + np.bincount(k[k >= 0], matched.fake_weight[k >= 0], n_reco)
    fakes = divide(fake, counts.sum(axis=1) + fake)
    replicas, priors = np.zeros((0, n_reco, n_true)), np.zeros((0, n_true))
    if n_replicas > 0:
        replicas, priors = _replicas(codes, i, matched, (n_reco, n_true), n_replicas, rng)
    efficiency = migration.sum(axis=0)
    return Response(migration, efficiency, fakes, axes_reco, axes_true, prior, replicas, priors)


def without_replicas(response: Response) -> Response:
    """Return the same response without its bootstraps.

    Parameters
    ----------
    response : Response

    Returns
    -------
    Response
        `cov_replicas` and `prior_replicas` are empty: the simulation counts as known exactly.
    """
    none = np.zeros((0, *response.migration.shape))
    return replace(response, cov_replicas=none, prior_replicas=none[:, 0])


def smeared_response(
    matched: MatchedPairs,
    axes: Sequence[Any],
    *,
    n_replicas: int = 100,
    rng: np.random.Generator | None = None,
) -> Response:
    """Return a response without migration: the efficiency is corrected, the resolution is not.

    The preset "smeared mass, as the paper": each cell of the measured quantities is divided by the efficiency
    of that cell of the true quantities.

    Parameters
    ----------
    matched : MatchedPairs
    axes : sequence of hist axes
        Common to the measured and the corrected spectrum.
    n_replicas, rng
        As for `response`.

    Returns
    -------
    Response
        Diagonal migration.

    Notes
    -----
    Event weights 1/ε with the resolution left in, as in the data-driven paper of Allison and Blinov. Narrow
    resonances stay wide, and a rate taken at a mass near them is wrong by the ratio of the line shapes.
    """
    seen = matched.reconstructed[:, None]
    unsmeared = MatchedPairs(
        matched.true,
        np.where(seen, matched.true, np.nan),
        matched.weight,
        matched.event,
        matched.fakes,
        matched.fake_weight,
    )
    return response(unsmeared, axes, axes, n_replicas=n_replicas, rng=rng)


def acceptance_weights(
    values: FloatArray, response: Response, *, floor: float = EFFICIENCY_FLOOR
) -> FloatArray:
    """Return 1/ε of the cell of each pair.

    Parameters
    ----------
    values : NDArray, shape (n, 3) [GeV]
        mass, pt, energy of the pairs.
    response : Response
    floor : float
        Lowest efficiency that is corrected for.

    Returns
    -------
    NDArray, shape (n,)
        0 where the efficiency is below `floor` or the pair lies outside the true axes: not in the domain.
        The effective sample size (Σw)²/Σw² is logged.

    Raises
    ------
    UserError
        If `floor` is not in (0, 1].
    """
    if not 0 < floor <= 1:
        msg = f"acceptance_weights: floor = {floor} must lie in (0, 1]"
        raise UserError(msg)
    cell = cells(np.asarray(values, dtype=np.float64), response.true)
    efficiency = np.where(cell >= 0, response.efficiency[cell], 0.0)
    weight = np.divide(1.0, efficiency, out=np.zeros_like(efficiency), where=efficiency >= floor)
    log.info(
        "acceptance weights: %d pairs, %d inside the domain, effective sample size %.0f",
        *(len(weight), int((weight > 0).sum()), effective_size(weight)),
    )
    return weight
