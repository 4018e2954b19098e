"""The subtraction: combinatorial pairs, open charm and corrections, weights of the pairs, and their files."""

from __future__ import annotations

import functools
import importlib.util
import operator
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gammastar import config, mock, read, select, subtract
from gammastar.config.measured import Charm, CorrectionSection, load_cuts, load_runs, load_schema
from gammastar.core.errors import SteeringError
from gammastar.core.files import shipped
from gammastar.core.pairs import Pairs
from gammastar.core.records import (
    MASS,
    Arrays,
    FloatArray,
    PairHists,
    Spectrum,
    effective_size,
    rescaled,
    variable,
)
from gammastar.core.resolve import python_names, resolve
from gammastar.core.sampling import stream
from gammastar.pipeline.context import Context, axes_of, needed, pack_spectrum, unpack_spectrum
from gammastar.pipeline.stages.flow import columns_for_angles
from gammastar.pipeline.stages.read import Inputs, columns_for_vertices, match_simulation, stored_pairs
from gammastar.select.histogram import of_sums
from gammastar.spectrum.angles import ANGLES
from gammastar.store.events import write_tree
from gammastar.store.filesets import Sealed, find_file
from gammastar.store.manifest import digest, file_sha256, write_mass_histograms, write_table
from gammastar.store.pairs import StoredPairs, Truth, thinned, weighted_chunks, write_pairs, write_weighted
from gammastar.subtract import charm as charm_fit
from gammastar.subtract.estimate import control_cells, own_subtraction
from gammastar.subtract.weights import PairWeights

Parts = tuple[Pairs] | StoredPairs
TRAINED = {
    "posterior": "posterior, the fitted share of signal in the cell of a pair",
    "signed": "signed; of the cell, 1 - B/N+-, where they must not be negative",
    "cells": "of the cell, 1 - B/N+-",
    "none": "none, single pairs are not kept ([select] keep_pairs = false)",
}


def subtract_stage(ctx: Context, state: Any) -> None:
    """Subtract; write ``pairs.root``, the pairs with their weights as Parquet, and the named corrections."""
    needed(state.pairs, "select")
    stored = stored_pairs(ctx, state.cutflow)
    sums = needed(state.cutflow, "select").get("hists")
    filled = None if sums is None else of_sums(sums, axes_of(needed(ctx.steering.select, "select")))
    if _needs_simulation(_section(ctx)):
        match_simulation(ctx, state)
    given = state.pairs, state.simulated, state.inputs, state.truth, filled or stored
    state.hists, state.subtracted, state.subtraction = subtracted(ctx, *given)
    write_mass_histograms(ctx.folder, state.hists, state.subtracted)
    kept = state.subtraction
    if stored is not None:
        sample = f"{len(state.pairs)} (effective {effective_size(kept['posterior']):.0f})"
        ctx.cache.numbers |= {"pairs in files": f"{stored.n}", "pairs in memory": sample}
        ctx.cache.notes.append(
            f"{stored.n} pairs are more than select.max_in_memory: histograms and background are of all of "
            f"them; flow and OmniFold have {sample.replace(' (', ' pairs (')} of {stored.share:.3%} of the "
            "events, chosen by their hash, with weights scaled to the sum of all"
        )
    elif filled is None:
        _write_parquet(ctx, state.pairs, kept)
    if "mixed_leptons" in kept:
        ctx.cache.notes.append(
            f"mixed events are of {int(kept['mixed_leptons'])} leptons, in events that their hash chooses, "
            "with classes weighted to all events"
        )
    if len(kept["removed_names"]):
        names = ("source", "pairs", "error", "fraction", "reference")
        columns = (kept["removed_names"], *kept["removed"].T, kept["removed_sources"])
        table = {name: column.tolist() for name, column in zip(names, columns, strict=True)}
        write_table(ctx.folder / "corrections.csv", table)


def _write_parquet(ctx: Context, pairs: Pairs, kept: Arrays) -> None:
    """Write the pairs of the data with signed and posterior weights and bootstrap seeds, file by file."""
    if importlib.util.find_spec("pyarrow") is None:
        ctx.cache.notes.append("pairs are not written as Parquet: pyarrow is not installed")
        return
    dataset = ctx.steering.analysis.name
    chunks = weighted_chunks(pairs, kept["weight"], kept["posterior"], dataset)
    write_pairs(ctx.folder / "pairs", chunks, dataset=dataset)


