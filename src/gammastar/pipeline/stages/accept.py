"""Rates of dark particles, and what detectors see of them over masses and couplings."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar import accept, predict
from gammastar.config import Accept
from gammastar.core.constants import LEPTON_MASS
from gammastar.core.errors import SteeringError
from gammastar.core.records import BoolArray, FloatArray, Sample
from gammastar.core.sampling import stream
from gammastar.physics.detector import Detector, Stand, load_detector
from gammastar.physics.polarisation import (
    FRAMES,
    TRANSVERSE,
    UNPOLARISED,
    Spin,
    SpinDensities,
    SpinState,
    lambda_theta,
)
from gammastar.pipeline.cache import Arrays
from gammastar.pipeline.context import Context, detector_files
from gammastar.pipeline.stages.error_budget import (
    BAND,
    PART,
    THEORY_OF,
    rate_budget,
    source_shifts,
    yield_budget,
)
from gammastar.pipeline.stages.predict import (
    Production,
    alternatives,
    conditions,
    files_of,
    make_model,
    masses_of,
    of_rate,
)
from gammastar.spectrum import Trend
from gammastar.spectrum.angles import ends_of, spin_text
from gammastar.store.manifest import digest

__all__ = [
    "Factors",
    "accept_stage",
    "carried",
    "detectors",
    "factors_of",
    "law",
    "members_of",
    "predict_stage",
    "rows_of",
    "spins_of",
    "with_factors",
]

Factors = dict[str, FloatArray]
"""Factors on the weights of a sample, shape (r, n), by what they stand for."""
YIELDS = ("signal", "in_domain_signal", "mc_error", "n_effective")
Ready = Callable[..., accept.AcceptedYield]


def law(ctx: Context, production: Production) -> accept.Measured:
    """Return where the rate holds, how it is carried to a detector's target, and the spin state."""
    section, predicting = ctx.steering.accept, ctx.steering.predict
    if section is None or predicting is None:
        msg = "[predict] and [accept] are needed for expected events"
        raise SteeringError(msg)
    scaling = section.target_scaling
    if scaling == "power" or (scaling is None and predicting.source == "theory"):
        scaling = "per_interaction"  # the power of A is in the weights, as it may depend on pt
    return accept.Measured(production.exposure, scaling, spins=spins_of(section, production.spin))


def spins_of(section: Accept, measured: SpinDensities | None = None) -> tuple[Spin, ...]:
    """Return the spin state of the photons, and those whose yields with it span its error.

    The measured one and its shifts, or that of the steering.
    Without `longitudinal_sigma` photons that are transverse along the axis of each frame in turn: a Dalitz
    decay makes its photon transverse along an axis that no measurement of the photon alone knows.
    """
    if measured is not None:
        return (measured, *measured.shifted())
    sigma, centre = section.longitudinal_sigma, section.longitudinal
    if sigma is None:
        others = [SpinState(TRANSVERSE, frame) for frame in FRAMES]
    else:
        ends = np.clip([centre - sigma, centre + sigma], 0.0, 1.0).tolist() if sigma > 0 else []
        others = [SpinState(end, section.spin_frame) for end in ends]
    return (SpinState(centre, section.spin_frame), *others)


def carried(
    sample: Sample,
    named: tuple[str, Stand],
    section: Accept,
    measured: tuple[float, BoolArray | None],
    rng: np.random.Generator,
) -> tuple[Sample, float]:
    """Return the sample as produced in a detector's target, and the relative error of the scaling with A.

    `measured` is the nucleus of the measurement and which particles, (n,), it made; None for all of them.
    Theory beside it counts per interaction on any nucleus.
    """
    name, detector = named
    sigma = 0.0
    if section.target_scaling == "power" and section.alpha is not None:
        points = section.alpha if isinstance(section.alpha, tuple) else ((0.0, section.alpha),)
        pt, alpha = np.array(points).T
        a_measured, own = measured
        scaled, sigma = predict.on_nucleus(
            sample,
            a_measured,
            detector.target.a,
            lambda x: np.interp(x, pt, alpha),
            alpha_inelastic=section.alpha_inelastic or 0.0,
            alpha_sigma=section.alpha_sigma,
        )
        sample = (
            scaled if own is None else replace(scaled, weight=np.where(own, scaled.weight, sample.weight))
        )
    length = section.interaction_length
    if isinstance(length, dict):
        length = length.get(name)
    if length is not None:
        sample = predict.in_depth(sample, detector.target.thickness, length, rng)
    return sample, sigma


