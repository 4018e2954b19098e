"""Weights of the pairs and the spectrum without combinatorial ones, in memory or part by part."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gammastar import config, select, subtract
from gammastar.core.errors import SteeringError
from gammastar.core.pairs import Pairs
from gammastar.core.records import FloatArray, PairHists, Spectrum
from gammastar.core.rng import stream
from gammastar.core.stats import filled
from gammastar.pipeline.backgrounds import Ratio
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context
from gammastar.pipeline.stored_pairs import Parts, StoredPairs, write_weighted

__all__ = [
    "Cells",
    "LikeSign",
    "Removed",
    "Weights",
    "bootstrapped",
    "by_r",
    "like_sign",
    "looked_up",
    "low_counts",
    "pair_weights",
]

Removed = tuple[Pairs, FloatArray]


@dataclass(frozen=True, eq=False)
class LikeSign:
    """The subtraction of combinatorial pairs.

    Attributes
    ----------
    spectrum : Spectrum
    sign : callable
        Returns the signed weights of pairs.
    mixed : tuple of Pairs and NDArray, or None
        Mixed pairs to remove, with weights (B4).
    """

    spectrum: Spectrum
    sign: Callable[[Pairs], FloatArray]
    mixed: Removed | None = None


@dataclass(frozen=True, eq=False)
class Cells:
    """Opposite-sign pairs before and after the subtraction, by cell."""

    axes: tuple[Any, ...]
    before: FloatArray
    after: FloatArray

    @property
    def total(self) -> float:
        """Return the subtracted number of pairs."""
        return float(self.after.sum())

    def weights(self, pairs: Pairs) -> FloatArray:
        """Return own weight × max(0, 1 − B/N₊₋) of the cell, 0 for like sign and outside."""
        left = np.clip(self.after, 0.0, None)
        share = np.divide(left, self.before, out=np.zeros_like(left), where=self.before > 0)
        return np.where(pairs.os, pairs.weight * looked_up(pairs, self.axes, share), 0.0)


def like_sign(parts: Parts, hists: PairHists, ratio: Ratio, method: Any, coarse: dict[str, Any]) -> LikeSign:
    """Return the spectrum without combinatorial pairs, and how pairs are weighted for it."""
    axes = tuple(hists.os.axes)
    if method != "B4":
        r = ratio.value if method not in ("B1", "B2") else 1.0
        options: dict[str, Any] = {"method": method, "r_factor": r, "coarse": coarse or None}
        sigma = ratio.sigma if method not in ("B1", "B2") else 0.0
        with warnings.catch_warnings():  # the run says it in words of its own, in manifest and report
            warnings.simplefilter("ignore", subtract.LowCountWarning)
            result = subtract.same_sign(hists, r_factor_sigma=sigma, **options)
        if isinstance(parts, StoredPairs):
            return LikeSign(result, lambda part: subtract.chunk_weights(part, hists, **options))
        return LikeSign(result, lambda part: subtract.event_weights(part, axes, **options))
    if ratio.mixed is None:
        msg = "subtract.method = 'B4' needs mixed events"
        raise SteeringError(msg)
    mixed = select.fill(ratio.mixed, axes)
    result = subtract.mixed_spectrum(hists, mixed, coarse=coarse or None)
    shape = mixed.os.values()
    background = hists.os.values() - result.values
    scale = np.divide(background, shape, out=np.zeros_like(shape), where=shape > 0)
    os = ratio.mixed.select(ratio.mixed.os)
    weight = os.weight * looked_up(os, axes, scale)
    return LikeSign(
        result,
        lambda part: np.where(part.os, part.weight * looked_up(part, axes, np.ones_like(shape)), 0.0),
        (os, weight),
    )


def bootstrapped(ctx: Context, parts: Parts, hists: PairHists, like: Spectrum, ratio: Ratio) -> Spectrum:
    """Return the spectrum with the covariance of a bootstrap of events, and that of R."""
    section = ctx.steering.subtract
    n_cells = like.cov.shape[0]
    if section is None or section.bootstrap < n_cells + 2:
        n = 0 if section is None else section.bootstrap
        msg = f"subtract.bootstrap = {n}: {n_cells} cells need at least {n_cells + 2} replicas"
        raise SteeringError(msg)
    ctx.tell("subtract", None, f"bootstrap of events, {section.bootstrap} replicas")
    plain = section.method in ("B1", "B2")
    axes = tuple(hists.os.axes)
    options: dict[str, Any] = {
        "method": section.method if section.method != "B4" else "B5",
        "r_factor": 1.0 if plain else ratio.value,
        "coarse": {str(name): edges for name, edges in section.coarse.items()} or None,
        "n_replicas": section.bootstrap,
    }
    if isinstance(parts, StoredPairs):
        cov = subtract.chunked_bootstrap(parts, axes, dataset=parts.dataset, **options)
    else:
        cov = subtract.bootstrap_covariance(parts[0], axes, rng=stream(ctx.seed, "bootstrap"), **options)
    shift = np.zeros(n_cells) if plain else by_r(hists, like, ratio)
    # cells that no replica fills keep the variance of the formula
    empty = np.where(np.diag(cov) > 0, 0.0, np.diag(like.cov))
    cov = cov + np.diag(empty) + np.outer(shift, shift)
    return replace(like, hist=filled(axes, like.values, np.diag(cov)), cov=cov)


def low_counts(
    section: config.Subtract, hists: PairHists, like: Spectrum, ratio: Ratio
) -> tuple[Spectrum, Arrays]:
    """Give cells with few pairs the variance of the Poisson profile, if the steering asks for it."""
    if section.low_counts == "linear":
        return like, {}
    plain = section.method == "B1"
    shift = None if plain else by_r(hists, like, ratio)
    found, interval = subtract.with_profile(like, hists, r_factor=1.0 if plain else ratio.value, by_r=shift)
    return found, {"profile": np.stack([interval.value, interval.low, interval.high], axis=1)}


def looked_up(pairs: Pairs, axes: tuple[Any, ...], values: FloatArray) -> FloatArray:
    """Return the value of the cell of each pair, 0 outside."""
    index, inside = [], np.ones(len(pairs), dtype=bool)
    for axis in axes:
        place = np.asarray(axis.index(np.ascontiguousarray(getattr(pairs, axis.name))))
        inside &= (place >= 0) & (place < len(axis))
        index.append(np.clip(place, 0, len(axis) - 1))
    return np.where(inside, values[tuple(index)], 0.0)


def by_r(hists: PairHists, like: Spectrum, ratio: Ratio) -> FloatArray:
    """Return what one standard deviation of R does to the spectrum; the estimate is linear in R."""
    background = hists.os.values() - like.values
    return np.asarray(-background * np.asarray(ratio.sigma) / np.asarray(ratio.value)).ravel()


def _with_removed(
    pairs: Pairs, signed: FloatArray, removed: Sequence[Removed | None], share: float
) -> tuple[Pairs, FloatArray]:
    """Return pairs and signed weights; those to remove that are not in the data stand beside like-sign ones.

    Of a sample of the data the `share` of what is to be removed goes.
    """
    parts, weights = [replace(pairs, columns={})], [signed]
    for template, weight in (part for part in removed if part is not None):
        use = weight > 0
        own = np.arange(int(use.sum()), dtype=np.int64) + sum(len(p) for p in parts)
        part = template.select(use)
        # charge and event: not opposite-sign data, and an event of its own
        parts.append(replace(part, columns={}, charge=np.full(len(own), 2, np.int8), event=-1 - own))
        weights.append(-weight[use] * share)
    return Pairs.concatenate(parts), np.concatenate(weights)


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights of pairs, and how they were found.

    Attributes
    ----------
    signed : NDArray, shape (n,)
        Like-sign pairs count against opposite-sign ones.
    positive : NDArray, shape (n,)
        Opposite-sign pairs times their probability to be signal, for what takes no negative weights.
    trained : {"posterior", "signed", "cells"}
        What a density learns from: `positive` of a classifier, `signed`, or `positive` of the cells.
    why : str
        Why no classifier was trained; "" if one was.
    """

    signed: FloatArray
    positive: FloatArray
    trained: str
    why: str = ""