def _needs_simulation(section: config.Subtract) -> bool:
    """Return whether the subtraction takes shapes from the simulation with truth."""
    return section.charm is not None or any(c.kind == "eta to mu mu" for c in section.corrections)


def _section(ctx: Context) -> config.Subtract:
    section: config.Subtract = needed(ctx.steering.subtract, "subtract")
    return section


def _edges(given: dict[Any, Any]) -> dict[str, Any] | None:
    return {str(name): edges for name, edges in given.items()} or None


def _options(section: config.Subtract) -> dict[str, Any]:
    """Return method and coarse regions of the combinatorial background."""
    return {"method": section.method, "coarse": _edges(section.coarse)}


def _method(ctx: Context, section: config.Subtract) -> Any:
    """Return the method of the combinatorial background: its name, or the function of the user."""
    if not section.own:
        return section.method
    return own_subtraction(resolve(section.method, ctx.code), f"subtract.method = {section.method!r}")


def subtracted(
    ctx: Context,
    pairs: Pairs,
    simulated: Arrays,
    given: Inputs,
    truth: Truth | None = None,
    stored: StoredPairs | PairHists | None = None,
) -> tuple[PairHists, Spectrum, Arrays]:
    """Return histograms, of all `stored` pairs, the subtracted spectrum, and arrays of weights and shifts."""
    selection, section = needed(ctx.steering.select, "select"), _section(ctx)
    axes = axes_of(selection)
    parts: Parts = stored if isinstance(stored, StoredPairs) else (pairs,)
    hists = stored if isinstance(stored, PairHists) else select.fill(parts, axes)
    if not any(hist.values().any() for hist in (hists.os, hists.pp, hists.mm)):
        raise SteeringError(
            f"none of {len(pairs)} selected pairs lies within [select] mass, pt and energy; see unit and axes"
        )
    before = ctx.cache.key_of("select", "match") if _needs_simulation(section) else ctx.cache.key_of("select")
    others = _other_files(ctx, section)
    angles, vertices = columns_for_angles(ctx.steering), columns_for_vertices(ctx.steering)
    own, method = ctx.code.shas(python_names(section.method)), section.way
    used = digest(selection.model_dump(), simulated.get("r_factor"), others.shas, angles, *vertices, own)
    key = ctx.cache.key(section, before, used, "trained weights")

    def compute() -> Arrays:
        ratio, leptons = charge_ratio(ctx, axes, simulated, given)
        r, sigma = ratio.mean
        ctx.tell("subtract", None, f"R = {r:.3f} ± {sigma:.3f}")
        mixed = select.fill(ratio.mixed, axes) if ratio.mixed is not None else None
        asked = _options(section) | {"method": _method(ctx, section)}
        like_sign = subtract.combinatorial(hists, ratio, mixed=mixed, **asked)
        like = _errors(ctx, parts, hists, like_sign.spectrum, ratio)
        components, charm = _components(ctx, parts, truth, ratio, axes, float(like.values.sum()))
        result, applied = subtract.apply_corrections(like, components)
        of_r = method.takes_r and not (method.by_cell and np.ndim(ratio.value))
        shifts = {"background": subtract.shift_by_r(hists, like, ratio)} if of_r else {}
        shifts |= {c.name: c.shift for c in components}
        ctx.tell("subtract", None, "weights of the pairs")
        foreign = [c.removed() for c in components]
        if isinstance(stored, PairHists):
            weighted = {key: np.zeros(0) for key in ("weight", "posterior")}
            weighted["trained_weights"] = np.array(["none", ""], dtype=str)
        else:
            weights = subtract.pair_weights(
                like_sign.sign,
                hists,
                result,
                foreign=like_sign.mixed is not None or bool(foreign),
                signed_only=section.weights == "signed" or section.own,
            )
            weighted = _weighted(ctx, weights, pairs, stored)
        return {
            **pack_spectrum(result),
            **weighted,
            "r_factor": np.array([r, sigma]),
            "n_negative": np.array(len(subtract.negative_yields(result))),
            "control": np.array(_control(hists, ratio, section)),
            "like_sign": hists.os.values() - like.values,
            "shift_names": np.array(list(shifts), dtype=str),
            "shifts": np.array(list(shifts.values())).reshape(len(shifts), like.cov.shape[0]),
            "removed_names": np.array([a.name for a in applied], dtype=str),
            "removed": np.array([(a.amount, a.sigma, a.fraction) for a in applied]).reshape(len(applied), 3),
            "removed_sources": np.array([a.source for a in applied], dtype=str),
            **({"removed_angles": charm_fit.removed_columns(foreign, ANGLES)} if angles else {}),
            **({"removed_vertices": charm_fit.removed_columns(foreign, vertices)} if vertices else {}),
            **(charm.to_arrays() if charm else {}),
            **({"mixed_leptons": np.array(leptons)} if leptons else {}),
        }

    reads = tuple(given.files) if _reads_leptons(section) else ()
    work = functools.partial(others.read, others.paths, compute)
    arrays = ctx.cache.arrays("subtract", key, lambda: given.seal.read(reads, work))
    ctx.cache.methods["background"] = (
        f"own method {section.method}" if section.own else f"{section.method}, R = {section.r_factor!r}"
    )
    _note_weights(ctx, section, hists, arrays)
    return hists, unpack_spectrum(arrays, axes), arrays


