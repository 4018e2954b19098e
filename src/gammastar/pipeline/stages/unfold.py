"""The unfolding of a run: method, strength, systematic sources, scan on the mass spectrum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from gammastar import config, unfold
from gammastar.config.measured import Systematics
from gammastar.core.axes import KINEMATICS, MASS, filled, regular
from gammastar.core.constants import LEPTON_MASS, branching
from gammastar.core.errors import SteeringError
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import FloatArray, Response, Spectrum
from gammastar.core.sampling import stream
from gammastar.core.sources import EFFICIENCY, POLARISATION, PRIOR, RADIATION
from gammastar.physics.qed import radiated as radiated_shares
from gammastar.pipeline.cache import Arrays
from gammastar.pipeline.context import Context, axes_of, pack_spectrum, unpack_spectrum
from gammastar.pipeline.stages.stored import Truth, View

__all__ = [
    "asked_shifts",
    "lepton_mass",
    "line_shape_spectrum",
    "mass_scan",
    "radiated",
    "simulation_of",
    "unbinned_spectrum",
    "unfold_stage",
    "with_sources",
]

FINE = 0.005  # GeV, true cells of the forward fold; a tenth of the usual resolution of 30 to 60 MeV
TIES = {("omega_dalitz", "omega"): (branching("omega -> pi0 mu mu") / branching("omega -> e e"), 0.2)}
"""BR(ω → μμπ⁰)/BR(ω → μμ), the latter by lepton universality, and its relative error."""
ITERATIONS = (1.0, 2.0, 4.0, 6.0, 10.0, 20.0)
TAUS = (10.0, 3.0, 1.0, 0.3, 0.1)  # times the one that is chosen on the mass spectrum
SLOPE = 0.15  # of the alternative truths of the scan, from end to end of the mass axis


SOURCES = {"background": "background", "charm": "open charm"}


def asked_shifts(asked: Systematics, subtraction: Arrays) -> list[tuple[str, FloatArray]]:
    """Return the sources in the data that the steering names, with the shift of every measured cell.

    Raises
    ------
    SteeringError
        If the subtraction of this run has no such source.
    """
    names = [str(name) for name in subtraction["shift_names"]]
    wanted = [name for key, name in SOURCES.items() if getattr(asked, key)]
    missing = [name for name in wanted if name not in names]
    if missing or (asked.corrections and not set(names) - set(SOURCES.values())):
        what = ", ".join(missing) or "corrections"
        msg = f"unfold.systematics: there is no source {what} in this run; [subtract] gives {names or 'none'}"
        raise SteeringError(msg)
    if asked.corrections:
        wanted += [name for name in names if name not in SOURCES.values()]
    return [(name, subtraction["shifts"][names.index(name)]) for name in wanted]


def lepton_mass(ctx: Context) -> float:
    """Return the mass of the lepton of the run [GeV]."""
    return LEPTON_MASS["mu" if ctx.steering.spectrum is None else ctx.steering.spectrum.lepton]


def radiated(share: float, lepton: float, rng: np.random.Generator) -> View:
    """Return the simulation with more radiation, as a function of its parts."""

    def view(part: MatchedPairs) -> MatchedPairs:
        kept = radiated_shares(part.true[:, 0], lepton, rng)
        after = unfold.radiated_pairs(part, np.maximum(kept, 1e-3), m_lepton=lepton)
        return unfold.mixed_simulation(part, after, share)

    return view


def _summed(spectrum: Spectrum) -> tuple[int, FloatArray]:
    """Return the position of the mass axis and the matrix that sums over all others."""
    position = [axis.name for axis in spectrum.hist.axes].index(MASS)
    label = np.indices(spectrum.domain.shape)[position].ravel()
    n = len(spectrum.hist.axes[position])
    return position, (np.arange(n)[:, None] == label).astype(np.float64)


def line_shape_spectrum(
    measured: Spectrum, matched: MatchedPairs, unfolded: Spectrum
) -> tuple[Spectrum, Arrays]:
    """Replace the mass dependence of an unfolded spectrum by fitted line shapes.

    Parameters
    ----------
    measured : Spectrum
        Subtracted pairs on the reconstructed axes.
    matched : MatchedPairs
    unfolded : Spectrum
        Of the iterative method, on the true axes.

    Returns
    -------
    Spectrum
        Per mass bin the integral of the line shapes inside the domain, divided among pt and energy as
        `unfolded` divides it. Its covariance holds both, and is first order.
    dict of arrays
        Names, yields and errors of the components, chi2 and ndf.

    Raises
    ------
    SteeringError
        If the spectrum has no mass axis wide enough for the fit.
    """
    position, total = _summed(unfolded)
    axis = unfolded.hist.axes[position]
    measured_position, measured_total = _summed(measured)
    reco = measured.hist.axes[measured_position]
    cov = measured_total @ measured.cov @ measured_total.T
    values = measured_total @ measured.values.ravel()
    flat = Spectrum(
        filled((reco,), values, np.diag(cov)), cov, "counts", None, np.ones(len(reco), dtype=bool)
    )
    low, high = float(reco.edges[0]), float(reco.edges[-1])
    low, high = max(0.2115, low - 0.05), high + 0.1  # pairs from outside enter by the resolution
    same = unfold.reweighted(matched, unfolded)
    inside = unfold.fiducial(same, unfolded)
    fine = regular(MASS, max(round((high - low) / FINE), 1), low, high)
    part = unfold.fiducial_fraction(same, unfolded, axis)
    centres = 0.5 * (np.asarray(axis.edges)[1:] + np.asarray(axis.edges)[:-1])
    response = unfold.response(inside, (reco,), (fine,), n_replicas=0)
    components = [c.times(centres, part) for c in unfold.cocktail_components((low, high))]
    folded = [float((response.migration @ c.cells(np.asarray(fine.edges))).sum()) for c in components]
    components = [c for c, seen in zip(components, folded, strict=True) if seen > 1e-9]
    if len(components) > len(reco):
        msg = f"unfold.preset = 'line shape': {len(reco)} mass bins cannot fix {len(components)} line shapes"
        raise SteeringError(msg)
    known = {c.name for c in components}
    ties = {pair: value for pair, value in TIES.items() if set(pair) <= known}
    found = unfold.forward_fold(flat, response, components, ratios=ties)
    shape = found.spectrum(axis)
    extra = {
        "shape_names": np.array([c.name for c in components], dtype=str),
        "shape_yields": np.stack([found.yields, np.sqrt(np.diag(found.cov))], axis=1),
        "shape_chi2": np.array([found.chi2, found.ndf]),
    }
    return _distributed(shape, unfolded, total), extra


def _distributed(shape: Spectrum, unfolded: Spectrum, total: FloatArray) -> Spectrum:
    """Divide each mass bin of `shape` among the cells as `unfolded` does; first-order covariance of both."""
    u = np.where(unfolded.domain.ravel(), unfolded.values.ravel(), 0.0)
    per_bin = total @ u
    safe = np.where(per_bin > 0, per_bin, 1.0)
    share = np.where(total.T @ per_bin > 0, u / (total.T @ safe), 0.0)
    line = np.where(per_bin > 0, shape.values.ravel(), 0.0)
    values = share * (total.T @ line)
    # d value = share dL + L/U (dU − share dΣU)
    by_line = total.T * share[:, None]
    by_cell = (total.T @ (line / safe))[:, None] * (np.eye(len(u)) - share[:, None] * (total.T @ total))
    cov = by_line @ shape.cov @ by_line.T + by_cell @ unfolded.cov @ by_cell.T
    cov = (cov + cov.T) / 2
    hist = filled(tuple(unfolded.hist.axes), values, np.diag(cov))
    return Spectrum(hist, cov, "counts", unfolded.exposure, unfolded.domain)


def unbinned_spectrum(
    ctx: Context, known: MatchedPairs, response: Response, pairs: Pairs, subtraction: Arrays
) -> tuple[Spectrum, Arrays]:
    """Unfold the pairs without bins; the spectrum is a histogram of the weights, its errors of replicas.

    The replicas bootstrap the data, like-sign pairs included, and the simulation.
    """
    section = ctx.steering.unfold
    if section is None or isinstance(section.n_iterations, str):
        msg = "[unfold] with n_iterations is needed for OmniFold"
        raise SteeringError(msg)
    use = np.flatnonzero(subtraction["posterior"] > 0)
    values = np.stack([getattr(pairs, name) for name in KINEMATICS], axis=1)
    known = unfold.in_window(known, response.reco)  # posterior weights are 0 outside
    weight = subtraction["posterior"][use]
    options: dict[str, Any] = {"n_iterations": section.n_iterations, "stop": section.stop}
    ctx.tell("unfold", None, f"OmniFold of {len(use)} pairs")
    rng = stream(ctx.seed, "omnifold")
    found = unfold.omnifold(values[use], known, rng=rng, data_weight=weight, **options)
    ctx.tell("unfold", None, f"OmniFold, {section.n_replicas} replicas")
    drawn = unfold.subtracted_replicas(
        values,
        signed=subtraction["weight"],
        posterior=subtraction["posterior"],
        event=pairs.event,
        axes=[axis for axis in response.reco if axis.name == MASS],
        rng=stream(ctx.seed, "omnifold data"),
        n_replicas=section.n_replicas,
    )
    copies = unfold.omnifold_replicas(
        values[use],
        known,
        rng=stream(ctx.seed, "omnifold replicas"),
        n_replicas=section.n_replicas,
        data_weight=drawn[:, use],
        **options,
    )
    cell = unfold.cells(known.true, response.true)
    inside, n = cell >= 0, response.efficiency.size
    nominal = np.bincount(cell[inside], found.weight[inside], n)
    scattered = np.array([np.bincount(cell[inside], copy[inside], n) for copy in copies])
    domain = response.efficiency >= section.efficiency_floor
    cov = np.where(np.outer(domain, domain), np.cov(scattered, rowvar=False).reshape(n, n), 0.0)
    shape = tuple(len(axis) for axis in response.true)
    hist = filled(response.true, np.where(domain, nominal, 0.0), np.diag(cov))
    spectrum = Spectrum(hist, cov, "counts", None, domain.reshape(shape))
    error = np.sqrt(max(float(cov.sum()), 0.0)) / max(float(nominal[domain].sum()), 1e-300)
    return spectrum, {
        "omnifold_weight": found.weight,
        "omnifold_change": found.change,
        "strength": np.array(float(len(found.history))),
        "statistical_cov": cov,
        "replica_error": np.array(error),
    }


def with_sources(
    spectrum: Spectrum, binned: Spectrum, sources: Sequence[unfold.Source]
) -> tuple[Spectrum, tuple[unfold.Source, ...]]:
    """Add systematic sources to the covariance of an OmniFold spectrum.

    Parameters
    ----------
    spectrum : Spectrum
    binned : Spectrum
        Of the iterative unfolding in the same cells, with as many iterations.
    sources : sequence of Source
        Shifts of `binned`.

    Returns
    -------
    Spectrum
    tuple of Source
        With the relative shift of each cell that `binned` has.

    Notes
    -----
    OmniFold with classifiers that are constant in cells is the iterative unfolding of these cells
    (Andreassen et al., arXiv:1911.09107): its relative shifts stand for those of OmniFold. One more OmniFold
    per source instead would differ from the nominal one by the noise of the classifiers: 4 % of a cell in
    MOCK data of 1400 effective pairs, where one standard deviation of R is 0.6 %.
    """
    values, other = spectrum.values.ravel(), binned.values.ravel()
    scale = np.divide(values, other, out=np.ones_like(values), where=(other > 0) & (values > 0))
    inside, size = spectrum.domain.ravel(), max(float(np.abs(values).sum()), 1e-300)
    cov, found = spectrum.cov.copy(), []
    for source in sources:
        shift = np.where(inside, source.shift * scale, 0.0)
        cov += np.outer(shift, shift)
        total, mean = float(shift.sum()) / size, float(np.abs(shift).sum()) / size
        found.append(replace(source, shift=shift, total=total, mean=mean))
    hist = filled(tuple(spectrum.hist.axes), values, np.diag(cov))
    return replace(spectrum, hist=hist, cov=cov), tuple(found)


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
