"""The unfolding of a run: method, strength, systematic sources, scan on the mass spectrum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from gammastar import config, unfold
from gammastar.core.axes import MASS
from gammastar.core.errors import SteeringError
from gammastar.core.pairs import Pairs
from gammastar.core.records import FloatArray, Response, Spectrum
from gammastar.core.rng import stream
from gammastar.core.sources import EFFICIENCY, POLARISATION, PRIOR, RADIATION
from gammastar.core.stats import filled
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context, axes_of, pack_spectrum, unpack_spectrum
from gammastar.pipeline.shaped import line_shape_spectrum
from gammastar.pipeline.sources import asked_shifts, lepton_mass, radiated
from gammastar.pipeline.stored_truth import Truth
from gammastar.pipeline.unbinned import unbinned_spectrum, with_sources

__all__ = ["mass_scan", "simulation_of", "unfold_stage"]

ITERATIONS = (1.0, 2.0, 4.0, 6.0, 10.0, 20.0)
TAUS = (10.0, 3.0, 1.0, 0.3, 0.1)  # times the one that is chosen on the mass spectrum
SLOPE = 0.15  # of the alternative truths of the scan, from end to end of the mass axis


def unfold_stage(
    ctx: Context, subtracted: Spectrum, truth: Truth, pairs: Pairs, subtraction: Arrays
) -> tuple[Spectrum, Arrays]:
    """Return the unfolded counts on the true axes, and the arrays with efficiency, prior and sources."""
    section = ctx.steering.unfold
    if section is None:
        msg = "[unfold] is needed for the true spectrum"
        raise SteeringError(msg)
    used = "" if ctx.steering.spectrum is None else ctx.steering.spectrum.lepton
    key = ctx.book.key(section, ctx.book.key_of("subtract", "match"), used)
    axes_true = true_axes(ctx)

    def compute() -> Arrays:
        _check_yield(section, subtracted)
        ctx.tell("unfold", None, f"response of {truth.size} simulated dileptons")
        known = simulation_of(section, truth)
        axes = tuple(subtracted.hist.axes)
        rng = stream(ctx.seed, "response")
        response = known.response(axes, axes_true, n_replicas=section.n_replicas, rng=rng)
        measured, variations = _variations(ctx, subtracted, known, response, subtraction)
        extra: Arrays = {}
        if section.method == "omnifold":
            result, extra = unbinned_spectrum(ctx, known.sample, response, pairs, subtraction)
            n, floor = int(extra["strength"]), section.efficiency_floor
            same = partial(unfold.iterative, n_iterations=n, efficiency_floor=floor)
            result, sources = with_sources(
                result,
                *unfold.with_systematics(measured, unfold.without_replicas(response), same, variations),
            )
        else:
            unfolder, strength = _unfolder(ctx, section, measured, response)
            extra["strength"] = np.array(strength)
            result, sources = unfold.with_systematics(measured, response, unfolder, variations)
            extra |= _statistics(unfolder, measured, response, result, sources)
        chi2, ndf = unfold.refolding(result, subtracted, response)
        if section.preset == "line shape":
            result, fitted = line_shape_spectrum(measured, known.sample, result)
            extra |= fitted
        return (
            pack_spectrum(result)
            | extra
            | mass_scan(ctx, section, measured, known)
            | {
                "efficiency": response.efficiency,
                "prior": response.prior,
                "refolding": np.array([chi2, ndf]),
                "source_names": np.array([s.name for s in sources], dtype=str),
                "source_shifts": np.array([s.shift for s in sources]).reshape(
                    len(sources), result.cov.shape[0]
                ),
                "source_sizes": np.array([(s.total, s.mean) for s in sources]).reshape(len(sources), 2),
            }
        )

    arrays = ctx.book.arrays("unfold", key, compute)
    ctx.book.methods["unfolded spectrum"] = _method(section, arrays)
    return unpack_spectrum(arrays, axes_true, "counts"), arrays


def _check_yield(section: config.Unfold, subtracted: Spectrum) -> None:
    """Refuse data without a signal, unless the method is linear in them and scales nothing to their sum.

    Raises
    ------
    SteeringError
        If no pair, or less, is left after the subtraction.
    """
    total = float(subtracted.values.sum())
    if total > 0 or section.method == "least squares":
        return
    error = np.sqrt(max(float(subtracted.cov.sum()), 0.0))
    msg = (
        f"unfold: {total:.4g} ± {error:.2g} pairs are left inside the axes of [select] after subtraction; "
        f"method = {section.method!r} needs more than none: take more data, or method = 'least squares', "
        "whose cells may be negative"
    )
    raise SteeringError(msg)


def true_axes(ctx: Context) -> tuple[Any, ...]:
    """Return the axes of the unfolded spectrum."""
    section = ctx.steering.unfold
    smeared = section is not None and section.preset.startswith("smeared")
    return axes_of(None if smeared else section, ctx.steering.select)


def _method(section: config.Unfold, arrays: Arrays) -> str:
    strength = float(arrays["strength"]) if "strength" in arrays else float("nan")
    how = {
        "iterative": f"iterative Bayesian, {strength:g} iterations",
        "tikhonov": f"Tikhonov, {section.penalty}, tau = {strength:.4g} ({section.tau})",
        "least squares": "least squares",
        "omnifold": f"OmniFold, {section.n_iterations} iterations",
    }[section.method]
    less = ", bias from the finite simulation subtracted" if section.debias else ""
    return (
        f"{how}, {section.preset!r}{less}, covariance of the data and of the simulation "
        f"({section.n_replicas} bootstraps)"
    )


def simulation_of(section: config.Unfold, truth: Truth) -> Truth:
    """Return the simulation as the preset sees it: the smeared one keeps the resolution in the mass."""
    if not section.preset.startswith("smeared"):
        return truth
    return truth.seen_as(
        lambda part: replace(part, reco=np.where(part.reconstructed[:, None], part.true, np.nan))
    )


def _start(measured: Spectrum, response: Response) -> FloatArray:
    """Return the spectrum of the simulation, scaled to the data: what Tikhonov regularises towards."""
    expected = float((response.migration @ response.prior).sum())
    return response.prior * float(measured.values.sum()) / max(expected, 1e-300)


def _unfolder(
    ctx: Context, section: config.Unfold, measured: Spectrum, response: Response
) -> tuple[unfold.Unfolder, float]:
    """Return the method as a function and its strength."""
    floor = section.efficiency_floor
    if section.method == "least squares":
        return partial(unfold.least_squares, efficiency_floor=floor), 0.0
    if section.method == "tikhonov":
        start = _start(measured, response)
        options: dict[str, Any] = {"penalty": section.penalty, "start": start}
        tau = section.tau
        if isinstance(tau, str):
            ctx.tell("unfold", None, f"tau from the {tau} criterion")
            choose = unfold.l_curve if tau == "l-curve" else unfold.least_correlated
            tau = choose(measured, response, **options).best
        return partial(unfold.tikhonov, tau=tau, efficiency_floor=floor, **options), float(tau)
    n = section.n_iterations
    if isinstance(n, str):
        n = unfold.stable_iterations(measured, response, efficiency_floor=floor)
    ctx.tell("unfold", None, f"{n} iterations")
    return partial(unfold.iterative, n_iterations=n, efficiency_floor=floor, debias=section.debias), float(n)


def _shifted(measured: Spectrum, shift: FloatArray) -> Spectrum:
    values = measured.values + shift.reshape(measured.values.shape)
    hist = filled(tuple(measured.hist.axes), values, np.diag(measured.cov))
    return replace(measured, hist=hist)


def _variations(
    ctx: Context, subtracted: Spectrum, known: Truth, response: Response, subtraction: Arrays
) -> tuple[Spectrum, list[unfold.Variation]]:
    """Return the data without the named sources in their covariance, and one variation per source."""
    section = ctx.steering.unfold
    if section is None:
        return subtracted, []
    asked, plain = section.systematics, unfold.without_replicas(response)
    wanted = asked_shifts(asked, subtraction)
    cov, found = subtracted.cov.copy(), []
    for name, shift in wanted:
        cov -= np.outer(shift, shift)
        found.append((name, shift))
    hist = filled(tuple(subtracted.hist.axes), subtracted.values, np.diag(cov))
    measured = replace(subtracted, hist=hist, cov=cov)
    result = [unfold.Variation(name, _shifted(measured, shift), plain) for name, shift in found]
    axes, true = response.reco, response.true
    if asked.polarisation is not None:
        result += [
            unfold.Variation(POLARISATION, None, known.polarised(axes, true, sign))
            for sign in (asked.polarisation, -asked.polarisation)
        ]
    if asked.fsr is not None:
        view = radiated(asked.fsr, lepton_mass(ctx), stream(ctx.seed, "radiation"))
        varied = known.varied(view, axes, true)
        result.append(unfold.Variation(RADIATION, None, varied))
    if asked.prior:
        n = section.n_iterations if isinstance(section.n_iterations, int) else 4
        first = unfold.iterative(measured, plain, n_iterations=n, efficiency_floor=section.efficiency_floor)
        varied = known.varied(unfold.reweighted_to(first, plain), axes, true)
        result.append(unfold.Variation(PRIOR, None, varied))
    if asked.efficiency is not None:
        result += [
            unfold.Variation(EFFICIENCY, None, unfold.scaled_response(plain, 1 + sign * asked.efficiency))
            for sign in (1, -1)
        ]
    return measured, result


def _statistics(
    unfolder: unfold.Unfolder,
    measured: Spectrum,
    response: Response,
    result: Spectrum,
    sources: Sequence[unfold.Source],
) -> Arrays:
    """Return the errors of the sum from data and from simulation, and the statistical covariance."""
    data = unfolder(measured, unfold.without_replicas(response)).cov
    statistical = result.cov - sum((np.outer(s.shift, s.shift) for s in sources), np.zeros_like(data))
    total = abs(float(result.values.sum()))
    simulation = max(float((statistical - data).sum()), 0.0)
    both = np.sqrt([max(float(data.sum()), 0.0), simulation])
    return {"statistics": both / total if total > 0 else both, "statistical_cov": statistical}


def mass_scan(ctx: Context, section: config.Unfold, measured: Spectrum, known: Truth) -> Arrays:
    """Unfold the mass spectrum with several strengths; alternative truths have another slope.

    Tikhonov's strengths are multiples of the one that the same criterion chooses on the mass spectrum.
    """
    if section.method not in ("iterative", "tikhonov") or section.scan == ():
        return {}
    (position,) = (i for i, axis in enumerate(measured.hist.axes) if axis.name == MASS)
    axis = measured.hist.axes[position]
    label = np.indices(measured.values.shape)[position].ravel()
    total = (np.arange(len(axis))[:, None] == label).astype(np.float64)
    cov, values = total @ measured.cov @ total.T, total @ measured.values.ravel()
    data = Spectrum(
        filled((axis,), values, np.diag(cov)), cov, "counts", None, np.ones(len(axis), dtype=bool)
    )
    rng = stream(ctx.seed, "scan")
    response = known.response((axis,), (axis,), n_replicas=section.n_replicas, rng=rng)
    ctx.tell("unfold", None, "scan of the regularisation on the mass spectrum")
    start, floor = _start(data, response), section.efficiency_floor
    candidates: Mapping[str, unfold.Unfolder]
    if section.method == "iterative":
        strengths = section.scan or ITERATIONS
        candidates = {
            f"{n:g}": partial(unfold.iterative, n_iterations=int(n), efficiency_floor=floor)
            for n in strengths
        }
    else:
        options: dict[str, Any] = {"penalty": section.penalty, "start": start}
        best = unfold.least_correlated if section.tau == "least correlated" else unfold.l_curve
        strengths = section.scan or tuple(t * best(data, response, **options).best for t in TAUS)
        candidates = {
            f"{t:g}": partial(unfold.tikhonov, tau=t, efficiency_floor=floor, **options) for t in strengths
        }
    x = np.linspace(-1, 1, len(axis))
    truths = {name: start * (1 + sign * SLOPE * x) for name, sign in (("steeper", -1), ("flatter", 1))}
    found = unfold.scan(data, response, candidates, alternatives=truths)
    rows = [(c.chi2_ndf, c.correlation, c.error, c.bias) for c in found]
    return {"scan_strength": np.array(strengths, dtype=np.float64), "scan": np.array(rows)}