def members_of(production: Production, mass: float, n: int) -> npt.NDArray[np.int64] | None:
    """Return which part of a production makes each of `n` particles; None where there is one part alone."""
    channel = production.channel
    if isinstance(channel, predict.Scaled):
        channel = channel.channel
    if not isinstance(channel, predict.Mixture) or not isinstance(production.parts[0], predict.VirtualPhoton):
        return None
    return channel.members(mass, n)


def factors_of(production: Production, mass: float, sample: Sample) -> Factors:
    """Return all factors on the particles that a production made at one mass.

    Returns
    -------
    Factors
        ``signal_variations``: replicas of the kinematics. ``extrapolation``: the continued trend, for
        measured photons alone. With theory beside the photons ``part|<group>``, which picks the particles of
        one channel, and ``band|<group>``, both edges of its theory.
    """
    found: Factors = {}
    replicas = production.channel.replicas(mass, sample)
    if replicas is not None:
        found["signal_variations"] = replicas
    trend = alternatives(production.trend, mass, sample)
    members = members_of(production, mass, len(sample.weight))
    if trend is not None:
        found["extrapolation"] = trend if members is None else np.where(members == 0, trend, 1.0)
    if members is None:
        return found
    for i, part in enumerate(production.parts):
        own = members == i
        found[f"{PART}{part.group}"] = own[np.newaxis].astype(np.float64)
        band = part.band(mass, sample) if own.any() else None
        if band is not None:
            found[f"{BAND}{part.group}"] = np.where(own, band, 1.0)
    return found


def with_factors(sample: Sample, factors: Factors) -> Sample:
    """Return the sample with the factors as replicas, or the sample itself if there are none."""
    if not factors:
        return sample
    return accept.Replicated.of(sample, np.concatenate(list(factors.values())))


def rows_of(found: accept.AcceptedYield, factors: Factors) -> Arrays:
    """Return what the replicas of a yield mean, by the names of `factors_of`.

    ``extrapolation`` becomes a relative error (k,), ``part|<group>`` a signal (k,); the others stay (r, k).
    """
    if found.replicas is None:
        return {}
    row: dict[str, Any] = {}
    start = 0
    for name, weights in factors.items():
        rows = found.replicas[start : start + len(weights)]
        start += len(weights)
        if name == "extrapolation":
            row[name] = Trend.relative_error(found.signal, rows)
        else:
            row[name] = rows[0] if name.startswith(PART) else rows
    return row


def detectors(ctx: Context) -> dict[str, Detector]:
    """Return the detectors of the steering by the stems of their files."""
    section = ctx.steering.accept
    names = () if section is None else section.detectors
    paths = detector_files(names, ctx.base, "accept.detectors")
    return {stem: load_detector(path) for stem, path in paths.items()}


def predict_stage(ctx: Context, production: Production, made: Any) -> Arrays:
    """Return masses and rates per proton on target and squared coupling, with their errors by source.

    ``cov`` is the covariance of the measurement or of the theory; ``budget|<source>`` (n, n) holds all
    sources, protons on target among them, and ``theory, <group>`` of channels beside measured photons;
    ``channel|<group>`` (n,) is the rate of each channel; of measured virtual photons ``measured_part`` (n,),
    and ``extrapolation`` (n,), the relative error of the others.
    """
    if ctx.steering.predict is None:
        msg = "[predict] is needed for a rate"
        raise SteeringError(msg)
    masses = masses_of(ctx, production)
    own = files_of(ctx)
    ctx.book.inputs |= own
    # an edited file of the user makes another result under the same name
    described = digest(
        [predict.describe(part) for part in production.parts], repr(production.exposure), *own.values()
    )
    before = ctx.book.key_of("subtract", "match", "spectrum", "flow")
    key = ctx.book.key(ctx.steering.predict, before, described)

    def compute() -> Arrays:
        ctx.tell("predict", None, f"rate at {len(masses)} masses")
        rate, cov = production.channel.rate(masses)
        result = {"mass": masses, "rate": rate, "cov": cov, "threshold": np.array(production.threshold)}
        if theory:
            _, result["low"], result["high"] = predict.envelope(production.channel, masses)
        if len(production.parts) > 1:
            rates = by_group(production.channel, masses)
            result |= {f"channel|{part.group}": rates[part.group] for part in production.parts}
        photon, pot_sigma = production.parts[0], production.exposure.pot_sigma
        shifts = _source_shifts(production, made, masses, rate)
        if theory or not isinstance(photon, predict.VirtualPhoton):
            return result | rate_budget(rate, cov, pot_sigma, shifts, name="theory")
        own, own_cov, others = _measured_and_theory(production, masses)
        if production.trend is not None:
            share = np.divide(own, rate, out=np.zeros_like(rate), where=rate > 0)
            kept = of_rate(photon, production.trend, masses, ctx.seed)
            result |= {name: values * share for name, values in kept.items()}
        budget = rate_budget(own, own_cov, pot_sigma, shifts, name="measurement")
        return result | budget | {f"budget|{THEORY_OF}{group}": value for group, value in others.items()}

    theory = ctx.steering.predict.source == "theory"
    ctx.book.methods["rate"] = (
        "theory channels, per interacting proton"
        if theory
        else "dileptons per proton on target times m/(2 kappa) (Allison and Blinov, Eq. 6)"
    )
    ctx.book.methods |= conditions(ctx, production)
    return ctx.book.arrays("predict", key, compute)


