"""[accept]: what detectors see of the dark particles, over masses and couplings."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar import accept, predict
from gammastar.accept.expected_events import Sight
from gammastar.accept.plane import PlaneRow, acceptance_curves, importance_of, stacked, watched
from gammastar.config import Accept, Millicharge, Steering
from gammastar.core.constants import LEPTON_MASS
from gammastar.core.errors import SteeringError
from gammastar.core.records import FloatArray, Rng, Sample
from gammastar.core.sampling import stream
from gammastar.core.signal import AcceptanceCurves, Rate, SignalPlane, SignalPlanes, Variation
from gammastar.core.sources import FLOW, OwnSource
from gammastar.physics.detector import Detector, load_detector
from gammastar.physics.millicharge import MillichargeDetector, load_millicharge_detector
from gammastar.physics.polarisation import FRAMES, UNPOLARISED, SpinDensities, lambda_theta
from gammastar.pipeline.context import Context, detector_files
from gammastar.pipeline.stages.predict import (
    files_of,
    lepton_mass,
    measured_pairs,
    model_of,
    pair_unit,
    pairs_beside,
    section_of,
)
from gammastar.predict import Production
from gammastar.predict.millicharge import MeasuredPairs, conditional
from gammastar.predict.mixture import TargetTransfer, joined
from gammastar.predict.production import check_exposures, variations_of
from gammastar.spectrum.angles import spin_text
from gammastar.store.manifest import digest

LIFETIMES = 71  # of the acceptance curves


def detectors(ctx: Context) -> dict[str, Detector]:
    """Return the detectors of the steering by the stems of their files."""
    section = ctx.steering.accept
    names = () if section is None else section.detectors
    return {s: load_detector(path) for s, path in detector_files(names, ctx.base, "accept.detectors").items()}


def millicharge_detectors(ctx: Context) -> dict[str, MillichargeDetector]:
    """Return the detectors of millicharged particles by the stems of their files."""
    section = ctx.steering.accept
    names = () if section is None else section.millicharge_detectors
    paths = detector_files(names, ctx.base, "accept.millicharge_detectors")
    return {stem: load_millicharge_detector(path) for stem, path in paths.items()}


def _section(ctx: Context) -> Accept:
    if ctx.steering.accept is None or ctx.steering.predict is None:
        raise SteeringError("[predict] and [accept] are needed for expected events")
    return ctx.steering.accept


def measured_of(ctx: Context, production: Production) -> accept.Measured:
    """Return where the rate holds, how it is carried to a detector's target, and the spin state."""
    section, scaling = _section(ctx), _section(ctx).target_scaling
    if scaling == "power" or (scaling is None and section_of(ctx).source == "theory"):
        scaling = "per_interaction"  # the power of A is in the weights, as it may depend on pt
    given = section.longitudinal, ctx.steering.systematics.spin, section.spin_frame
    spins = accept.spin_states(*given, production.spin)
    return accept.Measured(production.exposure, scaling, spins=spins)


def transfer_of(steering: Steering, found: Iterable[str]) -> TargetTransfer:
    """Return how particles come to be made in the targets of the detectors of these names."""
    section = steering.accept
    if section is None:
        return TargetTransfer()
    alpha, depth = section.alpha, section.interaction_length
    if isinstance(alpha, float):
        alpha = ((0.0, alpha),)
    return TargetTransfer(
        alpha if section.target_scaling == "power" else None,
        section.alpha_inelastic or 0.0,
        steering.systematics.scaling,
        depth if isinstance(depth, dict) or depth is None else dict.fromkeys(found, depth),
    )


