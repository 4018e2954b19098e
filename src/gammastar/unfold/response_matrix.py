"""The response: migration and efficiency from simulated pairs, with bootstraps, in memory or part by part."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from gammastar.core.axes import KINEMATICS
from gammastar.core.errors import UserError
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import FloatArray, Response

__all__ = [
    "COSINE",
    "Draw",
    "cells",
    "polarised_response",
    "response",
    "streamed_polarised",
    "streamed_response",
    "without_replicas",
]

COSINE = "cos_theta"
"""Column of the simulated pairs: cos θ of the positive lepton about the flight in the laboratory."""

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


Draw: TypeAlias = Callable[[IntArray, range], FloatArray]


def streamed_response(
    parts: Iterable[MatchedPairs],
    axes_reco: Sequence[Any],
    axes_true: Sequence[Any],
    *,
    n_replicas: int = 0,
    draw: Draw | None = None,
) -> Response:
    """Return the response of simulated pairs of which one part is in memory at a time.

    Parameters
    ----------
    parts : iterable of MatchedPairs
    axes_reco, axes_true : sequence of hist axes
        Any choice of mass, pt and energy.
    n_replicas : int
        Bootstraps of the simulated events; 0 leaves them out.
    draw : function of events and a range of replicas, optional
        Returns Poisson(1) weights, shape (n_replicas, n), that depend on the event alone: an event keeps its
        weight in whatever parts its pairs are. Needed if `n_replicas` is positive.

    Returns
    -------
    Response
        Of all parts, as of `response`; its memory does not grow with the simulation.

    Raises
    ------
    UserError
        As for `response`.
    """
    return _Sums(tuple(axes_reco), tuple(axes_true), n_replicas, draw).of(parts).response()


def streamed_polarised(
    parts: Iterable[MatchedPairs], axes_reco: Sequence[Any], axes_true: Sequence[Any], lambda_theta: float
) -> Response:
    """Return `polarised_response` of parts, without replicas."""
    sums = _Sums(tuple(axes_reco), tuple(axes_true), 0, None)
    return sums.of(parts, lambda part: cosine_weights(part, lambda_theta)).response(at_most_one=True)


class _Sums:
    """Contents of the migration matrix, of the true and of the reconstructed cells."""

    def __init__(
        self, reco: tuple[Any, ...], true: tuple[Any, ...], n_replicas: int, draw: Draw | None
    ) -> None:
        if n_replicas > 0 and draw is None:
            msg = f"streamed_response: n_replicas = {n_replicas} needs the function `draw`"
            raise UserError(msg)
        self.reco, self.true, self.draw = reco, true, draw
        self.shape = (n_cells(reco), n_cells(true))
        n_elements = self.shape[0] * self.shape[1]
        self.counts, self.prior = np.zeros(n_elements), np.zeros(self.shape[1])
        self.matched, self.fake = np.zeros(self.shape[0]), np.zeros(self.shape[0])
        n_kept, kind = affordable(n_replicas, n_elements)
        self.replicas = np.zeros((n_kept, n_elements), dtype=kind)
        self.totals = np.zeros((n_kept, self.shape[1]))
        self.n = 0

    def of(
        self,
        parts: Iterable[MatchedPairs],
        factor: Callable[[MatchedPairs], FloatArray] | None = None,
    ) -> _Sums:
        """Add parts; `factor` multiplies the weights of reconstructed pairs in the matrix."""
        for part in parts:
            self._add(part, None if factor is None else factor(part))
        return self

    def _add(self, part: MatchedPairs, factor: FloatArray | None) -> None:
        i, j, k = (
            cells(part.true, self.true),
            cells(part.reco, self.reco),
            cells(part.fakes, self.reco),
        )
        n_reco, n_true = self.shape
        hit, outside = (i >= 0) & (j >= 0), (i < 0) & (j >= 0)
        codes = (j * n_true + i)[hit]
        weight = part.weight[hit] if factor is None else part.weight[hit] * factor[hit]
        self.counts += np.bincount(codes, weight, n_reco * n_true)
        self.prior += np.bincount(i[i >= 0], part.weight[i >= 0], n_true)
        self.matched += np.bincount(j[hit], part.weight[hit], n_reco)
        self.fake += np.bincount(j[outside], part.weight[outside], n_reco)
        self.fake += np.bincount(k[k >= 0], part.fake_weight[k >= 0], n_reco)
        self.n += len(part)
        if len(self.replicas) and len(part) and self.draw is not None:
            self._bootstrap(part, self.draw, i, hit, codes)

    def _bootstrap(self, part: MatchedPairs, draw: Draw, i: IntArray, hit: Any, codes: IntArray) -> None:
        rows = np.arange(len(part))
        element, place = np.unique(codes, return_inverse=True)
        filling = sparse.csr_array((part.weight[hit], (place, rows[hit])), shape=(len(element), len(part)))
        inside = i >= 0
        truth = sparse.csr_array(
            (part.weight[inside], (i[inside], rows[inside])), shape=(self.shape[1], len(part))
        )
        block = max(1, BLOCK // 4 // len(part))
        for start in range(0, len(self.replicas), block):
            numbers = range(start, min(start + block, len(self.replicas)))
            weights = draw(part.event, numbers).T
            self.replicas[start : numbers.stop, element] += (filling @ weights).T
            self.totals[start : numbers.stop] += (truth @ weights).T

    def response(self, *, at_most_one: bool = False) -> Response:
        """Return the response of what was added."""
        if not (self.prior > 0).any():
            msg = f"response: none of {self.n} true pairs lies inside the true axes; check units and axes"
            raise UserError(msg)
        migration = divide(self.counts.reshape(self.shape), self.prior)
        if at_most_one:  # a cell of few pairs may average to more than one
            migration = migration / np.maximum(migration.sum(axis=0), 1.0)
        fakes = divide(self.fake, self.matched + self.fake)
        replicas = self.replicas.reshape(-1, *self.shape)
        efficiency, totals = migration.sum(axis=0), np.broadcast_to(self.totals[:, None, :], replicas.shape)
        np.divide(replicas, totals, out=replicas, where=totals > 0, casting="same_kind")
        spectra = self.prior, replicas, self.totals
        return Response(migration, efficiency, fakes, self.reco, self.true, *spectra)


def polarised_response(
    matched: MatchedPairs, axes_reco: Sequence[Any], axes_true: Sequence[Any], lambda_theta: float
) -> Response:
    """Return the response if the virtual photons were polarised otherwise than simulated.

    Parameters
    ----------
    matched : MatchedPairs
        With the column ``cos_theta`` of the reconstructed pairs (positive lepton, about the pair's flight
        in the laboratory).
    axes_reco, axes_true : sequence of hist axes
    lambda_theta : float
        Change of the coefficient of cos²θ in the angular distribution, from an unpolarised simulation.

    Returns
    -------
    Response
        Without replicas.

    Raises
    ------
    UserError
        If the angle is missing or λ lies outside [−1, 1].

    Notes
    -----
    W(cos θ) = (1 + λ cos²θ)/(1 + λ/3) multiplies reconstructed pairs alone: over all angles it averages to
    one, so the generated pairs of a true cell keep their number. The measured angle stands for the true one.
    """
    weight = cosine_weights(matched, lambda_theta)
    nominal = response(matched, axes_reco, axes_true, n_replicas=0)
    i, j = cells(matched.true, axes_true), cells(matched.reco, axes_reco)
    inside = (i >= 0) & (j >= 0)
    shape = nominal.migration.shape
    counts = np.bincount(
        j[inside] * shape[1] + i[inside], (matched.weight * weight)[inside], shape[0] * shape[1]
    ).reshape(shape)
    prior = nominal.prior
    migration = np.divide(counts, prior, out=np.zeros(shape), where=np.broadcast_to(prior > 0, shape))
    # a cell of few pairs may average to more than one
    migration = migration / np.maximum(migration.sum(axis=0), 1.0)
    return replace(nominal, migration=migration, efficiency=migration.sum(axis=0))


def cosine_weights(matched: MatchedPairs, lambda_theta: float) -> FloatArray:
    """Return the weights of `polarised_response`, 1 where nothing was reconstructed."""
    if not -1 <= lambda_theta <= 1:
        msg = f"polarised_response: lambda = {lambda_theta:g} must lie in [-1, 1]"
        raise UserError(msg)
    if COSINE not in matched.columns:
        msg = f"polarised_response: the simulated pairs have no column {COSINE!r}"
        raise UserError(msg)
    cosine = matched.columns[COSINE]
    seen = matched.reconstructed & np.isfinite(cosine)
    weight = np.ones(len(matched))
    weight[seen] = (1 + lambda_theta * cosine[seen] ** 2) / (1 + lambda_theta / 3)
    return weight
