"""The measured half after the selection: like-sign pairs, other backgrounds, weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from gammastar import config, select, subtract
from gammastar.core.axes import MASS, filled
from gammastar.core.errors import SteeringError
from gammastar.core.pairs import Pairs
from gammastar.core.records import FloatArray, PairHists, Spectrum
from gammastar.core.sampling import stream
from gammastar.pipeline.cache import Arrays
from gammastar.pipeline.context import Context, axes_of, pack_spectrum, unpack_spectrum
from gammastar.pipeline.stages.backgrounds import (
    Component,
    Ratio,
    charge_ratio,
    charm_component,
    correction_component,
    reads_leptons,
)
from gammastar.pipeline.stages.flow import columns_for_angles
from gammastar.pipeline.stages.read import Inputs
from gammastar.pipeline.stages.stored import Parts, StoredPairs, Truth, fill_all, write_weighted
from gammastar.spectrum.angles import ANGLES
from gammastar.store.filesets import find_file
from gammastar.store.manifest import digest
from gammastar.store.remote import Sealed

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
    "needs_simulation",
    "pair_weights",
    "subtract_stage",
]

TRAINED = {
    "posterior": "posterior, from a classifier",
    "signed": "signed; of the cell, 1 - B/N+-, where they must not be negative",
    "cells": "of the cell, 1 - B/N+-",
}


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


def needs_simulation(section: config.Subtract | None) -> bool:
    """Return whether the subtraction takes shapes from the simulation with truth."""
    if section is None:
        return False
    return section.charm is not None or any(c.kind == "eta to mu mu" for c in section.corrections)


def subtract_stage(
    ctx: Context,
    pairs: Pairs,
    simulated: Arrays,
    given: Inputs,
    truth: Truth | None = None,
    stored: StoredPairs | None = None,
) -> tuple[PairHists, Spectrum, Arrays]:
    """Return the pair histograms, the subtracted spectrum, and the arrays with the pair weights.

    With `stored` pairs the histograms are of all of them, `pairs` and their weights of a sample.

    The arrays hold signed and posterior weights, R, the like-sign estimate, the fit of open charm and the
    shift of the spectrum by one standard deviation of every named source.
    """
    selection, section = ctx.steering.select, ctx.steering.subtract
    if selection is None or section is None:
        msg = "[select] and [subtract] are needed for the subtraction"
        raise SteeringError(msg)
    axes = axes_of(selection)
    parts: Parts = (pairs,) if stored is None else stored
    hists = fill_all(parts, axes)
    before = ctx.book.key_of("select", "match") if needs_simulation(section) else ctx.book.key_of("select")
    others = _other_files(ctx, section)
    angles = columns_for_angles(ctx.steering)
    used = digest(selection.model_dump(), simulated.get("r_factor"), others.shas, angles)
    key = ctx.book.key(section, before, used, "trained weights")

    def compute() -> Arrays:
        ratio = charge_ratio(ctx, axes, simulated, given)
        r, sigma = ratio.mean
        ctx.tell("subtract", None, f"R = {r:.3f} ± {sigma:.3f}")
        coarse: dict[str, Any] = {str(name): edges for name, edges in section.coarse.items()}
        combinatorial = like_sign(parts, hists, ratio, section.method, coarse)
        like = combinatorial.spectrum
        if section.bootstrap:
            like = bootstrapped(ctx, parts, hists, like, ratio)
        like, interval = low_counts(section, hists, like, ratio)
        shifts = {} if section.method in ("B1", "B2", "B4") else {"background": by_r(hists, like, ratio)}
        components = _components(ctx, parts, truth, ratio, axes, float(like.values.sum()))
        result, applied = subtract.apply_corrections(like, [_correction(c, axes) for c in components])
        shifts |= {c.name: -_unit(c, axes) * c.sigma for c in components}
        alarms = subtract.negative_yields(result)
        ctx.tell("subtract", None, "weights of the pairs")
        removed = [combinatorial.mixed, *(_to_remove(c, axes) for c in components)]
        cells = Cells(axes, np.asarray(hists.os.values()), result.values)
        weights = pair_weights(ctx, parts, pairs, combinatorial.sign, removed, cells)
        kept = {
            "weight": weights.signed,
            "posterior": weights.positive,
            "trained_weights": np.array([weights.trained, weights.why], dtype=str),
            "r_factor": np.array([r, sigma]),
            "n_negative": np.array(len(alarms)),
            "control": np.array(_control(hists, ratio, section)),
            "like_sign": hists.os.values() - like.values,
            "shift_names": np.array(list(shifts), dtype=str),
            "shifts": np.array(list(shifts.values())).reshape(len(shifts), like.cov.shape[0]),
            **interval,
            **_removed_table(applied),
            **_removed_angles(ctx, removed[1:]),
            **_charm_arrays(components),
            **({"mixed_leptons": np.array(ratio.leptons)} if ratio.leptons else {}),
        }
        return pack_spectrum(result) | kept

    read = tuple(given.files) if reads_leptons(section) else ()
    arrays = ctx.book.arrays(
        "subtract", key, lambda: given.seal.read(read, lambda: others.read(others.paths, compute))
    )
    ctx.book.methods["background"] = f"{section.method}, R = {section.r_factor!r}"
    _note_weights(ctx, section, hists, arrays)
    return hists, unpack_spectrum(arrays, axes, "counts"), arrays


def _note_weights(ctx: Context, section: config.Subtract, hists: PairHists, kept: Arrays) -> None:
    """Enter how pairs are weighted; say where there were too few of them for what was asked."""
    trained, why = (str(text) for text in kept["trained_weights"])
    ctx.book.methods["weights of the pairs"] = TRAINED[trained] + (f" ({why})" if why else "")
    if why and section.weights == "posterior":
        ctx.book.alarm(
            f"subtract.weights: {why}; instead of posterior weights the pairs carry "
            + ("signed ones" if trained == "signed" else "those of their cells")
        )
    few = "" if section.method == "B4" else _few_like_sign(section, hists)
    if few:
        ctx.book.alarm(few)
    total = float(kept["values"].sum())
    if total <= 0:
        ctx.book.alarm(f"subtract: {total:.4g} pairs are left: no signal is seen in this data")


def _few_like_sign(section: config.Subtract, hists: PairHists) -> str:
    """Say where the like-sign pairs are too few for the estimate, or for its error; "" if they are not."""
    n_pp, n_mm = float(hists.pp.values().sum()), float(hists.mm.values().sum())
    coarse: dict[str, Any] = {str(name): edges for name, edges in section.coarse.items()}
    low = subtract.low_count_fraction(hists, method=cast(Any, section.method), coarse=coarse or None)
    poisson = "" if section.method == "B2" else "; low_counts = 'poisson' gives such cells a variance"
    seen = f"{n_pp:g} ++ and {n_mm:g} -- pairs inside the axes"
    if min(n_pp, n_mm) == 0:
        none = n_pp + n_mm == 0 or section.method in ("B1", "B3")
        size = "none" if none else "that of the other charge alone"
        return (
            f"subtract: {seen}: the background is {size}, and its error does not know of the missing ones"
            + poisson
        )
    if low <= subtract.LOW_FRACTION:
        return ""
    where, cure = ("coarse regions", "widen `coarse`") if section.method == "B5" else ("cells", "use B5")
    return (
        f"subtract: {seen}, {low:.0%} of them in {where} with fewer than {subtract.LOW_COUNT:g} of one "
        f"charge, where 2R√(N++ N--) is biased low; {cure}{poisson}"
    )


def _other_files(ctx: Context, section: config.Subtract) -> Sealed:
    """Return the files that only the subtraction reads with their digests, and enter them as inputs."""
    names = [name for c in section.corrections for name in c.files]
    if section.charm is not None and section.charm.template != "simulation":
        names += section.charm.template
    found = Sealed(list(dict.fromkeys(path for name in names for path in find_file(name, ctx.base))))
    ctx.book.enter(dict(zip(found.paths, found.shas, strict=True)))
    return found


def _components(
    ctx: Context,
    parts: Parts,
    truth: Truth | None,
    ratio: Ratio,
    axes: tuple[Any, ...],
    total: float,
) -> list[Component]:
    section = ctx.steering.subtract
    found: list[Component] = []
    if section is None:
        return found
    if section.charm is not None:
        if truth is None:
            msg = "subtract.charm: the offsets of prompt pairs come from the simulation; give read.response"
            raise SteeringError(msg)
        found.append(charm_component(ctx, parts, truth, ratio, axes))
    mass_axis = next(axis for axis in axes if axis.name == MASS)
    matched = None if truth is None else truth.sample
    found += [correction_component(ctx, c, total, matched, mass_axis) for c in section.corrections]
    return found


def _correction(component: Component, axes: tuple[Any, ...]) -> subtract.Correction:
    template = select.fill(component.template, axes).os
    if template.values().sum() <= 0:
        msg = f"subtract: no pair of the template {component.name!r} lies inside the axes of [select]"
        raise SteeringError(msg)
    return subtract.Correction(component.name, template, component.amount, component.sigma, component.source)


def _unit(component: Component, axes: tuple[Any, ...]) -> FloatArray:
    values = select.fill(component.template, axes).os.values().ravel()
    return np.asarray(values / values.sum())


def _to_remove(component: Component, axes: tuple[Any, ...]) -> tuple[Pairs, FloatArray]:
    """Return template pairs and weights that sum to the amount inside the axes."""
    inside = component.template.weight * looked_up(
        component.template, axes, np.ones(tuple(len(axis) for axis in axes))
    )
    return component.template, inside * (component.amount / max(float(inside.sum()), 1e-300))


def _control(hists: PairHists, ratio: Ratio, section: config.Subtract) -> tuple[float, float]:
    """Return +- over background and its error in the control region; nan without one."""
    if not section.control or section.method == "B4":
        return float("nan"), float("nan")
    inside = np.ones(hists.os.values().shape, dtype=bool)
    for position, axis in enumerate(hists.os.axes):
        low, high = dict(section.control).get(axis.name, (-np.inf, np.inf))
        along = [1] * inside.ndim
        along[position] = len(axis)
        inside &= ((axis.centers >= low) & (axis.centers < high)).reshape(along)
    if not inside.any():
        msg = f"subtract.control = {dict(section.control)}: no cell of [select] has its centre in there"
        raise SteeringError(msg)
    r = ratio.value if section.method not in ("B1", "B2") else 1.0
    coarse: dict[str, Any] = {str(name): edges for name, edges in section.coarse.items()}
    return subtract.control_ratio(hists, inside, method=section.method, r_factor=r, coarse=coarse or None)


def _removed_table(applied: Sequence[subtract.Applied]) -> Arrays:
    return {
        "removed_names": np.array([a.name for a in applied], dtype=str),
        "removed": np.array([(a.amount, a.sigma, a.fraction) for a in applied]).reshape(len(applied), 3),
        "removed_sources": np.array([a.source for a in applied], dtype=str),
    }


def _removed_angles(ctx: Context, removed: Sequence[Removed | None]) -> Arrays:
    """Return pairs to remove with their decay angles, weights and numbers of their components, if asked for.

    ``removed_angles`` (7, n): mass, pt, energy, cos θ, φ, weight, component; templates without angles miss.
    """
    if not columns_for_angles(ctx.steering):
        return {}
    found = [np.zeros((7, 0))]
    for k, part in enumerate(removed):
        if part is not None and all(name in part[0].columns for name in ANGLES):
            pairs, weight = part
            rows = (pairs.mass, pairs.pt, pairs.energy, *(pairs.columns[name] for name in ANGLES), weight)
            found.append(np.stack([*rows, np.full(len(pairs), float(k))])[:, weight > 0])
    return {"removed_angles": np.concatenate(found, axis=1)}


def _charm_arrays(components: Sequence[Component]) -> Arrays:
    fits = [c.charm for c in components if c.charm is not None]
    if not fits:
        return {}
    fit = fits[0]
    return {
        "charm_mass": fit.per_mass,
        "charm_mass_sigma": np.sqrt(np.diag(fit.per_mass_cov)),
        "charm_fit": np.array([fit.charm, fit.charm_sigma, fit.chi2, fit.ndf]),
    }