def by_group(channel: predict.Channel, masses: FloatArray) -> dict[str, FloatArray]:
    """Return the rate of each group of channels, with the couplings of the model, shape (n,) each."""
    if isinstance(channel, predict.Scaled):
        factor = channel.factor(masses)
        return {group: factor * rate for group, rate in by_group(channel.channel, masses).items()}
    if not isinstance(channel, predict.Mixture):
        return {channel.group: channel.rate(masses)[0]}
    found: dict[str, FloatArray] = {}
    for part, rate in zip(channel.channels, channel.by_channel(masses)[0], strict=True):
        group = part.channel.group if isinstance(part, predict.Scaled) else part.group
        found[group] = found.get(group, np.zeros(len(masses))) + rate
    return found


def _measured_and_theory(
    production: Production, masses: FloatArray
) -> tuple[FloatArray, FloatArray, dict[str, FloatArray]]:
    """Return rate and covariance of the measured photons, and the covariance of each theory beside them."""
    whole, factor = production.channel, np.ones(len(masses))
    while isinstance(whole, predict.Scaled):
        factor = factor * whole.factor(masses)
        whole = whole.channel
    mixture = whole if isinstance(whole, predict.Mixture) else predict.Mixture((whole,))
    rates, covs = mixture.by_channel(masses)
    covs = covs * np.outer(factor, factor)
    return (
        rates[0] * factor,
        covs[0],
        {p.group: c for p, c in zip(production.parts[1:], covs[1:], strict=True)},
    )


def _source_shifts(
    production: Production, made: Any, masses: FloatArray, rate: FloatArray
) -> dict[str, FloatArray]:
    """Return the shifts of the rate at the masses of the scan by the named sources of the unfolding."""
    photon = production.parts[0]
    if not isinstance(photon, predict.VirtualPhoton):
        return {}
    own, _ = predict.Mixture((photon,)).rate(masses)
    scale = np.divide(rate, own, out=np.zeros_like(rate), where=own > 0)
    if len(production.parts) > 1:  # the other channels do not move with the spectrum
        whole = production.channel
        scale = np.where(own > 0, whole.factor(masses) if isinstance(whole, predict.Scaled) else 1.0, 0.0)
    inside = (masses >= photon.mass_range[0]) & (masses <= photon.mass_range[1])
    found: dict[str, FloatArray] = {}
    for name, relative in source_shifts(made, len(photon.mass_centres)).items():
        found[name] = np.zeros(len(masses))
        found[name][inside] = photon.moved(masses[inside], relative) * scale[inside]
    return found


def accept_stage(ctx: Context, production: Production, predicted: Arrays) -> dict[str, Arrays]:
    """Return expected events over masses and couplings per detector, and acceptance curves.

    One sample per mass serves every coupling and every detector. Arrays of a detector, n masses and k
    couplings: ``signal``, ``in_domain_signal`` (the measured part), ``in_domain_fraction``, ``mc_error``,
    ``n_effective``, all (n, k); ``signal_variations`` (r, n, k), the signal of each replica of the
    kinematics, if there are any; ``polarisation_shifts`` (2, n, k) if the spin state has an error; with
    theory beside measured photons ``part|<group>`` (n, k) and ``band|<group>`` (2, n, k); ``signal_sigma``
    (scaling with A) and ``pot_search_sigma``, relative errors common to all; ``width_sigma`` (n,), that of
    the total width; ``yield_budget|<source>`` (n, n) at ``best_coupling`` (n,).
    """
    section, predicting, inferring = ctx.steering.accept, ctx.steering.predict, ctx.steering.infer
    if section is None or predicting is None:
        msg = "[predict] and [accept] are needed for expected events"
        raise SteeringError(msg)
    found = detectors(ctx)
    low, high, n = (1e-9, 1e-2, 141) if inferring is None else (*inferring.coupling, inferring.n_couplings)
    couplings = np.geomspace(low, high, n)
    described = digest({name: repr(detector) for name, detector in found.items()})
    before = ctx.book.key_of("spectrum", "flow", "spin", "predict")
    described = digest(described, couplings, predicting.model_dump(mode="json"), files_of(ctx))
    key = ctx.book.key(section, before, described)

    def compute() -> Arrays:
        planes = _planes(ctx, production, predicted, found, couplings)
        result: Arrays = {}
        for name, detector in found.items():
            rows = planes[name] | _curves(ctx, production, predicted, name, detector)
            result |= {f"{name}|{key}": value for key, value in rows.items()}
        return result

    _note(ctx, section, found, production.spin)
    arrays = ctx.book.arrays("accept", key, compute)
    return {
        name: {k.partition("|")[2]: v for k, v in arrays.items() if k.startswith(f"{name}|")}
        for name in found
    }