def _errors(
    ctx: Context, parts: Parts, hists: PairHists, like: Spectrum, ratio: subtract.ChargeRatio
) -> Spectrum:
    """Return the spectrum with the covariance that the steering asks for."""
    section = _section(ctx)
    if section.bootstrap:
        ctx.tell("subtract", None, f"bootstrap of events, {section.bootstrap} replicas")
        drawn: dict[str, Any] = {"n_replicas": section.bootstrap, "dataset": ctx.steering.analysis.name}
        like = subtract.with_bootstrap(parts, hists, like, ratio, **_options(section), **drawn)
    return like


def _weighted(ctx: Context, weights: PairWeights, pairs: Pairs, stored: StoredPairs | None) -> Arrays:
    """Return the weights of `pairs`; those of stored ones are written, and a sample scaled to their sums."""
    signed, positive = weights.of(pairs)
    if stored is not None:
        sums = write_weighted(ctx.folder / "pairs", stored, weights.of)
        signed, positive = rescaled(signed, sums[0]), rescaled(positive, sums[1])
    trained = np.array([weights.trained, weights.why], dtype=str)
    return {"weight": signed, "posterior": positive, "trained_weights": trained}


def _note_weights(ctx: Context, section: config.Subtract, hists: PairHists, kept: Arrays) -> None:
    """Enter how pairs are weighted; say where there were too few of them for what was asked."""
    trained, why = (str(text) for text in kept["trained_weights"])
    ctx.cache.methods["weights of the pairs"] = TRAINED[trained] + (f" ({why})" if why else "")
    if why and section.weights == "posterior" and not section.own:
        ctx.cache.alarm(
            f"subtract.weights: {why}. Instead of posterior weights the pairs carry "
            + ("signed ones" if trained == "signed" else "those of their cells")
        )
    if not section.way.gives_covariance:
        few = subtract.few_like_sign(hists, **_options(section))
        if few:
            ctx.cache.alarm(few)
    total = float(kept["values"].sum())
    if total <= 0:
        ctx.cache.alarm(f"subtract: {total:.4g} pairs are left: no signal is seen in this data")


def _control(hists: PairHists, ratio: subtract.ChargeRatio, section: config.Subtract) -> tuple[float, float]:
    """Return +- over background and its error in the control region; nan without one."""
    if not section.control or section.way.mixes:
        return float("nan"), float("nan")
    cells = control_cells(hists.os.axes, {str(name): limits for name, limits in section.control.items()})
    r, _ = ratio.of(section.method)
    asked = _options(section) | {"method": section.way.formula}
    return subtract.control_ratio(hists, cells, r_factor=r, **asked)


def _reads_leptons(section: config.Subtract) -> bool:
    """Return whether R or the background comes from the leptons of the data, which are read for it."""
    return section.r_factor == "mixed" or section.way.mixes