def accept_stage(ctx: Context, production: Production, rate: Rate) -> dict[str, SignalPlane]:
    """Return the signal in each detector, one sample per mass."""
    section, found = _section(ctx), detectors(ctx)
    check_exposures(found, production.unit)
    inferring = ctx.steering.infer
    low, high, n = (1e-9, 1e-2, 141) if inferring is None else (*inferring.coupling, inferring.n_couplings)
    couplings = np.geomspace(low, high, n)
    described = digest({name: repr(detector) for name, detector in found.items()})
    before = ctx.cache.key_of("spectrum", "flow", "spin", "predict")
    described = digest(described, couplings, section_of(ctx).model_dump(mode="json"), files_of(ctx))
    sources = digest(ctx.steering.systematics.of("accept"), ctx.own_files())
    ctx.cache.inputs |= ctx.own_files()
    key = ctx.cache.key(section, before, described, sources)
    _note(ctx, section, found, production.spin)

    def compute() -> SignalPlanes:
        settings = ctx.seed, section_of(ctx).n_sample, transfer_of(ctx.steering, found), ctx.own_sources()
        sights, count = _sights(ctx, production, found, couplings), len(rate.mass)
        point = functools.partial(yields_at, production, rate.mass, sights, settings)
        rows = ctx.each(point, count, "accept", lambda i: f"m = {rate.mass[i]:.3f} GeV")
        widths = np.array([model_of(ctx).width_error(float(mass)) for mass in rate.mass])
        planes = {}
        for name, detector in found.items():
            yields, pot = [row[name] for row in rows], detector.pot_sigma
            plane = accept.plane_of(rate, yields, width_sigma=widths, pot_sigma=pot)
            planes[name] = replace(plane, curves=_curves(ctx, production, rate, name, detector))
        return SignalPlanes(planes)

    return dict(ctx.cache.keep("accept", key, compute, SignalPlanes).by_detector)


def _sights(
    ctx: Context, production: Production, found: Mapping[str, Detector], couplings: FloatArray
) -> dict[str, Callable[[float], Sight]]:
    """Return what makes the view of each detector at a mass."""
    section, model, measured = _section(ctx), model_of(ctx), measured_of(ctx, production)
    return {
        name: functools.partial(
            Sight.of,
            couplings=couplings,
            model=model,
            detector=detector,
            final_states=section.final_states,
            measured=measured,
        )
        for name, detector in found.items()
    }