def pair_weights(
    ctx: Context,
    parts: Parts,
    pairs: Pairs,
    sign: Callable[[Pairs], FloatArray],
    removed: Sequence[Removed | None],
    cells: Cells,
) -> Weights:
    """Return the weights of `pairs`, which are all pairs or a sample of the stored ones.

    Where the steering wants signed weights, or the pairs are too few for a classifier, none is trained: then
    the probability of a pair to be signal is that of its cell, 1 − B/N₊₋. Signed weights take over from those
    of a classifier, unless something is removed that is not in the data, which they cannot hold.

    The weights of a sample are scaled to the sums of all pairs, which are written with theirs to ``pairs/``.
    """
    section, signed, rng = ctx.steering.subtract, sign(pairs), stream(ctx.seed, "posterior")
    share = parts.share if isinstance(parts, StoredPairs) else 1.0
    together, weights = _with_removed(pairs, signed, removed, share)
    asked = section is not None and section.weights == "signed"
    why = "weights = 'signed'" if asked else subtract.too_few_for_posterior(together, weights)
    foreign = any(part is not None and (part[1] > 0).any() for part in removed)
    trained = "posterior" if not why else "cells" if foreign else "signed"
    if not isinstance(parts, StoredPairs):
        if why:
            return Weights(signed, _scaled(cells.weights(pairs), cells.total), trained, why)
        found = subtract.posterior_weights(together, weights, rng=rng)[: len(pairs)]
        return Weights(signed, found, trained)
    model = None if why else subtract.fit_posterior(together, weights, rng=rng)

    def positive(part: Pairs, ours: FloatArray) -> FloatArray:
        return cells.weights(part) if model is None else model.weights(part, ours)

    def weigh(part: Pairs) -> tuple[FloatArray, FloatArray]:
        ours = sign(part)
        return ours, positive(part, ours)

    lost = sum(float(weight[weight > 0].sum()) for _, weight in (r for r in removed if r is not None))
    sums = write_weighted(ctx, parts, weigh, lost)
    return Weights(_scaled(signed, sums[0]), _scaled(positive(pairs, signed), sums[1]), trained, why)


def _scaled(weight: FloatArray, total: float) -> FloatArray:
    found = float(weight.sum())
    return weight * (total / found) if found > 0 and total > 0 else weight