def _depths(section: Accept, names: Sequence[str]) -> str:
    """Return where along the target of each detector the particles are made.

    Raises
    ------
    SteeringError
        If an interaction length is given for a detector that is not there.
    """
    length, plain = section.interaction_length, "all of it at the target's position"
    if not isinstance(length, dict):
        return plain if length is None else f"exponential along the target, interaction length {length} m"
    unknown = [name for name in length if name not in names]
    if unknown:
        msg = f"accept.interaction_length: no detector {', '.join(unknown)}; they are {', '.join(names)}"
        raise SteeringError(msg[:1000])
    given = [f"{n}: exponential along the target, interaction length {length[n]} m" for n in length]
    return "; ".join(given + [f"{name}: {plain}" for name in names if name not in length])


def _note(ctx: Context, section: Accept, found: Mapping[str, Detector], spin: SpinDensities | None) -> None:
    """Write the assumptions of the acceptance into the manifest."""
    others = _assumed(ctx, section) if spin is None else spin_text(spin)
    ctx.book.methods["spin state of the decays"] = (
        f"from a known meson transverse along the flight in its rest frame; others: {others}"
    )[:1000]
    ctx.book.methods["production vertex"] = _depths(
        section, [*found, *(Path(name).stem for name in section.millicharge_detectors)]
    )
    if section.target_scaling == "power":
        ctx.book.methods["scaling with A"] = (
            f"A^(alpha - {section.alpha_inelastic:g}), alpha = {section.alpha} ± {section.alpha_sigma:g}"
        )


def _assumed(ctx: Context, section: Accept) -> str:
    """Return the spin state that the steering assumes."""
    f, frame = section.longitudinal, section.spin_frame.replace("_", "-")
    lepton = "mu" if ctx.steering.spectrum is None else ctx.steering.spectrum.lepton
    lam = float(lambda_theta(f, 0.5, LEPTON_MASS[lepton]))
    if section.longitudinal_sigma is None:
        error = "; error: half the range of transverse ones along the axes of " + ", ".join(FRAMES)
    else:
        error = f" ± {section.longitudinal_sigma:g}" if section.longitudinal_sigma else ", without error"
    kind = "unpolarised, assumed" if abs(f - UNPOLARISED) < 1e-9 else f"along the axis of {frame}"
    return (
        f"longitudinal share {f:.3g} ({kind}, lambda_theta = {lam:.2g} for {lepton} pairs of 0.5 GeV){error}"
    )


def _ready(
    ctx: Context, section: Accept, production: Production, detector: Detector, couplings: FloatArray
) -> Ready:
    """Return the function of a sample that gives the yields."""
    model = make_model(ctx.steering.predict.model if ctx.steering.predict else "dark_photon", ctx.code)
    return functools.partial(
        accept.yields,
        couplings=couplings,
        model=model,
        detector=detector,
        final_states=section.final_states,
        measured=law(ctx, production),
    )


def _planes(
    ctx: Context,
    production: Production,
    predicted: Arrays,
    found: Mapping[str, Detector],
    couplings: FloatArray,
) -> dict[str, Arrays]:
    """Return signal, its measured part, and errors of each detector, (n_masses, n_couplings) each."""
    section, predicting = ctx.steering.accept, ctx.steering.predict
    if section is None or predicting is None:
        return {}
    masses = predicted["mass"]
    ready = {
        name: (detector, _ready(ctx, section, production, detector, couplings))
        for name, detector in found.items()
    }
    settings = (ctx.seed, predicting.n_sample, section)
    point = functools.partial(_point, production, masses, ready, settings)
    rows = ctx.each(point, len(masses), "accept", lambda i: f"m = {masses[i]:.3f} GeV")
    model = make_model(predicting.model, ctx.code)
    widths = np.array([model.width_error(float(mass)) for mass in masses])
    return {
        name: _plane(predicted, couplings, [row[name] for row in rows], detector.pot_sigma, widths)
        for name, detector in found.items()
    }