def cell_signals(
    ctx: Context, production: Production, planes: Mapping[str, SignalPlane], i: int, axes: tuple[Any, Any]
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Return the particles of one mass and their signal by cells of q_T and energy."""
    found = {name: detector for name, detector in detectors(ctx).items() if name in planes}
    plane, n = next(iter(planes.values())), section_of(ctx).n_sample
    mass = float(plane.mass[i])
    transfer, pairs = transfer_of(ctx.steering, found), production.pairs_near(mass, n)
    looking = {name: see(mass) for name, see in _sights(ctx, production, found, plane.coupling).items()}
    importance = importance_of(list(looking.values()), stream(ctx.seed, "importance", i), pairs)
    made = production.channel.focused(mass, n=n, rng=stream(ctx.seed, "predict", i), importance=importance)
    pt, energy = (np.asarray(c, dtype=np.float64) for c in (made.p4.pt, made.p4.E))
    columns = zip(axes, (pt, energy), strict=True)
    place = [np.searchsorted(axis.edges, values, side="right") - 1 for axis, values in columns]
    inside = np.all([(p >= 0) & (p < len(a)) for p, a in zip(place, axes, strict=True)], axis=0)
    cell = np.where(inside, place[0] * len(axes[1]) + place[1], -1)
    every = np.arange(len(axes[0]) * len(axes[1]))
    marks = (cell == every[:, None]).astype(np.float64)
    share = marks @ made.weight / made.weight.sum()
    signal = {}
    for name, sight in looking.items():
        depth = stream(ctx.seed, "depth", sight.detector.name, i)
        source, target = (production.exposure.target_a, None), (name, sight.detector.target)
        sample, _ = transfer.carry(made, target, source, depth)
        seen, _ = watched(sight, sample, stream(ctx.seed, "accept", sight.detector.name, i), pairs)
        signal[name] = np.asarray(sight.expected(seen, marks[:, seen.index]).replicas)
    return share, signal


def yields_at(
    production: Production,
    masses: FloatArray,
    sights: Mapping[str, Callable[[float], Sight]],
    settings: tuple[int, int, TargetTransfer, tuple[OwnSource, ...]],
    i: int,
) -> dict[str, PlaneRow]:
    """Return what each detector sees at one mass; the result depends on nothing but the arguments."""
    mass, (seed, n, transfer, own) = float(masses[i]), settings
    pairs = production.pairs_near(mass, n)
    looking = {name: sight(mass) for name, sight in sights.items()}
    importance = importance_of(list(looking.values()), stream(seed, "importance", i), pairs)
    made = production.channel.focused(mass, n=n, rng=stream(seed, "predict", i), importance=importance)
    members = production.members(mass, n)
    measured = None if members is None else members == 0
    seen = {}
    for name, sight in looking.items():
        target, depth = (name, sight.detector.target), stream(seed, "depth", sight.detector.name, i)
        sample, sigma = transfer.carry(made, target, (production.exposure.target_a, measured), depth)
        rng = stream(seed, "accept", sight.detector.name, i)
        seen[name] = (watched(sight, sample, rng, pairs, measured), sigma)
    # what varies a particle does not depend on who sees it; the first one is there if nobody sees any
    some = np.union1d([0], np.concatenate([found.index for (found, _), _ in seen.values()])).astype(np.intp)
    parts = None if members is None else members[some]
    variations = variations_of(production, mass, made.part(some), own, parts)
    factors, rows = stacked(variations), {}
    for name, ((found, behind), sigma) in seen.items():
        own_rows = None if factors is None else factors[:, np.searchsorted(some, found.index)]
        accepted = looking[name].expected(found, own_rows)
        spin = production.spin is not None
        rows[name] = accept.row_of(accepted, variations, sigma, measured_spin=spin, pairs=behind)
    return rows


def _curves(
    ctx: Context, production: Production, rate: Rate, name: str, detector: Detector
) -> AcceptanceCurves:
    """Return acceptance and its error over the lifetime at a few masses."""
    section, transfer = _section(ctx), transfer_of(ctx.steering, detectors(ctx))
    low, high = rate.mass[[0, -1]]
    n = section_of(ctx).n_sample
    produced: dict[float, Sample] = {}
    samples = {}

    def replicas(mass: float, index: npt.NDArray[np.intp]) -> FloatArray | None:
        members = production.members(mass, n)
        own = None if members is None else members[index]
        return production.replicas(mass, produced[mass].part(index), own)

    for mass in (float(m) for m in section.acceptance_masses if low <= m <= high):
        rng = stream(ctx.seed, "acceptance", detector.name, f"{mass:.6f}")
        produced[mass] = made = production.channel.produce(mass, n=n, rng=rng)
        target = name, detector.target
        samples[mass] = transfer.carry(made, target, (production.exposure.target_a, None), rng)[0], rng
    state = "mumu" if "mumu" in section.final_states else "ee"
    spin = measured_of(ctx, production).spins[0]
    ctau = np.geomspace(*section.ctau, LIFETIMES)
    return acceptance_curves(samples, replicas, ctau, detector, state, spin)


def _depths(section: Accept, names: list[str]) -> str:
    """Return where along the target of each detector the particles are made."""
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
    ctx.cache.methods["spin state of the decays"] = (
        f"from a known meson transverse along the flight in its rest frame; others: {others}"
    )[:1000]
    names = [*found, *(Path(name).stem for name in section.millicharge_detectors)]
    ctx.cache.methods["production vertex"] = _depths(section, names)
    if section.target_scaling == "power":
        law = f"A^(alpha - {section.alpha_inelastic:g}), alpha = {section.alpha}"
        ctx.cache.methods["scaling with A"] = f"{law} ± {ctx.steering.systematics.scaling:g}"


def _assumed(ctx: Context, section: Accept) -> str:
    """Return the spin state that the steering assumes."""
    share, frame = section.longitudinal, section.spin_frame.replace("_", "-")
    lepton = "mu" if ctx.steering.spectrum is None else ctx.steering.spectrum.lepton
    lam = float(lambda_theta(share, 0.5, LEPTON_MASS[lepton]))
    sigma = ctx.steering.systematics.spin
    if sigma is None:
        error = "; error: half the range of transverse ones along the axes of " + ", ".join(FRAMES)
    else:
        error = f" ± {sigma:g}" if sigma else ", without error"
    kind = "unpolarised, assumed" if abs(share - UNPOLARISED) < 1e-9 else f"along the axis of {frame}"
    return (
        f"longitudinal share {share:.3g} ({kind}, lambda_theta = {lam:.2g} for {lepton} pairs of 0.5 GeV)"
        f"{error}"
    )


def millicharge_stage(
    ctx: Context, production: Production, rate: Rate | None, state: Any
) -> dict[str, SignalPlane]:
    """Return the signal over masses of χ and charges in each detector of millicharged particles."""
    found, predicting = millicharge_detectors(ctx), ctx.steering.predict
    section = None if predicting is None else predicting.millicharge
    if not found or rate is None or section is None:
        return {}
    accepting = _section(ctx)
    check_exposures(found, pair_unit(ctx, production))
    charges = np.geomspace(*accepting.charge, accepting.n_charges)
    described = digest({name: repr(detector) for name, detector in found.items()}, charges, files_of(ctx))
    before = ctx.cache.key_of("spectrum", "flow", "spin", "millicharge")
    sources = digest(ctx.steering.systematics.of("accept"))
    key = ctx.cache.key(accepting, before, described, ctx.cache.key(predicting), sources)

    def compute() -> SignalPlanes:
        rows = []
        for i, m_chi in enumerate(rate.mass):
            rows.append(_charged_point(ctx, production, state, float(m_chi), i))
            ctx.tell("accept", (i + 1) / len(rate.mass), f"millicharge: m = {m_chi:.3f} GeV")
        nothing = np.zeros(len(rate.mass))
        planes = {n: accept.plane_of(rate, [row[n] for row in rows], width_sigma=nothing) for n in found}
        return SignalPlanes(planes)

    return dict(ctx.cache.keep("accept_millicharge", key, compute, SignalPlanes).by_detector)


def _charged_point(
    ctx: Context, production: Production, state: Any, m_chi: float, i: int
) -> dict[str, PlaneRow]:
    """Return what each detector sees of one mass of χ."""
    section, found = _section(ctx), millicharge_detectors(ctx)
    charges, transfer = np.geomspace(*section.charge, section.n_charges), transfer_of(ctx.steering, found)
    sample, variations = _chi_particles(ctx, production, state, m_chi, stream(ctx.seed, "millicharge", i))
    rows = {}
    for name, detector in found.items():
        depth, measured = stream(ctx.seed, "depth", name, i), (production.exposure.target_a, None)
        carried, sigma = transfer.carry(sample, (name, detector.target), measured, depth)
        varied, where = accept.varied(carried, variations), measured_of(ctx, production)
        seen = accept.millicharge_yields(varied, m_chi, charges, detector, measured=where)
        rows[name] = accept.row_of(seen, variations, sigma)
    return rows


def _chi_particles(
    ctx: Context, production: Production, state: Any, m_chi: float, rng: Rng
) -> tuple[Sample, tuple[Variation, ...]]:
    """Return χ and χ̄ of all channels at one mass, and the replicas of the measured ones."""
    section, longitudinal, spin = section_of(ctx).millicharge, _section(ctx).longitudinal, production.spin
    pairs, photons = measured_pairs(ctx, production, state), []
    replicas = None
    if section is None:
        raise SteeringError("[predict.millicharge] is needed for millicharged particles")
    if pairs is not None and 2 * m_chi < pairs[0][-1]:
        measured, replicas = _measured_photons(ctx, production, pairs, section, m_chi, rng)
        photons.append(predict.chi_pairs(measured, m_chi, rng=rng, longitudinal=longitudinal, spin=spin))
    for part in pairs_beside(ctx, production, pairs):
        if part.rate(np.array([m_chi]))[0, 0] > 0:
            made = part.photons(m_chi, section.n_sample, rng)
            photons.append(predict.chi_pairs(made, m_chi, rng=rng, longitudinal=longitudinal, spin=spin))
    if not photons:
        msg = f"predict.millicharge: no channel makes pairs of m_chi = {m_chi:g} GeV; drop this mass"
        raise SteeringError(msg)
    whole = joined(photons)
    if replicas is None:
        return whole, ()
    factors = np.ones((len(replicas), len(whole.weight)))
    factors[:, : 2 * replicas.shape[1]] = np.tile(replicas, 2)  # χ, then their χ̄
    return whole, (Variation(FLOW, "kinematics", "replicas", factors),)


def _measured_photons(
    ctx: Context, production: Production, pairs: MeasuredPairs, section: Millicharge, m_chi: float, rng: Rng
) -> tuple[predict.VirtualPhotons, FloatArray | None]:
    """Return virtual photons of χχ̄ at masses of the spectrum, with the weights of the flow's replicas."""
    photon = production.parts[0]
    if not isinstance(photon, predict.VirtualPhoton):
        raise SteeringError("[predict.millicharge] with a spectrum is needed to sample millicharged pairs")
    from_pairs = m_chi, pairs[:2], lepton_mass(ctx), photon.sampler, photon.in_domain
    made = conditional(*from_pairs, n=section.n_sample, rng=rng)
    if photon.replica_weights is None:
        return made, None
    mass = np.clip(made.mass, *photon.sampler.mass_range)
    return made, photon.replica_weights(mass, made.pt, made.energy)
