"""Bias of the unfolding at finite statistics: toys whose simulation has the prior and lines of the data.

A pool of simulated pairs is the truth. Data are drawn from it by Poisson numbers per pair, the combinatorial
background from like-sign pairs; the response is that of the whole pool, which is exact. Nothing but the
statistics of the data is left that could move the mean of a pull.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from campaign_parts import AXES, ENERGY, MASS, N_PAIRS, PT, SETTINGS
from campaign_truth import Truth, matched, reconstructed

from gammastar import mock, subtract, unfold
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import FloatArray, PairHists, filled
from gammastar.core.sampling import stream

__all__ = ["KINDS", "Kind", "statistics"]

N_POOL, N_BLOCK, N_LIKE = 2, 1_500_000, 600_000
EDGES = (MASS, PT, ENERGY)
SHAPE = tuple(len(edges) - 1 for edges in EDGES)
SIZE = int(np.prod(SHAPE))


@dataclass(frozen=True)
class Kind:
    """One set of toys.

    Attributes
    ----------
    n : int
        Number of toys.
    times : float
        Pairs of the data over those of a campaign.
    background : bool
        Combinatorial pairs in the data.
    n_iterations : int
    """

    n: int
    times: float = 1.0
    background: bool = True
    n_iterations: int = SETTINGS["nominal"].n_iterations


KINDS = {
    "data": Kind(2000),
    "data, no background": Kind(1000, background=False),
    "ten times the data": Kind(600, times=10.0),
    "data, 2 iterations": Kind(1000, n_iterations=2),
}


@dataclass(frozen=True, eq=False)
class Pool:
    """Simulated and like-sign pairs to draw from; numbers are those of one campaign."""

    matched: MatchedPairs
    place: Any
    mean: float
    like: tuple[FloatArray, FloatArray]
    r_factor: float


def statistics(card: Any, known: Truth, cache: Path) -> dict[str, FloatArray]:
    """Return rate less truth and its error of every kind, shape (2, n, n_measured), from `cache` if there."""
    found: dict[str, FloatArray] = {}
    if cache.is_file():
        with np.load(cache) as kept:
            there = {name: kept[name] for name in kept.files if name in KINDS}
        found = {name: rows for name, rows in there.items() if rows.shape[1] == KINDS[name].n}
    missing = [name for name in KINDS if name not in found]
    if missing:
        pool = _pool(card, known)
        for name in missing:
            toys = list(_toys(pool, known, KINDS[name], stream(11, "toys", name)))
            found[name] = np.array(toys).transpose(1, 0, 2)
            np.savez_compressed(cache, **found)
    return {name: found[name] for name in KINDS}


def _pool(card: Any, known: Truth) -> Pool:
    """Return simulated pairs, and the expected like-sign pairs of a campaign with their R."""
    blocks = [matched(mock.simulate_events(card, N_BLOCK, kind="mc", seed=5000 + i)) for i in range(N_POOL)]
    true, reco = (np.concatenate([getattr(b, name) for b in blocks]) for name in ("true", "reco"))
    weight = np.concatenate([b.weight for b in blocks])
    empty = np.empty((0, 3)), np.empty(0)
    data = mock.simulate_events(card, N_LIKE, kind="data", seed=98)
    pairs, _ = reconstructed(data)
    scale = N_PAIRS / N_LIKE
    points = np.stack([pairs.mass, pairs.pt, pairs.energy], axis=1)
    like = [np.histogramdd(points[use], EDGES)[0].ravel() * scale for use in (pairs.pp, pairs.mm)]
    mean = known.cells.sum() * data.meta["N_POT"] * scale / weight.sum()
    everything = MatchedPairs(true, reco, weight, np.arange(len(true)), *empty)
    return Pool(everything, _place(reco), float(mean), (like[0], like[1]), float(data.meta["r_factor"]))


def _place(points: FloatArray) -> Any:
    """Return the flat cell of every pair, −1 outside or not reconstructed."""
    inside = np.isfinite(points[:, 0])
    cell = np.zeros(len(points), dtype=np.int64)
    for column, edges in zip(points.T, EDGES, strict=True):
        i = np.searchsorted(edges, np.where(np.isfinite(column), column, -1.0), side="right") - 1
        inside &= (i >= 0) & (i < len(edges) - 1)
        cell = cell * (len(edges) - 1) + np.clip(i, 0, len(edges) - 2)
    return np.where(inside, cell, -1)


def _toys(
    pool: Pool, known: Truth, kind: Kind, rng: np.random.Generator
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield rate less truth and its error, one toy after the other."""
    points, weight = pool.matched.true, pool.matched.weight
    seen = pool.place >= 0
    place, seen_weight = pool.place[seen], weight[seen]
    true = np.histogramdd(points, EDGES, weights=weight)[0].ravel() * pool.mean * kind.times
    mask = known.domain.ravel()
    has = known.domain.any(axis=(1, 2))
    wanted = np.where(mask, true, 0.0).reshape(SHAPE[0], -1).sum(axis=1)
    response = unfold.response(pool.matched, AXES, AXES, n_replicas=0)
    r_factor = pool.r_factor if kind.background else 1.0
    for _ in range(kind.n):
        times = rng.poisson(pool.mean * kind.times, len(place))
        signal = (
            np.bincount(place, times * seen_weight, SIZE),
            np.bincount(place, times * seen_weight**2, SIZE),
        )
        hists = PairHists(*(_hist(*h) for h in _with_background(signal, pool, kind, rng)))
        measured = subtract.same_sign(hists, r_factor=r_factor)
        result = unfold.iterative(measured, response, n_iterations=kind.n_iterations)
        values = np.where(mask, result.values.ravel(), 0.0).reshape(SHAPE[0], -1).sum(axis=1)
        n = SIZE // SHAPE[0]
        cov = (result.cov * np.outer(mask, mask)).reshape(SHAPE[0], n, SHAPE[0], n).sum(axis=(1, 3))
        yield (values - wanted)[has], np.sqrt(np.diag(cov)[has])


def _hist(values: FloatArray, variances: FloatArray) -> Any:
    return filled(AXES, values.reshape(SHAPE), variances.reshape(SHAPE))


def _with_background(
    signal: tuple[FloatArray, FloatArray], pool: Pool, kind: Kind, rng: np.random.Generator
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield contents and variances of opposite-sign, ++ and -- pairs."""
    if not kind.background:
        nothing = np.zeros(SIZE)
        yield from (signal, (nothing, nothing), (nothing, nothing))
        return
    plus, minus = (kind.times * like for like in pool.like)
    w = np.sqrt(minus.sum() / plus.sum())
    combined = rng.poisson(pool.r_factor * (w * plus + minus / w)).astype(np.float64)
    yield signal[0] + combined, signal[1] + combined
    for like in (plus, minus):
        number = rng.poisson(like).astype(np.float64)
        yield number, number