def _plane(
    predicted: Arrays,
    couplings: FloatArray,
    rows: Sequence[Arrays],
    pot_search_sigma: float,
    width_sigma: FloatArray,
) -> Arrays:
    """Return the rows of one detector, one per mass, as arrays over the plane, with the errors by source."""
    stacked = {name: np.stack([row[name] for row in rows]) for name in YIELDS}
    stacked["signal_sigma"] = np.array(max(float(row["signal_sigma"]) for row in rows))
    stacked["pot_search_sigma"] = np.array(pot_search_sigma)
    stacked["width_sigma"] = width_sigma
    for name in ("signal_variations", "polarisation_shifts", "extrapolation"):
        if all(name in row for row in rows):
            stacked[name] = np.stack([row[name] for row in rows], axis=rows[0][name].ndim - 1)
    for name in dict.fromkeys(name for row in rows for name in row if name.startswith(PART)):
        stacked[name] = np.stack([row[name] for row in rows])
    for name in dict.fromkeys(name for row in rows for name in row if name.startswith(BAND)):
        # where a channel is closed its theory moves nothing
        ends = [row.get(name, np.repeat(row["signal"][np.newaxis], 2, axis=0)) for row in rows]
        stacked[name] = np.stack(ends, axis=1)
    stacked["couplings"] = couplings
    total = stacked["signal"]
    stacked["in_domain_fraction"] = np.divide(
        stacked["in_domain_signal"], total, out=np.full_like(total, np.nan), where=total > 0
    )
    return stacked | yield_budget(predicted, stacked)


def _point(
    production: Production,
    masses: FloatArray,
    ready: Mapping[str, tuple[Detector, Ready]],
    settings: tuple[int, int, Accept],
    i: int,
) -> dict[str, Arrays]:
    """Return signal and errors of each detector over couplings at one mass.

    One sample, with the weights of its replicas, serves all detectors; the result depends on nothing but the
    arguments.
    """
    mass, (seed, n, section) = float(masses[i]), settings
    made = production.channel.produce(mass, n=n, rng=stream(seed, "predict", i))
    factors, members = factors_of(production, mass, made), members_of(production, mass, n)
    target = production.exposure.target_a, None if members is None else members == 0
    result = {}
    for name, (detector, run) in ready.items():
        depth = stream(seed, "depth", detector.name, i)
        sample, sigma = carried(made, (name, detector), section, target, depth)
        found = run(with_factors(sample, factors), mass, rng=stream(seed, "accept", detector.name, i))
        row = {key: getattr(found, key) for key in YIELDS} | {"signal_sigma": np.array(sigma)}
        row |= rows_of(found, factors)
        if found.spins is not None:
            row["polarisation_shifts"] = ends_of(found.signal, found.spins, production.spin)
        result[name] = row
    return result


def _curves(ctx: Context, production: Production, predicted: Arrays, name: str, detector: Detector) -> Arrays:
    """Return acceptance and its error over the lifetime at a few masses.

    The error is that of the finite sample and, with an ensemble of flows, the spread of its members.
    """
    section, predicting = ctx.steering.accept, ctx.steering.predict
    if section is None or predicting is None:
        return {}
    low, high = predicted["mass"][[0, -1]]
    masses = np.array([m for m in section.acceptance_masses if low <= m <= high])
    ctau = np.geomspace(*section.ctau, 71)
    state = "mumu" if "mumu" in section.final_states else "ee"
    measured = law(ctx, production)
    curves = []
    for mass in masses:
        rng = stream(ctx.seed, "acceptance", detector.name, f"{mass:.6f}")
        sample = production.channel.produce(float(mass), n=predicting.n_sample, rng=rng)
        replicas = production.channel.replicas(float(mass), sample)
        sample, _ = carried(sample, (name, detector), section, (production.exposure.target_a, None), rng)
        sample = with_factors(sample, {} if replicas is None else {"signal_variations": replicas})
        scan = accept.lifetime_scan(
            sample, float(mass), ctau, detector, states={state: 1.0}, rng=rng, spins=measured.spins[:1]
        )
        spread = 0.0 if scan.replicas is None else scan.replicas.std(axis=0, ddof=1)
        curves.append(np.stack([scan.accepted, np.hypot(scan.mc_error, spread)]) / sample.weight.sum())
    return {"ctau": ctau, "acceptance_mass": masses, "acceptance": np.array(curves).reshape(-1, 2, len(ctau))}
