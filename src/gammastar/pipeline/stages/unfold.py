"""Section ``[unfold]``: response, method, systematic sources, and a scan on the mass spectrum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from gammastar import config, unfold
from gammastar.config import Systematics
from gammastar.core.constants import LEPTON_MASS
from gammastar.core.errors import SteeringError
from gammastar.core.records import MASS, Arrays, FloatArray, PairHists, Response, Spectrum, divided, flow_free
from gammastar.core.resolve import python_names, resolve
from gammastar.core.sampling import stream
from gammastar.core.sources import MOMENTUM_SCALE, PRIOR, RADIATION, RESOLUTION
from gammastar.pipeline.context import Context, axes_of, needed, pack_spectrum, simulation_of, unpack_spectrum
from gammastar.pipeline.stages.read import match_simulation
from gammastar.select import scale_factors
from gammastar.store.manifest import digest, write_table
from gammastar.store.pairs import Truth
from gammastar.unfold import folding, methods, omnifolding, simulation, systematics
from gammastar.unfold.folding import Method, Options, folded_again
from gammastar.unfold.iterative_bayes import values_alone
from gammastar.unfold.likelihood_fit import LikelihoodUnfolder
from gammastar.unfold.response_matrix import without_replicas
from gammastar.unfold.systematics import Variation

KINEMATIC_ROUNDS = 3  # beyond, slopes that are off by a tenth hardly move on
REFOLDED_TOYS = 40  # mean and width of the χ² to 3 % and 11 %
SOURCES = {"background": "background", "charm": "open charm"}


def unfold_stage(ctx: Context, state: Any) -> None:
    """Unfold; write the table of sources and the scan of the regularisation."""
    section = needed(ctx.steering.unfold, "unfold")
    if state.subtracted is None or state.inputs is None:
        raise SteeringError("the section [subtract] is missing: the unfolding needs its result")
    if state.matched is None:
        match_simulation(ctx, state)
    used = "" if ctx.steering.spectrum is None else ctx.steering.spectrum.lepton
    own = digest(ctx.code.shas(python_names(section.method)))
    sources = digest(ctx.steering.systematics.of("unfold"), ctx.own_files())
    ctx.cache.inputs |= ctx.own_files()
    key = ctx.cache.key(section, ctx.cache.key_of("subtract", "match"), used, own, sources)
    method, options = _method(ctx, section), _options(section, state.hists)
    kept = state.unfolding = ctx.cache.arrays("unfold", key, lambda: _unfolded(ctx, section, method, state))
    shifts = dict(zip(kept["source_names"].tolist(), kept["source_shifts"], strict=True))
    state.unfolded = replace(unpack_spectrum(kept, true_axes(ctx)), shifts=shifts)
    ctx.cache.methods["unfolded spectrum"] = (
        f"{method.describe(options, float(kept['strength']))}, {section.preset!r}, covariance of the data "
        "and of the simulation" + ("" if method.finer_cells else f" ({section.n_replicas} bootstraps)")
    )
    if len(kept["source_names"]):
        total, mean = kept["source_sizes"].T
        table = {"source": kept["source_names"].tolist(), "total": total.tolist(), "cell": mean.tolist()}
        write_table(ctx.folder / "systematics.csv", table)
        for name in (str(name) for name, size in zip(table["source"], mean, strict=True) if size == 0):
            ctx.cache.alarm(f"systematics: {name!r} moves no cell of the spectrum")
    if "intervals" in kept:
        write_table(ctx.folder / "cells.csv", _cells(state.unfolded, kept))
    if "scan" in kept:
        names = ("chi2_per_cell", "correlation", "error", "bias")
        columns = {"strength": kept["scan_strength"].tolist()}
        columns |= {name: column.tolist() for name, column in zip(names, kept["scan"].T, strict=True)}
        write_table(ctx.folder / "regularisation.csv", columns)


def _cells(unfolded: Spectrum, kept: Arrays) -> dict[str, list[float]]:
    """Return edges, photons with their error, and the interval by profile likelihood of every cell."""
    table: dict[str, Any] = {}
    places = np.indices(unfolded.values.shape).reshape(len(unfolded.hist.axes), -1)
    for axis, place in zip(unfolded.hist.axes, places, strict=True):
        table |= {f"{axis.name}_low": axis.edges[place], f"{axis.name}_high": axis.edges[place + 1]}
    table |= {"photons": unfolded.values.ravel(), "error": np.sqrt(np.diag(unfolded.cov))}
    table |= {"interval_low": kept["intervals"][:, 0], "interval_high": kept["intervals"][:, 1]}
    return {name: column.tolist() for name, column in (table | {"measured": unfolded.domain.ravel()}).items()}


def _unfolded(ctx: Context, section: config.Unfold, method: Method, state: Any) -> Arrays:
    """Return the unfolded counts on the true axes, with efficiency, prior and sources."""
    subtracted: Spectrum = state.subtracted
    total, error = folding.summed(subtracted)
    if total <= 0 and not method.linear:  # and scales nothing to the sum of the data
        raise SteeringError(
            f"unfold: {total:.4g} ± {error:.2g} pairs are left inside the axes of [select] after subtraction"
            f"; method = {section.method!r} needs more than none: take more data, or method = 'least "
            "squares', whose cells may be negative"
        )
    ctx.tell("unfold", None, f"response of {state.truth.size} simulated dileptons")
    known = simulation_of(section, state.truth)
    axes, rng = tuple(subtracted.hist.axes), stream(ctx.seed, "response")
    asked = true_axes(ctx)
    fine = unfold.fine_response(known.parts, axes, asked) if method.finer_cells else None
    if fine is None:
        response = unfold.response(known.parts, axes, asked, n_replicas=section.n_replicas, rng=rng)
    else:
        response, known = fine.response, known.seen_as(fine.view)
    plain = without_replicas(response)
    shifts = asked_shifts(ctx.steering.systematics, state.subtraction)
    measured, variations = systematics.data_variations(subtracted, shifts, plain)
    extra: Arrays = {}
    if method.pairs:
        variations += varied_responses(ctx, known, plain, partial(unfold.iterative, measured, plain))
        result, extra = _omnifold(ctx, section, state, known, response)
        n, floor = int(extra["strength"]), section.efficiency_floor
        same = partial(unfold.iterative, n_iterations=n, efficiency_floor=floor)
        binned, sources = unfold.with_systematics(measured, plain, same, variations)
        result, sources = omnifolding.scaled_sources(result, binned, sources)
    else:
        options = _options(section, state.hists)
        unfolder, strength = method.prepare(measured, response, options)
        ctx.tell("unfold", None, method.describe(options, strength))
        first = partial(unfolder, measured, plain)
        if fine is not None:
            known, response, extra, other = _with_measured_kinematics(
                known, response, partial(unfolder, measured)
            )
            fine, plain = replace(fine, response=response), without_replicas(response)
            variations = [replace(one, response=plain) for one in variations]
            if extra and ctx.steering.systematics.prior is not False:
                variations.append(Variation(PRIOR, None, other))
        variations += varied_responses(ctx, known, plain, first if fine is None else None)
        result, sources = unfold.with_systematics(measured, response, unfolder, variations)
        statistical = systematics.statistical_cov(result, sources)
        of_data = unfolder(measured, plain).cov
        errors = systematics.relative_errors(result, statistical, of_data)
        extra |= {"strength": np.array(strength), "statistics": errors, "statistical_cov": statistical}
        if fine is not None and isinstance(unfolder, LikelihoodUnfolder):
            extra |= unfolder.judged(subtracted, fine, stream(ctx.seed, "intervals"))
    refolded = np.array(unfold.refolding(result, subtracted, response))
    extra.setdefault("refolded", folded_again(result, response))
    prior, efficiency = response.prior, response.efficiency
    if fine is not None:
        sums, result = fine.sums, fine.summed(result)
        sources = tuple(replace(source, shift=sums @ source.shift) for source in sources)
        extra["statistical_cov"] = sums @ extra["statistical_cov"] @ sums.T
        prior = sums @ response.prior
        efficiency = divided(sums @ (response.prior * response.efficiency), prior)
    if not result.values.any():
        raise SteeringError(
            "[unfold]: no cell of the true axes has photons that data and simulation saw; at most "
            f"{efficiency.max():.3g} of a cell is seen, efficiency_floor is {section.efficiency_floor:g}: "
            "lower it, or take wider cells in [select] and [unfold]"
        )
    if method.toys:
        extra |= _refolding_toys(ctx, int(extra["strength"]), subtracted, response)
    return (
        pack_spectrum(result)
        | extra
        | _scanned(ctx, section, method, measured, known)
        | {"efficiency": efficiency, "prior": prior, "refolding": refolded}
        | _packed(sources, result.values.size)
    )


def _with_measured_kinematics(
    known: Truth, first: Response, unfolder: Callable[[Response], Spectrum]
) -> tuple[Truth, Response, Arrays, Response]:
    """Return the simulation with the pt and energies of the unfolded data, its response, and the factors.

    The last is the response without them; where the first ones are noise, of which less than half was taken,
    that with all of them.
    """
    factors: Arrays = {}
    response = other = first
    for k in range(KINEMATIC_ROUNDS):
        unfolded = unfolder(response)
        whole = simulation.kinematic_factors(unfolded, response, known.parts)
        curves = simulation.significant(whole, unfolded)
        if k == 0 and all(2 * np.ptp(curves[name][1]) < np.ptp(whole[name][1]) for name in whole):
            noisy = known.seen_as(simulation.with_kinematics(whole))
            other = unfold.response(noisy.parts, first.reco, first.true, n_replicas=0)
        known = known.seen_as(simulation.with_kinematics(curves))
        response = unfold.response(known.parts, first.reco, first.true, n_replicas=0)
        factors |= {f"factor_{name}_{k}": curve for name, curve in curves.items()}
    return known, response, factors, other


def _refolding_toys(ctx: Context, n: int, subtracted: Spectrum, response: Response) -> Arrays:
    """Return χ² of all cells folded again, their number, its mean and spread in toys, and its p-value."""
    ctx.tell("unfold", None, "toys of the refolding")
    unfolder = partial(values_alone, n_iterations=n)
    rng = stream(ctx.seed, "refolding")
    found = unfold.refolding_test(subtracted, response, unfolder, rng=rng, n_toys=REFOLDED_TOYS)
    spread = float(found.toys.std(ddof=1))
    return {"refolding_toys": np.array([found.chi2, found.cells, found.expected, spread, found.p_value])}


def _options(section: config.Unfold, hists: PairHists | None = None) -> Options:
    way = section.n_iterations, section.tau, section.penalty, section.debias, section.efficiency_floor
    return Options(*way, None if hists is None else flow_free(hists.os))


def _method(ctx: Context, section: config.Unfold) -> Method:
    """Return the method of a name or of ``file.py:function``."""
    if section.method in methods.METHODS:
        return methods.METHODS[section.method]
    return methods.own_method(resolve(section.method, ctx.code), f"unfold.method = {section.method!r}")


def _packed(sources: Sequence[systematics.Source], n_cells: int) -> Arrays:
    n = len(sources)
    return {
        "source_names": np.array([source.name for source in sources], dtype=str),
        "source_shifts": np.array([source.shift for source in sources]).reshape(n, n_cells),
        "source_sizes": np.array([(source.total, source.mean) for source in sources]).reshape(n, 2),
    }


def true_axes(ctx: Context) -> tuple[Any, ...]:
    """Return the axes of the unfolded spectrum."""
    section = ctx.steering.unfold
    smeared = section is not None and section.preset.startswith("smeared")
    return axes_of(None if smeared else section, ctx.steering.select)


def asked_shifts(asked: Systematics, subtraction: Arrays) -> list[tuple[str, FloatArray]]:
    """Return the sources in the data that the steering names, with the shift of every measured cell."""
    names = [str(name) for name in subtraction["shift_names"]]
    wanted = [name for key, name in SOURCES.items() if getattr(asked, key)]
    missing = [name for name in wanted if name not in names]
    if missing or (asked.corrections and not set(names) - set(SOURCES.values())):
        what = ", ".join(missing) or "corrections"
        msg = f"systematics: there is no source {what} in this run; [subtract] gives {names or 'none'}"
        raise SteeringError(msg)
    if asked.corrections:
        wanted += [name for name in names if name not in SOURCES.values()]
    return [(name, subtraction["shifts"][names.index(name)]) for name in wanted]


def varied_responses(
    ctx: Context, known: Truth, plain: Response, first: Callable[[], Spectrum] | None = None
) -> list[unfold.Variation]:
    """Return one variation of the response per source of [systematics]; the prior moves to `first`."""
    asked = ctx.steering.systematics
    lepton = LEPTON_MASS["mu" if ctx.steering.spectrum is None else ctx.steering.spectrum.lepton]
    selection, views = ctx.steering.select, []
    if asked.radiation is not None:
        rng = stream(ctx.seed, "radiation")
        views.append((RADIATION, simulation.more_radiation(asked.radiation, lepton, rng)))
    for name, size, view in (
        (MOMENTUM_SCALE, asked.momentum_scale, simulation.other_scale),
        (RESOLUTION, asked.momentum_resolution, simulation.other_resolution),
    ):
        views += [(name, view(sign * size, lepton)) for sign in (1, -1) if size is not None]
    if first is not None and asked.prior:
        curves = simulation.kinematic_factors(first(), plain, known.parts)
        views.append((PRIOR, simulation.with_kinematics(curves)))
    return systematics.response_variations(
        known.parts,
        plain,
        views=views,
        polarisation=asked.polarisation,
        efficiency=asked.efficiency,
        scale_factors=[] if selection is None else scale_factors.sources_of(selection.scale_factors),
        own=ctx.own_sources(),
    )


def _scanned(
    ctx: Context, section: config.Unfold, method: Method, measured: Spectrum, known: Truth
) -> Arrays:
    """Unfold the mass spectrum with several strengths."""
    if method.candidates is None or section.scan == ():
        return {}
    flat = measured.project(MASS)
    axes, rng = tuple(flat.hist.axes), stream(ctx.seed, "scan")
    response = unfold.response(known.parts, axes, axes, n_replicas=section.n_replicas, rng=rng)
    ctx.tell("unfold", None, "scan of the regularisation on the mass spectrum")
    strengths, tried = methods.mass_scan(flat, response, method, _options(section), section.scan or ())
    return {"scan_strength": strengths, "scan": np.array([one.row for one in tried])}


def _omnifold(
    ctx: Context, section: config.Unfold, state: Any, known: Truth, response: Response
) -> tuple[Spectrum, Arrays]:
    """Unfold the pairs without bins; the errors of the histogram are those of replicas."""
    ctx.tell("unfold", None, f"OmniFold and {section.n_replicas} replicas")
    spectrum, nominal = omnifolding.unfolded_pairs(
        state.pairs,
        (state.subtraction["weight"], state.subtraction["posterior"]),
        known.sample,
        response,
        rngs=[stream(ctx.seed, f"omnifold{what}") for what in ("", " data", " replicas")],
        n_replicas=section.n_replicas,
        efficiency_floor=section.efficiency_floor,
        n_iterations=section.n_iterations,
        tolerance=section.tolerance,
    )
    total, error = folding.summed(spectrum)
    return spectrum, {
        "omnifold_weight": nominal.weight,
        "omnifold_change": nominal.change,
        "strength": np.array(float(len(nominal.history))),
        "statistical_cov": spectrum.cov,
        "replica_error": np.array(error / max(total, 1e-300)),
    }
