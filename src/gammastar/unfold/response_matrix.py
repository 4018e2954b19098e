"""The response: migration and efficiency from simulated pairs, part by part, or from histograms."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from hist import Hist
from scipy import sparse

from gammastar.core.errors import UserError, require
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import (
    KINEMATICS,
    BoolArray,
    FloatArray,
    IntArray,
    Response,
    Rng,
    Spectrum,
    cell_of,
    divided,
    filled,
    flow_free,
    variable,
)
from gammastar.core.sampling import event_seeds, replica_weights

COSINE = "cos_theta"
"""Column of the simulated pairs: cos θ of the positive lepton about the flight in the laboratory."""


BLOCK = 2**24  # Poisson numbers held at once (128 MB)
DOUBLE_LIMIT = 2**28  # bytes of the replicas beyond which they are stored in single precision
REPLICA_LIMIT = 2**31  # bytes of the replicas at most
EFFICIENCY_FLOOR = 0.01
BEYOND, LARGEST = 3, 1e6  # bins beyond the axes of the width of the last one; the end of one more [GeV]

log = logging.getLogger(__name__)


def cells(values: FloatArray, axes: Sequence[Any]) -> IntArray:
    """Return the cell of every row."""
    for axis in axes:
        if axis.name not in KINEMATICS:
            raise UserError(f"response: axis {axis.name!r} is none of {', '.join(KINEMATICS)}")
    cell = cell_of(axes, lambda name: values[:, KINEMATICS.index(name)])
    return np.where(np.isfinite(values[:, 0] + values[:, 1] + values[:, 2]), cell, -1)  # faster than all()


def n_cells(axes: Sequence[Any]) -> int:
    """Return the number of cells of some axes."""
    return int(np.prod([len(axis) for axis in axes]))


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


def response(
    matched: MatchedPairs | Iterable[MatchedPairs],
    axes_reco: Sequence[Any],
    axes_true: Sequence[Any],
    *,
    n_replicas: int = 100,
    rng: Rng | None = None,
) -> Response:
    """Return the response of simulated pairs.

    A true pair inside `axes_true` that is not reconstructed, or reconstructed outside `axes_reco`, is a miss.
    A reconstructed pair without a true partner inside `axes_true` is a fake.

    Parameters
    ----------
    matched : MatchedPairs, or parts of it
        Of parts one at a time is in memory.
    axes_reco, axes_true : sequence of hist axes
        Any choice of mass, pt and energy.
    n_replicas : int
        Bootstraps of the simulated events, for the covariance from Monte Carlo statistics; 0 leaves it out.
    rng : numpy.random.Generator
        Needed if `n_replicas` is positive. One number of it and the event decide every bootstrap weight:
        they are the same in whatever parts the pairs come.

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
        raise UserError(
            f"response: n_replicas = {n_replicas} needs a random generator `rng`, or n_replicas = 0"
        )
    salt = 0 if rng is None or n_replicas == 0 else int(rng.integers(2**63))
    sums = _Sums(tuple(axes_reco), tuple(axes_true), n_replicas, salt)
    return sums.of(parts_of(matched)).response()


def polarised_response(
    matched: MatchedPairs | Iterable[MatchedPairs],
    axes_reco: Sequence[Any],
    axes_true: Sequence[Any],
    lambda_theta: float,
) -> Response:
    """Return the response if the virtual photons were polarised otherwise than simulated.

    W(cos θ) = (1 + λ cos²θ)/(1 + λ/3) multiplies reconstructed pairs alone: over all angles it averages to
    one, so the generated pairs of a true cell keep their number. The measured angle stands for the true one.
    """
    sums = _Sums(tuple(axes_reco), tuple(axes_true))
    parts = sums.of(parts_of(matched), lambda part: cosine_weights(part, lambda_theta))
    return parts.response(at_most_one=True)


def parts_of(matched: MatchedPairs | Iterable[MatchedPairs]) -> Iterable[MatchedPairs]:
    """Return the parts of a simulation, itself if it is one."""
    return (matched,) if isinstance(matched, MatchedPairs) else matched