def charge_ratio(
    ctx: Context, axes: tuple[Any, ...], simulated: Arrays, given: Inputs
) -> tuple[subtract.ChargeRatio, int]:
    """Return R as the steering asks for it, and how many leptons were mixed if they are a sample."""
    section = _section(ctx)
    if section.r_factor == "simulation":
        return subtract.ChargeRatio(float(simulated["r_factor"][0]), float(simulated["r_factor"][1])), 0
    multiplicity = (section.r_mult, section.r_mult_sigma)
    if not _reads_leptons(section):
        ratio = subtract.ChargeRatio(float(section.r_factor), section.r_factor_sigma)
        return ratio if multiplicity == (1.0, 0.0) else ratio.with_multiplicity(*multiplicity), 0
    schema, cuts, step = _selection(ctx, data=True)
    ctx.tell("subtract", None, "leptons for mixed events")
    chunks = read.open_events([str(f) for f in given.files], schema, step=step)
    leptons = (select.singles(events, cuts) for events in chunks)
    pool = subtract.mixing_pool(leptons, dataset=ctx.steering.analysis.name)
    mixed = subtract.mixed_pairs(pool, section.mixed_pairs, rng=stream(ctx.seed, "mixed"))
    coarse = _edges(section.r_coarse)
    if section.way.by_cell and not coarse:
        coarse = {axis.name: np.asarray(axis.edges).tolist() for axis in axes}
    ratio = subtract.mixed_ratio(select.apply(mixed, cuts), axes, coarse=coarse)
    return ratio.with_multiplicity(*multiplicity), 0 if pool.complete else len(pool.charge)


def _selection(ctx: Context, *, data: bool = False) -> tuple[read.Schema, select.Cuts, Any]:
    """Return schema, cuts and step, of the data or of simulation."""
    reading, section = needed(ctx.steering.read, "read"), needed(ctx.steering.select, "select")
    schema, runs = load_schema(reading, ctx.code), load_runs(reading, ctx.base) if data else None
    cuts = load_cuts(section, ctx.code, data=data, runs=runs)
    return schema if data else schema.of_simulation(), cuts, reading.step


def _selected_pairs(ctx: Context, files: Iterable[Any]) -> Pairs:
    """Return the opposite-sign pairs of other files after the selection of the data, or a sample of them."""
    schema, cuts, step = _selection(ctx)
    parts = (select.pairs(e, cuts)[0] for e in read.open_events([str(f) for f in files], schema, step=step))
    opposite = (part.select(part.os) for part in parts)
    return thinned(opposite, ctx.max_in_memory, ctx.steering.analysis.name)


def _files(ctx: Context, names: Sequence[str]) -> list[Any]:
    return [path for name in names for path in find_file(name, ctx.base)]


def _other_files(ctx: Context, section: config.Subtract) -> Sealed:
    """Return the files that only the subtraction reads with their digests, and enter them as inputs."""
    names = [name for c in section.corrections for name in c.files]
    if section.charm is not None and section.charm.template != "simulation":
        names += section.charm.template
    others = Sealed(list(dict.fromkeys(_files(ctx, names))))
    ctx.cache.enter(dict(zip(others.paths, others.shas, strict=True)))
    return others


def _components(
    ctx: Context,
    parts: Parts,
    truth: Truth | None,
    ratio: subtract.ChargeRatio,
    axes: tuple[Any, ...],
    total: float,
) -> tuple[list[subtract.Correction], charm_fit.CharmFit | None]:
    """Return open charm and the named corrections; `total` is the yield after the combinatorial pairs."""
    section, fit = _section(ctx), None
    corrections = []
    if section.charm is not None:
        charm, fit = charm_component(ctx, parts, needed(truth, "read.response"), ratio, axes)
        corrections.append(charm)
    return [*corrections, *(_correction(ctx, c, total, truth, axes) for c in section.corrections)], fit


