"""The measured half after the selection: subtract, unfold, spectrum."""

from __future__ import annotations

from typing import Any

import numpy as np

from gammastar import config, select, spectrum, subtract, unfold
from gammastar.core.errors import SteeringError
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import Exposure, PairHists, Response, Spectrum
from gammastar.core.rng import stream
from gammastar.core.stats import filled
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context, axes_of, pack_spectrum, unpack_spectrum
from gammastar.store.manifest import digest

__all__ = ["spectrum_stage", "subtract_stage", "unfold_stage"]


def subtract_stage(ctx: Context, pairs: Pairs, simulated: Arrays) -> tuple[PairHists, Spectrum, Arrays]:
    """Return the pair histograms, the subtracted spectrum, and the arrays with the signed pair weights."""
    selection, section = ctx.steering.select, ctx.steering.subtract
    if selection is None or section is None:
        msg = "[select] and [subtract] are needed for the subtraction"
        raise SteeringError(msg)
    axes = axes_of(selection)
    hists = select.fill(pairs, axes)
    r_factor, sigma = section.r_factor, section.r_factor_sigma
    if r_factor == "simulation":
        if not simulated:
            msg = "subtract.r_factor = 'simulation' needs [simulate]; give the number and its error instead"
            raise SteeringError(msg)
        r_factor, sigma = (float(x) for x in simulated["r_factor"])
    coarse: dict[str, Any] = {str(name): edges for name, edges in section.coarse.items()}
    before = ctx.book.key_of("select")
    key = ctx.book.key(section, before, digest(selection.model_dump(), r_factor, sigma))

    def compute() -> Arrays:
        ctx.tell("subtract", None, f"R = {r_factor:.3f} ± {sigma:.3f}")
        options: dict[str, Any] = {"method": section.method, "r_factor": r_factor, "coarse": coarse or None}
        result = subtract.same_sign(hists, r_factor_sigma=sigma, **options)
        alarms = subtract.negative_yields(result)
        weight = subtract.event_weights(pairs, axes, **options)
        ctx.tell("subtract", None, "posterior weights")
        kept = {
            "weight": weight,
            "posterior": subtract.posterior_weights(pairs, weight, rng=stream(ctx.seed, "posterior")),
            "r_factor": np.array([r_factor, sigma]),
            "n_negative": np.array(len(alarms)),
        }
        return pack_spectrum(result) | kept

    arrays = ctx.book.arrays("subtract", key, compute)
    return hists, unpack_spectrum(arrays, axes, "counts"), arrays


def _response(ctx: Context, matched: MatchedPairs, section: config.Unfold) -> Response:
    selection = ctx.steering.select
    rng = stream(ctx.seed, "response")
    if section.preset == "true mass":
        axes_true = axes_of(section, selection)
        return unfold.response(matched, axes_of(selection), axes_true, n_replicas=section.n_replicas, rng=rng)
    return unfold.smeared_response(matched, axes_of(selection), n_replicas=section.n_replicas, rng=rng)


def unfold_stage(ctx: Context, subtracted: Spectrum, matched: MatchedPairs) -> tuple[Spectrum, Arrays]:
    """Return the unfolded counts on the true axes, and the arrays with efficiency and prior."""
    section = ctx.steering.unfold
    if section is None:
        msg = "[unfold] is needed for the true spectrum"
        raise SteeringError(msg)
    key = ctx.book.key(section, ctx.book.key_of("subtract", "match"))

    def compute() -> Arrays:
        ctx.tell("unfold", None, f"response of {len(matched)} simulated dileptons")
        response = _response(ctx, matched, section)
        ctx.tell("unfold", None, f"{section.n_iterations} iterations")
        result = unfold.iterative(
            subtracted,
            response,
            n_iterations=section.n_iterations,
            efficiency_floor=section.efficiency_floor,
        )
        chi2, ndf = unfold.refolding(result, subtracted, response)
        return pack_spectrum(result) | {
            "efficiency": response.efficiency,
            "prior": response.prior,
            "refolding": np.array([chi2, ndf]),
        }

    arrays = ctx.book.arrays("unfold", key, compute)
    ctx.book.methods["unfolded spectrum"] = (
        f"iterative Bayesian, {section.n_iterations} iterations, {section.preset!r}, covariance of the "
        f"data and of the simulation ({section.n_replicas} bootstraps)"
    )
    return unpack_spectrum(arrays, axes_of(section, ctx.steering.select), "counts"), arrays


def spectrum_stage(ctx: Context, unfolded: Spectrum, kept: Arrays, simulated: Arrays) -> Spectrum:
    """Return the spectrum per proton on target, extrapolated where the steering allows it."""
    section = ctx.steering.spectrum
    if section is None:
        msg = "[spectrum] is needed for a spectrum per proton on target"
        raise SteeringError(msg)
    pot = section.pot
    if pot == "simulation":
        if not simulated:
            msg = "spectrum.pot = 'simulation' needs [simulate]; give the number of protons on target"
            raise SteeringError(msg)
        pot = float(simulated["data_pot"])
    exposure = Exposure(
        section.beam_energy, section.target_a, section.target_z, section.thickness, pot, section.pot_sigma
    )
    result = spectrum.per_pot(unfolded, exposure)
    if section.extrapolate:
        prior = filled(tuple(unfolded.hist.axes), kept["prior"], kept["prior"])
        result = spectrum.extrapolate(result, prior)
    key = ctx.book.key(section, ctx.book.key_of("unfold"), digest(pot))
    ctx.book.done("spectrum", key, digest(result.values, result.cov, result.domain))
    return result
