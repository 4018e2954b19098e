"""Pairs and simulated photons that do not fit into memory: kept in files, taken part by part."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from gammastar import select, subtract, unfold
from gammastar.core.errors import StoreError
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import BoolArray, FloatArray, PairHists, Response
from gammastar.pipeline.cache import Arrays
from gammastar.pipeline.context import Context
from gammastar.store.folder import sweep
from gammastar.store.manifest import file_sha256
from gammastar.store.pairs import PairChunk, read_pairs, write_pairs
from gammastar.unfold import response_matrix

__all__ = [
    "CHUNK",
    "FIELDS",
    "Parts",
    "StoredPairs",
    "StoredTruth",
    "Truth",
    "View",
    "collect_pairs",
    "collect_truth",
    "fill_all",
    "held",
    "limit_of",
    "reopened",
    "thinned",
    "truth_of",
    "write_parts",
    "write_weighted",
]

Part = TypeVar("Part")
TRUTH_FOLDER = "stages/truth"
TRUE = ("true_mass", "true_pt", "true_energy")  # a fake has none
FIELDS = ("true", "reco", "weight", "event", "fakes", "fake_weight")
View: TypeAlias = Callable[[MatchedPairs], MatchedPairs]


CHUNK = 500_000  # pairs of one Parquet file
FOLDER, UNSCALED = "stages/pairs", "stages/weighted"


@dataclass(frozen=True, eq=False)
class StoredPairs:
    """All pairs, in files that are read one after the other.

    Attributes
    ----------
    folder : Path
    n : int
        Number of pairs.
    share : float
        Which part of the events is in the sample that stages in memory work with.
    dataset : str
        Of the hash that chooses them.
    """

    folder: Path
    n: int
    share: float
    dataset: str

    def __iter__(self) -> Iterator[Pairs]:
        return (chunk.pairs for chunk in read_pairs(self.folder))

    def chosen(self, pairs: Pairs) -> BoolArray:
        """Return True for pairs whose event is in the sample: its hash decides, whatever the order."""
        return _below(pairs, self.share, self.dataset)

    def sample(self) -> Pairs:
        """Return the pairs of the chosen events."""
        return Pairs.concatenate([part.select(self.chosen(part)) for part in self])

    def digests(self) -> list[str]:
        """Return the SHA-256 of every part."""
        return [file_sha256(path) for path in sorted(self.folder.glob("part-*.parquet"))]

    def kept(self) -> Arrays:
        """Return what `reopened` needs."""
        return {
            "stored_pairs": np.array(self.n),
            "stored_share": np.array(self.share),
            "stored_parts": np.array(self.digests(), dtype=str),
        }


Parts: TypeAlias = StoredPairs | tuple[Pairs, ...]


def limit_of(ctx: Context) -> int:
    """Return how many pairs, simulated photons or single leptons a stage may hold."""
    return 0 if ctx.steering.select is None else ctx.steering.select.max_in_memory


def held(
    parts: Iterator[Part], limit: int, size: Callable[[Part], int]
) -> tuple[Sequence[Part], Iterator[Part] | None]:
    """Return all parts if they fit into `limit`, else nothing and an iterator over all of them."""
    first: list[Part] = []
    n = 0
    for part in parts:
        first.append(part)
        n += size(part)
        if n > limit:
            break
    else:
        return first, None

    def released() -> Iterator[Part]:
        while first:
            yield first.pop(0)

    return (), itertools.chain(released(), parts)


def fill_all(parts: Parts, axes: tuple[Any, ...], view: Callable[[Pairs], Pairs] | None = None) -> PairHists:
    """Fill all pairs, one part in memory at a time; `view` adds the columns that the axes need."""
    hists = (select.fill(part if view is None else view(part), axes) for part in parts)
    return functools.reduce(lambda a, b: PairHists(a.os + b.os, a.pp + b.pp, a.mm + b.mm), hists)


def _batches(parts: Iterable[Pairs], size: int) -> Iterator[Pairs]:
    """Yield parts of about `size` pairs."""
    waiting: list[Pairs] = []
    for part in parts:
        for start in range(0, len(part), size):
            waiting.append(part.select(np.arange(start, min(start + size, len(part)))))
            if sum(map(len, waiting)) >= size:
                yield Pairs.concatenate(waiting)
                waiting = []
    if waiting:
        yield Pairs.concatenate(waiting)


def collect_pairs(ctx: Context, parts: Pairs | Iterable[Pairs]) -> tuple[Pairs, Arrays]:
    """Return all pairs; above ``select.max_in_memory`` a sample of the events, and what `reopened` needs.

    Above it the pairs are written as they come, so that never more than this number is in memory.
    """
    limit = limit_of(ctx)
    folder = ctx.folder / FOLDER
    sweep(folder, "parts")
    first, rest = held(iter((parts,) if isinstance(parts, Pairs) else parts), limit, len)
    if rest is None:
        return Pairs.concatenate(first), {}
    stored = write_parts(folder, rest, limit, ctx.steering.analysis.name)
    return stored.sample(), stored.kept()


def write_parts(folder: Path, parts: Iterator[Pairs], limit: int, dataset: str) -> StoredPairs:
    """Write pairs as they come; `limit` of them, on average, are in the sample."""
    counts = [0]

    def counted() -> Iterator[Pairs]:
        for batch in _batches(parts, min(CHUNK, limit)):
            counts[0] += len(batch)
            yield batch

    write_pairs(folder, counted(), dataset=dataset)
    return StoredPairs(folder, counts[0], limit / counts[0], dataset)


def thinned(parts: Iterable[Pairs], limit: int, dataset: str) -> Pairs:
    """Return all pairs, or at most `limit` of a sample of their events, weighted to the sum of all.

    For templates, of which the files are read once: the hash of an event is below 1/2, 1/4, … as often as it
    takes, whatever the order.
    """
    kept: list[Pairs] = []
    total, share = 0.0, 1.0
    for part in parts:
        total += float(part.weight.sum())
        kept.append(part if share == 1.0 else part.select(_below(part, share, dataset)))
        while sum(map(len, kept)) > limit:
            share /= 2
            kept = [piece.select(_below(piece, share, dataset)) for piece in kept]
    found = Pairs.concatenate(kept)
    if share == 1.0:
        return found
    return replace(found, weight=found.weight * (total / max(float(found.weight.sum()), 1e-300)))


def _below(pairs: Pairs, share: float, dataset: str) -> BoolArray:
    seeds = subtract.event_seeds(pairs.event, dataset=dataset)
    return np.asarray((seeds >> np.uint64(11)) * 2.0**-53 < share)


def reopened(
    ctx: Context, kept: Arrays | None, folder: str = FOLDER, dataset: str | None = None
) -> StoredPairs | None:
    """Return the pairs that `collect_pairs` wrote, None if all of them are in memory.

    Parameters
    ----------
    ctx : Context
    kept : dict of arrays, or None
        Of the stage.
    folder : str
        Of the parts, in that of the results.
    dataset : str, optional
        Of the hash; the name of the analysis by default.

    Raises
    ------
    StoreError
        If a part is missing or not what was written.
    """
    if not kept or "stored_pairs" not in kept:
        return None
    share = float(kept["stored_share"])
    name = ctx.steering.analysis.name if dataset is None else dataset
    found = StoredPairs(ctx.folder / folder, int(kept["stored_pairs"]), share, name)
    if found.digests() != kept["stored_parts"].tolist():
        msg = f"{found.folder}: the kept pairs are missing or changed; run without --resume"
        raise StoreError(msg)
    return found


def write_weighted(
    ctx: Context,
    stored: StoredPairs,
    weigh: Callable[[Pairs], tuple[FloatArray, FloatArray]],
    removed: float,
) -> tuple[float, float]:
    """Write all pairs with seeds and weights to ``pairs/``; return the sums of the weights.

    Parameters
    ----------
    ctx : Context
    stored : StoredPairs
    weigh : callable
        Returns signed and posterior weights of a part.
    removed : float
        Pairs of other components that the posterior weights leave out.

    Returns
    -------
    signed, posterior : float
        Sums over all pairs. The posterior weights are scaled so that theirs is ``signed - removed``.
    """
    sums = np.zeros(2)

    def first() -> Iterator[PairChunk]:
        for part in stored:
            signed, posterior = weigh(part)
            sums[:] += signed.sum(), posterior.sum()
            yield PairChunk(part, subtract.event_seeds(part.event, dataset=stored.dataset), signed, posterior)

    unscaled = ctx.folder / UNSCALED
    write_pairs(unscaled, first(), dataset=stored.dataset)
    target = float(sums[0]) - removed
    scale = target / float(sums[1]) if sums[1] > 0 and target > 0 else 1.0

    def second() -> Iterator[PairChunk]:
        for chunk in read_pairs(unscaled):
            posterior = None if chunk.posterior is None else chunk.posterior * scale
            yield PairChunk(chunk.pairs, chunk.seed, chunk.signed, posterior)

    write_pairs(ctx.folder / "pairs", second(), dataset=stored.dataset)
    sweep(unscaled, "parts")
    return float(sums[0]), float(sums[1] * scale)


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
        return response_matrix.streamed_response(
            self.stored, reco, true, n_replicas=n_replicas, draw=self.stored.draw
        )

    def varied(self, view: View, reco: Sequence[Any], true: Sequence[Any]) -> Response:
        """Return the response of everything after `view`, without bootstraps."""
        if self.stored is None:
            return unfold.response(view(self.sample), reco, true, n_replicas=0)
        return response_matrix.streamed_response((view(part) for part in self.stored), reco, true)

    def polarised(self, reco: Sequence[Any], true: Sequence[Any], lambda_theta: float) -> Response:
        """Return the response of everything for another polarisation."""
        if self.stored is None:
            return response_matrix.polarised_response(self.sample, reco, true, lambda_theta)
        return response_matrix.streamed_polarised(self.stored, reco, true, lambda_theta)


def collect_truth(
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
    folder, limit = ctx.folder / TRUTH_FOLDER, limit_of(ctx)
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
    rows = reopened(ctx, arrays, TRUTH_FOLDER, _dataset(ctx))
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