def charm_component(
    ctx: Context, parts: Parts, truth: Truth, ratio: subtract.ChargeRatio, axes: tuple[Any, ...]
) -> tuple[subtract.Correction, charm_fit.CharmFit]:
    """Fit open charm in mass and vertex offset; prompt pairs have the offsets of the response simulation."""
    section = _section(ctx)
    charm: Charm = needed(section.charm, "subtract.charm")
    plane = (next(axis for axis in axes if axis.name == MASS), variable(charm_fit.OFFSET, list(charm.edges)))
    others = (*ANGLES, *columns_for_vertices(ctx.steering))
    template = charm_fit.with_offset(_charm_template(ctx, charm), charm.offset, others)
    ctx.tell("subtract", None, f"charm fit, {len(template)} simulated charm pairs")
    prompt = [select.fill(charm_fit.prompt_pairs(part, charm.offset), plane).os for part in truth.parts]
    method = section.way.formula
    r, _ = ratio.of(method)
    shape = select.fill(template, plane).os
    fit = subtract.fit_charm(
        select.fill((charm_fit.with_offset(part, charm.offset) for part in parts), plane),
        shape,
        functools.reduce(operator.add, prompt),
        method=method,
        r_factor=r if np.ndim(r) == 0 else ratio.mean[0],
        r_factor_sigma=ratio.mean[1],
        coarse={MASS: section.coarse["mass"]} if "mass" in section.coarse else None,
    )
    return charm_fit.charm_correction(fit, template, select.fill(template, axes).os, shape), fit


def removed_pairs(ctx: Context, state: Any) -> list[tuple[str, Pairs, FloatArray, float]]:
    """Return open charm and corrections once more: name, pairs, weights, relative error of their number."""
    section, kept = _section(ctx), state.subtraction
    if section.charm is None and not section.corrections:
        return []
    stored = stored_pairs(ctx, state.cutflow)
    parts: Parts = (state.pairs,) if stored is None else stored
    ratio = subtract.ChargeRatio(float(kept["r_factor"][0]), float(kept["r_factor"][1]))
    total = float(kept["values"].sum() + kept["removed"][:, 0].sum())
    axes = axes_of(needed(ctx.steering.select, "select"))
    found, _ = _components(ctx, parts, state.truth, ratio, axes, total)
    return [(one.name, *one.removed(), one.sigma / max(one.amount, 1e-300)) for one in found]


def _charm_template(ctx: Context, charm: Charm) -> Pairs:
    if charm.template != "simulation":
        return _selected_pairs(ctx, _files(ctx, charm.template))
    section = needed(ctx.steering.simulate, "simulate")
    ctx.tell("subtract", None, "MOCK open charm")
    card = mock.load_card(shipped(section.card, ctx.base, "cards"))
    events = mock.simulate_events(card, charm.n_template, kind="charm", seed=ctx.seed + 2)
    path: Path = ctx.folder / "input" / "mock_charm.root"
    write_tree(path, {"events": events.branches, "meta": events.meta_branches()})
    ctx.cache.enter({path: file_sha256(path)})
    return _selected_pairs(ctx, [path])


def _correction(
    ctx: Context, given: CorrectionSection, total: float, truth: Truth | None, axes: tuple[Any, ...]
) -> subtract.Correction:
    """Return a named correction; `total` is the yield after the background subtraction."""
    if given.kind == "files":
        template = _selected_pairs(ctx, _files(ctx, given.files))
        if not len(template):
            msg = f"subtract.corrections: no opposite-sign pair of {given.name!r} passes the selection"
            raise SteeringError(msg)
        scale = 1.0 if given.fraction is None else total
        amount = float(given.pairs or 0.0) if given.fraction is None else given.fraction * total
        sigma, source = float(given.sigma or 0.0) * scale, given.source
    else:
        known, resolution = needed(truth, "read.response"), needed(given.resolution, "subtract.corrections")
        sized = subtract.eta_dimuon(
            next(axis for axis in axes if axis.name == MASS),
            needed(given.n_dalitz, "subtract.corrections"),
            resolution=resolution,
            efficiency_ratio=given.efficiency_ratio,
            n_dalitz_sigma=given.n_dalitz_sigma,
        )
        template = charm_fit.eta_pairs(known.sample, resolution, rng=stream(ctx.seed, "eta"))
        amount, sigma, source = sized.amount, sized.sigma, given.source or sized.source
    return subtract.Correction(given.name, select.fill(template, axes).os, amount, sigma, source, template)