class _Sums:
    """Contents of the migration matrix, of the true and of the reconstructed cells."""

    def __init__(
        self, reco: tuple[Any, ...], true: tuple[Any, ...], n_replicas: int = 0, salt: int = 0
    ) -> None:
        self.reco, self.true, self.salt = reco, true, salt
        self.shape = (n_cells(reco), n_cells(true))
        n_elements = self.shape[0] * self.shape[1]
        self.counts, self.count_squares = np.zeros((2, n_elements))
        self.prior, self.squares = np.zeros((2, self.shape[1]))
        self.matched, self.fake = np.zeros(self.shape[0]), np.zeros(self.shape[0])
        n_kept, kind = affordable(n_replicas, n_elements)
        self.replicas = np.zeros((n_kept, n_elements), dtype=kind)
        self.totals = np.zeros((n_kept, self.shape[1]))
        self.n = 0

    def of(
        self, parts: Iterable[MatchedPairs], factor: Callable[[MatchedPairs], FloatArray] | None = None
    ) -> _Sums:
        """Add parts; `factor` multiplies the weights of reconstructed pairs in the matrix."""
        for part in parts:
            self._add(part, None if factor is None else factor(part))
        return self

    def _add(self, part: MatchedPairs, factor: FloatArray | None) -> None:
        i, j, k = (cells(part.true, self.true), cells(part.reco, self.reco), cells(part.fakes, self.reco))
        n_reco, n_true = self.shape
        hit, outside = (i >= 0) & (j >= 0), (i < 0) & (j >= 0)
        codes = (j * n_true + i)[hit]
        weight = part.weight[hit] if factor is None else part.weight[hit] * factor[hit]
        self.counts += np.bincount(codes, weight, n_reco * n_true)
        self.count_squares += np.bincount(codes, weight**2, n_reco * n_true)
        self.prior += np.bincount(i[i >= 0], part.weight[i >= 0], n_true)
        self.squares += np.bincount(i[i >= 0], part.weight[i >= 0] ** 2, n_true)
        self.matched += np.bincount(j[hit], part.weight[hit], n_reco)
        self.fake += np.bincount(j[outside], part.weight[outside], n_reco)
        self.fake += np.bincount(k[k >= 0], part.fake_weight[k >= 0], n_reco)
        self.n += len(part)
        if len(self.replicas) and len(part):
            self._bootstrap(part, i, hit, codes)

    def _bootstrap(self, part: MatchedPairs, i: IntArray, hit: Any, codes: IntArray) -> None:
        """Add Poisson(1) bootstraps of the events to what is filled, by one sparse product."""
        event, row = np.unique(part.event, return_inverse=True)
        element, place = np.unique(codes, return_inverse=True)
        shape = (len(element), len(event))
        filling = sparse.csr_array((part.weight[hit], (place, row[hit])), shape=shape)
        inside = i >= 0
        at, shape = (i[inside], row[inside]), (self.shape[1], len(event))
        truth = sparse.csr_array((part.weight[inside], at), shape=shape)
        seeds = event_seeds(event, run=self.salt)
        block = max(1, BLOCK // len(event))
        for start in range(0, len(self.replicas), block):
            numbers = range(start, min(start + block, len(self.replicas)))
            weights = replica_weights(seeds, numbers).T
            self.replicas[start : numbers.stop, element] += (filling @ weights).T
            self.totals[start : numbers.stop] += (truth @ weights).T

    def response(self, *, at_most_one: bool = False) -> Response:
        """Return the response of what was added."""
        if not (self.prior > 0).any() or not self.counts.any():
            where = "true pairs lies" if not (self.prior > 0).any() else "true pairs is reconstructed"
            what = "unit, the axes of [select] and [unfold], and [infer.joint] window"
            raise UserError(f"response: none of {self.n} {where} inside the axes; check {what}")
        migration = divided(self.counts.reshape(self.shape), self.prior)
        if at_most_one:  # a cell of few pairs may average to more than one
            migration = migration / np.maximum(migration.sum(axis=0), 1.0)
        fakes = divided(self.fake, self.matched + self.fake)
        replicas = self.replicas.reshape(-1, *self.shape)
        efficiency, totals = migration.sum(axis=0), np.broadcast_to(self.totals[:, None, :], replicas.shape)
        np.divide(replicas, totals, out=replicas, where=totals > 0, casting="same_kind")
        spectra = self.prior, replicas, self.totals
        of_true = divided(self.prior**2, self.squares)
        known = of_true, divided(self.count_squares.reshape(self.shape), self.prior**2)
        return Response(migration, efficiency, fakes, self.reco, self.true, *spectra, *known)


def without_replicas(response: Response) -> Response:
    """Return the same response without bootstraps and squares: the simulation counts as known exactly."""
    none = np.zeros((0, *response.migration.shape))
    no_sums: Any = {"entries": np.zeros(0), "squares": np.zeros((0, 0))}
    return replace(response, cov_replicas=none, prior_replicas=none[:, 0], **no_sums)


def cosine_weights(matched: MatchedPairs, lambda_theta: float) -> FloatArray:
    """Return the weights of `polarised_response`, 1 where nothing was reconstructed."""
    if not -1 <= lambda_theta <= 1:
        raise UserError(f"polarised_response: lambda = {lambda_theta:g} must lie in [-1, 1]")
    if COSINE not in matched.columns:
        raise UserError(f"polarised_response: the simulated pairs have no column {COSINE!r}")
    cosine = matched.columns[COSINE]
    seen = matched.reconstructed & np.isfinite(cosine)
    weight = np.ones(len(matched))
    weight[seen] = (1 + lambda_theta * cosine[seen] ** 2) / (1 + lambda_theta / 3)
    return weight


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


def _scattered(content: FloatArray, variance: FloatArray, n: int, rng: Rng) -> FloatArray:
    """Return bootstraps of sums of weights: w̄ Poisson(n_eff), the Poisson(1) bootstrap for equal weights."""
    weight = divided(variance, content)
    mean = divided(content**2, variance)
    return np.asarray(rng.poisson(mean, (n, *content.shape)) * weight)


def from_hist(
    migration: Hist[Any],
    n_reco: int,
    *,
    miss: Hist[Any] | None = None,
    fake: Hist[Any] | None = None,
    n_replicas: int = 100,
    rng: Rng | None = None,
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
        raise UserError(
            f"from_hist: n_replicas = {n_replicas} needs a random generator `rng`, or n_replicas = 0"
        )
    reco, true = tuple(migration.axes[:n_reco]), tuple(migration.axes[n_reco:])
    for name, extra, axes in (("miss", miss, true), ("fake", fake, reco)):
        if extra is not None and tuple(extra.axes) != axes:
            raise UserError(f"from_hist: the axes of `{name}` differ from those of the migration")
    content, variance = _flow(migration)
    if (content < 0).any() or (variance < 0).any():
        raise UserError(f"from_hist: negative contents (smallest {content.min():g}); fill positive weights")
    inside, lost, outside = _parts(content, n_reco)
    inside_squares, lost_squares, _ = _parts(variance, n_reco)
    if miss is not None:
        more, squares = (np.asarray(a, dtype=np.float64).ravel() for a in (miss.values(), miss.variances()))
        lost, lost_squares = lost + more, lost_squares + squares
    fakes = outside + (0.0 if fake is None else np.asarray(fake.values()).ravel())
    prior = inside.sum(axis=0) + lost
    require((prior > 0).any(), "from_hist: the histogram holds no true pair inside the true axes", UserError)
    replicas, total = np.zeros((0, *inside.shape)), np.zeros((0, inside.shape[1]))
    if n_replicas > 0 and rng is not None:
        drawn = _scattered(inside, inside_squares, n_replicas, rng)
        total = drawn.sum(axis=1) + _scattered(lost, lost_squares, n_replicas, rng)
        replicas = divided(drawn, total[:, None, :])
    matrix = divided(inside, prior)
    reconstructed = inside.sum(axis=1) + fakes
    fraction, spectra = divided(fakes, reconstructed), (prior, replicas, total)
    return Response(matrix, matrix.sum(axis=0), fraction, reco, true, *spectra)


def _parts(array: FloatArray, n_reco: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Split an array with flow into the matrix, what left the reconstructed and what the true axes."""
    core = (slice(1, -1),) * array.ndim
    every = (slice(None),) * n_reco
    n_true = np.prod([n - 2 for n in array.shape[n_reco:]], dtype=int)
    inside = array[core].reshape(-1, n_true)
    of_true = array[every + core[n_reco:]].sum(axis=tuple(range(n_reco))).ravel()
    of_reco = array[core[:n_reco]].sum(axis=tuple(range(n_reco, array.ndim))).ravel()
    lost, outside = of_true - inside.sum(axis=0), of_reco - inside.sum(axis=1)
    return inside, np.clip(lost, 0, None), np.clip(outside, 0, None)


def guarded(
    axes: Sequence[Any], axes_reco: Sequence[Any], matched: MatchedPairs | Iterable[MatchedPairs]
) -> tuple[Any, ...]:
    """Return true axes with bins beyond their ends, as far as photons from there are seen in `axes_reco`."""
    wide = [_widened(np.asarray(axis.edges, dtype=np.float64)) for axis in axes]
    counts = [np.zeros(len(edges) - 1) for edges in wide]
    for part in parts_of(matched):
        true = part.true[cells(part.reco, axes_reco) >= 0]
        for k, axis in enumerate(axes):
            counts[k] += np.histogram(true[:, KINEMATICS.index(axis.name)], wide[k])[0]
    result = []
    for axis, edges, count in zip(axes, wide, counts, strict=True):
        low, high = (int(np.searchsorted(edges, axis.edges[k])) for k in (0, -1))
        seen = np.flatnonzero(count)
        first, last = (min(seen[0], low), max(seen[-1] + 1, high)) if len(seen) else (low, high)
        result.append(variable(axis.name, edges[first : last + 1].tolist()))
    return tuple(result)


def _widened(edges: FloatArray) -> FloatArray:
    below = edges[0] - np.arange(BEYOND, 0, -1) * (edges[1] - edges[0])
    above = edges[-1] + np.arange(1, BEYOND + 1) * (edges[-1] - edges[-2])
    first = [0.0, *below[below > 0]] if edges[0] > 0 else []
    return np.concatenate([first, edges, above, [max(LARGEST, 2.0 * above[-1])]])


def gathered(fine: Sequence[Any], axes: Sequence[Any]) -> sparse.csr_array:
    """Return the matrix, shape (n, n_fine), that sums cells into those of axes whose edges all are edges."""
    parts = []
    for outer, axis in zip(fine, axes, strict=True):
        place = np.searchsorted(axis.edges, outer.centers, side="right") - 1
        kept = np.flatnonzero((place >= 0) & (place < len(axis)))
        ones = (np.ones(len(kept)), (place[kept], kept))
        parts.append(sparse.csr_array(ones, shape=(len(axis), len(outer))))
    return sparse.csr_array(functools.reduce(sparse.kron, parts))
