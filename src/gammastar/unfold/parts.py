"""The response of a simulation that comes part by part: sums of histograms, bootstraps by event."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from gammastar.core.errors import UserError
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import FloatArray, Response
from gammastar.unfold.builders import cosine_weights
from gammastar.unfold.response import BLOCK, affordable, cells, divide, n_cells

__all__ = ["Draw", "streamed_polarised", "streamed_response"]

IntArray = npt.NDArray[np.int64]
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
