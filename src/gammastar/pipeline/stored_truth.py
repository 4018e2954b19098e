"""The simulation with truth: in memory, or in Parquet parts with a sample of its events in memory."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from gammastar import subtract, unfold
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import FloatArray, Response
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context
from gammastar.pipeline.stored_pairs import StoredPairs, held, limit_of, reopened, write_parts
from gammastar.store.folder import sweep

__all__ = ["FIELDS", "StoredTruth", "Truth", "View", "collect", "truth_of"]

FOLDER = "stages/truth"
TRUE = ("true_mass", "true_pt", "true_energy")  # a fake has none
FIELDS = ("true", "reco", "weight", "event", "fakes", "fake_weight")
View: TypeAlias = Callable[[MatchedPairs], MatchedPairs]


@dataclass(frozen=True, eq=False)
class StoredTruth:
    """All simulated photons and fakes, in files that are read one after the other.

    Attributes
    ----------
    rows : StoredPairs
    photons : int
        Number of simulated photons in `rows`; the others are fakes.
    views : tuple of functions
        What is done to every part.
    """

    rows: StoredPairs
    photons: int
    views: tuple[View, ...] = ()

    def __iter__(self) -> Iterator[MatchedPairs]:
        return (functools.reduce(lambda part, view: view(part), self.views, _matched(p)) for p in self.rows)

    def draw(self, event: Any, replicas: range) -> FloatArray:
        """Return Poisson(1) weights of events, by their hash."""
        seeds = subtract.event_seeds(event, dataset=self.rows.dataset)
        return subtract.replica_weights(seeds, replicas)

    def sample(self) -> MatchedPairs:
        """Return the photons and fakes of the chosen events, scaled to the sums of all weights."""
        parts, sums = [], np.zeros(2)
        for part in self.rows:
            whole = _matched(part)
            sums += whole.weight.sum(), whole.fake_weight.sum()
            parts.append(_matched(part.select(self.rows.chosen(part))))
        found = MatchedPairs.concatenate(parts)
        return replace(
            found,
            weight=_scaled(found.weight, sums[0]),
            fake_weight=_scaled(found.fake_weight, sums[1]),
        )


@dataclass(frozen=True, eq=False)
class Truth:
    """The simulation of a run.

    Attributes
    ----------
    sample : MatchedPairs
        What is in memory: everything, or the chosen events.
    stored : StoredTruth, optional
        Everything, where `sample` is but a part.
    """

    sample: MatchedPairs
    stored: StoredTruth | None = None

    @property
    def parts(self) -> Iterable[MatchedPairs]:
        """All photons, one part at a time."""
        return (self.sample,) if self.stored is None else self.stored

    @property
    def size(self) -> int:
        """Number of simulated photons."""
        return len(self.sample) if self.stored is None else self.stored.photons

    def seen_as(self, view: View) -> Truth:
        """Return the simulation after `view`, which works on each part."""
        stored = self.stored
        if stored is not None:
            stored = replace(stored, views=(*stored.views, view))
        return Truth(view(self.sample), stored)

    def response(
        self, reco: Sequence[Any], true: Sequence[Any], *, n_replicas: int = 0, rng: Any = None
    ) -> Response:
        """Return the response of everything; `rng` draws the bootstraps of what is in memory."""
        if self.stored is None:
            return unfold.response(self.sample, reco, true, n_replicas=n_replicas, rng=rng)
        return unfold.streamed_response(self.stored, reco, true, n_replicas=n_replicas, draw=self.stored.draw)

    def varied(self, view: View, reco: Sequence[Any], true: Sequence[Any]) -> Response:
        """Return the response of everything after `view`, without bootstraps."""
        if self.stored is None:
            return unfold.response(view(self.sample), reco, true, n_replicas=0)
        return unfold.streamed_response((view(part) for part in self.stored), reco, true)

    def polarised(self, reco: Sequence[Any], true: Sequence[Any], lambda_theta: float) -> Response:
        """Return the response of everything for another polarisation."""
        if self.stored is None:
            return unfold.polarised_response(self.sample, reco, true, lambda_theta)
        return unfold.streamed_polarised(self.stored, reco, true, lambda_theta)


def collect(
    ctx: Context, parts: MatchedPairs | Iterable[MatchedPairs], wanted: Sequence[str]
) -> tuple[MatchedPairs, Arrays]:
    """Return the simulation; above ``select.max_in_memory`` a sample of it, and what `truth_of` needs.

    Parameters
    ----------
    ctx : Context
    parts : MatchedPairs, or parts of them one after the other
    wanted : sequence of str
        The columns that are kept in files.
    """
    folder, limit = ctx.folder / FOLDER, limit_of(ctx)
    sweep(folder, "parts")
    source = iter((parts,) if isinstance(parts, MatchedPairs) else parts)
    first, rest = held(source, limit, lambda part: len(part) + len(part.fakes))
    if rest is None:
        return MatchedPairs.concatenate(first), {}
    photons = [0]

    def counted() -> Iterator[MatchedPairs]:
        for part in rest:
            photons[0] += len(part)
            yield part

    rows = write_parts(folder, _rows(counted(), wanted), limit, _dataset(ctx))
    kept = rows.kept() | {"stored_photons": np.array(photons[0])}
    return StoredTruth(rows, photons[0]).sample(), kept


def truth_of(ctx: Context, arrays: Arrays, wanted: Sequence[str]) -> Truth:
    """Return the simulation of the arrays of its stage."""
    columns = {name: arrays[f"column_{name}"] for name in wanted}
    sample = MatchedPairs(**{name: arrays[name] for name in FIELDS}, columns=columns)
    rows = reopened(ctx, arrays, FOLDER, _dataset(ctx))
    return Truth(sample, None if rows is None else StoredTruth(rows, int(arrays["stored_photons"])))


def _dataset(ctx: Context) -> str:
    """Return the name for hashes: simulated events are other events than those of the data."""
    return f"{ctx.steering.analysis.name}, simulation"


def _rows(parts: Iterator[MatchedPairs], wanted: Sequence[str]) -> Iterator[Pairs]:
    """Yield photons and fakes as rows of the exchange format; each fake is an event of its own."""
    n_fakes = 0
    for part in parts:
        n, m = len(part), len(part.fakes)
        reco = np.concatenate([part.reco, part.fakes])
        true = np.concatenate([part.true, np.full((m, 3), np.nan)])
        extra = {
            name: np.concatenate([part.columns[name], np.full(m, np.nan)])
            for name in wanted
            if name in part.columns
        }
        yield Pairs(
            *(reco[:, 0], reco[:, 1], reco[:, 2]),
            np.zeros(n + m, np.int8),
            np.concatenate([part.weight, part.fake_weight]),
            np.concatenate([part.event, -1 - n_fakes - np.arange(m)]),
            dict(zip(TRUE, true.T, strict=True)) | extra,
        )
        n_fakes += m


def _matched(rows: Pairs) -> MatchedPairs:
    true = np.stack([rows.columns[name] for name in TRUE], axis=1)
    reco = np.stack([rows.mass, rows.pt, rows.energy], axis=1)
    fake = np.isnan(true[:, 0])
    own = ~fake
    return MatchedPairs(
        true[own],
        reco[own],
        rows.weight[own],
        rows.event[own],
        reco[fake],
        rows.weight[fake],
        {name: column[own] for name, column in rows.columns.items() if name not in TRUE},
    )


def _scaled(weight: FloatArray, total: float) -> FloatArray:
    found = float(weight.sum())
    return weight * (total / found) if found > 0 and total > 0 else weight
