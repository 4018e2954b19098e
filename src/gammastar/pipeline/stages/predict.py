"""[predict]: production channels, masses and rates of the dark particles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gammastar import predict, spectrum
from gammastar.config import Predict, Steering
from gammastar.config.dark import brought_files, theory_options
from gammastar.core.constants import LEPTON_MASS
from gammastar.core.errors import PhysicsError, SteeringError
from gammastar.core.records import MASS, FloatArray, Spectrum
from gammastar.core.resolve import python_names
from gammastar.core.sampling import Sampler
from gammastar.core.signal import Rate
from gammastar.physics.mesons import Unit
from gammastar.physics.vectors import SPLIT_MAX
from gammastar.pipeline import context
from gammastar.predict import Production, VirtualPhoton
from gammastar.predict.channel import unit_of
from gammastar.predict.millicharge import MeasuredPairs, TheoryPairs, fine_pairs, pair_rate, theory_pairs
from gammastar.predict.mixture import OMITTED, describe, shares_of
from gammastar.predict.production import (
    as_photons,
    by_charges,
    measured_production,
    needs_shares,
    rate_of,
    theory_production,
)
from gammastar.spectrum import MassCounts, Trend, fit_trend
from gammastar.spectrum.extrapolation import highest_energies
from gammastar.spectrum.mass_shape import LINES
from gammastar.store.folder import read_tensors, write_tensors
from gammastar.store.manifest import digest, file_sha256

FILE = "extrapolation.safetensors"
TENSORS = {"mass": 1, "norm": 1, "slopes": 1, "cov": 2, "beam_energy": 1, "energy": 1, "farthest": 1}
FORWARD = {
    "forward_edges": 1,
    "forward_measured": 1,
    "forward_start": 1,
    "forward_shape": 2,
    "forward_power": 1,
}
SHARES = ("pseudoscalar_dalitz", "vector_dalitz", "vector_mesons", "bremsstrahlung")


def section_of(ctx: context.Context) -> Predict:
    """Return [predict]; refuse its absence."""
    section = ctx.steering.predict
    if section is None:
        raise SteeringError("[predict] is needed for a rate")
    return section


def lepton_mass(ctx: context.Context) -> float:
    """Return the mass of the measured leptons [GeV], muons without [spectrum]."""
    section = ctx.steering.spectrum
    return LEPTON_MASS["mu" if section is None else section.lepton]


def theory_channels(
    ctx: context.Context, names: Sequence[str], beam_energy: float, thickness: float = np.inf
) -> list[predict.Channel]:
    """Return the theory channels of names as [predict] describes them."""
    options = theory_options(section_of(ctx), ctx.code)
    return [predict.theory_channel(name, options, beam_energy, thickness=thickness) for name in names]


def model_of(ctx: context.Context) -> predict.Model:
    """Return the model of a run; the dark photon without [predict]."""
    section = ctx.steering.predict
    return predict.make_model("dark_photon" if section is None else section.model, ctx.code)


def files_of(ctx: context.Context) -> dict[str, str]:
    """Return the digests of the user's files behind model and channels, with what they import."""
    section = ctx.steering.predict
    names = python_names(() if section is None else section.model_dump(mode="json"))
    digests = {f"[predict] {file}": sha for file, sha in ctx.code.shas(names).items()}
    tables = {} if section is None else brought_files(section, ctx.base)
    for name, paths in tables.items():
        digests[f"[predict] {name}"] = digest(*((path.name, file_sha256(path)) for path in paths))
    return digests


def trend_of(ctx: context.Context, state: context.RunState, training: Any) -> Trend | None:
    """Return the trend of a run, fitted once; that of the record in a reinterpretation."""
    if state.trend is None and state.matched is not None:
        state.trend = _measured_trend(ctx, training, state)
    return state.trend


def _measured_trend(ctx: context.Context, training: Any, state: Any) -> Trend:
    """Return the trend of measured over simulated density inside the measured domain."""
    section, matched = ctx.steering.spectrum, context.simulated_as_measured(state)
    beam = np.inf if section is None else section.beam_energy
    edges = np.asarray(context.axes_of(ctx.steering.unfold, ctx.steering.select)[0].edges)
    own = training.measured & (training.mass > edges[0]) & (training.mass < edges[-1])
    data = np.stack([training.mass, training.pt, training.energy], axis=1)[own]
    inside = training.in_domain(*matched.true.T) & (matched.true[:, 2] < beam)
    simulated = matched.true[inside], matched.weight[inside]
    trend = fit_trend((data, training.reference[own]), simulated, edges, beam)
    forward = context.forward_of(ctx, state) if section is not None and section.extrapolate else None
    highest = highest_energies(data, trend.mass)
    trend = replace(trend, forward=forward, energy=highest)
    (power, width), errors = trend.slopes, np.sqrt(np.diag(trend.cov))
    slopes = f"{power:.3f} ± {errors[0]:.3f}, {width:.4f} ± {errors[1]:.4f}"
    ctx.cache.numbers["measured over simulated density, slopes in ln mT and y*^2"] = slopes
    ctx.cache.methods["error of the extrapolated part"] = (
        "step from the simulated shape to the trend of measured over simulated density (in ln mT and y*^2) "
        "continued outside the measured domain, the error of that trend, and that of the power of (1 - x_R)"
    )
    return trend


def write_trend(folder: Path, trend: Trend) -> None:
    """Write ``extrapolation.safetensors``."""
    write_tensors(folder / FILE, trend.arrays())


def read_trend(folder: Path) -> Trend | None:
    """Read the trend of a run; None if the run kept none."""
    path = folder / FILE
    if not path.is_file():
        return None
    kept = read_tensors(path, TENSORS)
    if any(name in kept for name in FORWARD):  # only with [spectrum] extrapolate
        kept = read_tensors(path, TENSORS | FORWARD)
    return Trend.of(kept)


def read_mass_counts(folder: Path) -> MassCounts | None:
    """Read the pairs to which lines were fitted; None if the run kept none."""
    path = folder / context.MASS_COUNTS
    if not path.is_file():
        return None
    return MassCounts.of(read_tensors(path, dict.fromkeys(MassCounts.NAMES, 1) | {"cov": 2, "pull": 2}))


def mass_dependence(steering: Steering) -> str | None:
    """Return how the rate of a run follows the mass: as [predict] asks, no lines in smeared masses."""
    choice = None if steering.predict is None else steering.predict.mass_dependence
    if steering.unfold is None or not steering.unfold.preset.startswith("smeared"):
        return choice
    if choice == "lines":
        raise SteeringError(
            "predict.mass_dependence = 'lines' needs true masses; "
            f"unfold.preset = {steering.unfold.preset!r} leaves them smeared: take 'bins' or another preset"
        )
    return "bins"


def photons_of(
    measured: Spectrum,
    m_lepton: float,
    sampler: Sampler,
    in_domain: Any,
    *,
    mass_dependence: str | None = None,
    coherence: float = 0.0,
    counts: MassCounts | None = None,
) -> VirtualPhoton:
    """Return the channel of measured virtual photons; lines of [predict] are fitted to `counts`."""
    mass, density, cov = spectrum.mass_density(measured)
    edges = np.asarray(measured.hist.axes[MASS].edges, dtype=np.float64)
    rates, rate_cov = predict.rate(mass, density, cov, m_lepton, edges=edges)
    shape = None
    if mass_dependence != "bins":
        try:
            asked: dict[str, Any] = {"m_lepton": m_lepton, "coherence": coherence, "counts": counts}
            shape = spectrum.fit_mass_shape(measured, **asked)
        except PhysicsError as error:
            if mass_dependence == "lines":
                msg = f"predict.mass_dependence = 'lines': {error}; change [select] mass, or take 'bins'"
                raise SteeringError(msg) from error
    return VirtualPhoton(mass, rates, rate_cov, sampler, in_domain, None, shape, m_lepton)


def production_of(
    ctx: context.Context,
    state: context.RunState,
    training: Callable[[], Any],
    sampler: Callable[[], tuple[Sampler, Any, Any]],
) -> Production:
    """Return the production channels of the dark particles with the model that couples to them."""
    section = section_of(ctx)
    if section.source == "theory":
        beam = context.needed(section.beam_energy, "predict")
        channels = theory_channels(ctx, section.channels, beam)
        target: Any = {"target_a": section.target_a, "target_z": section.target_z}
        return theory_production(channels, model_of(ctx), beam_energy=beam, **target)
    measured, exposed = state.spectrum, ctx.steering.spectrum
    if measured is None or exposed is None or measured.exposure is None:
        raise SteeringError("the section [spectrum] is missing: [predict] needs its rate of virtual photons")
    pairs, (generator, weights, near) = training(), sampler()
    photon = photons_of(
        *(measured, LEPTON_MASS[exposed.lepton], generator, pairs.in_domain),
        mass_dependence=mass_dependence(ctx.steering),
        coherence=ctx.steering.systematics.coherence,
        counts=read_mass_counts(state.record) if state.record else state.mass_counts,
    )
    photon = replace(photon, near=near, replica_weights=weights)
    _tell_shape(ctx, photon)
    beam, thickness = measured.exposure.beam_energy, measured.exposure.thickness
    others = theory_channels(ctx, section.channels, beam, thickness)
    outside = theory_channels(ctx, section.outside_domain, beam, thickness)
    others += [predict.Outside(channel, pairs.in_domain, photon.mass_range) for channel in outside]

    def shares(mass: FloatArray) -> Any:
        return shares_of(theory_channels(ctx, SHARES, exposed.beam_energy), mass)

    production = measured_production(photon, others, model_of(ctx), measured.exposure, shares)
    return replace(production, trend=trend_of(ctx, state, pairs), spin=state.spin)


def _tell_shape(ctx: context.Context, photon: VirtualPhoton) -> None:
    """Write into the manifest how the rate follows the mass; alarm where lines are missing or do not fit."""
    shape: Any = photon.shape
    if shape is None:
        ctx.cache.methods["mass dependence"] = "straight between means over bins, no lines"
        low, high = photon.mass_range
        lines = [name for name, pole in LINES.items() if low < pole < high]
        if lines and mass_dependence(ctx.steering) is None:
            ctx.cache.alarm(
                "the rate at exact masses is straight between means over bins of mass, wrong by factors on "
                f"and beside {' and '.join(lines)}: the bins are too wide or too few for lines; take bins of "
                "at most 60 MeV, up to at most 2.9 GeV ([select] mass)"
            )
        return
    fit = f"χ² = {shape.chi2:.1f} for {shape.ndf} degrees of freedom"
    rest = f"residual of {100 * shape.amplitude:.0f} % over {1e3 * shape.length:.0f} MeV"
    ctx.cache.methods["mass dependence"] = f"continuum, ω and φ as natural lines ({fit}) and a {rest}"
    if shape.flagged:
        ctx.cache.alarm(
            f"the mass spectrum is not described by its components ({fit}): the rate at exact masses follows "
            f"the bins by a {rest}, with its error; inside a bin beside ω and φ it is as sure as their shape"
        )


def masses_of(ctx: context.Context, production: Production) -> FloatArray:
    """Return the masses of the scan."""
    section, model = section_of(ctx), model_of(ctx)
    low, high = section.mass_range or production.mass_range
    if isinstance(model, predict.VectorModel) and not model.charges.loop_mixing:
        high = min(high, SPLIT_MAX)
    if section.masses:
        return np.array(section.masses)
    table = getattr(model, "r_table", None)
    if table is not None and section.mass_range is None and high > table.mass[-1]:
        ctx.cache.alarm(
            f"[predict]: the width into hadrons is known up to {table.mass[-1]:.4g} GeV: no prediction from "
            f"there to {high:.4g} GeV"
        )
        high = float(table.mass[-1])
    if not (0 < low < high < np.inf):
        msg = f"[predict]: give masses or mass_range; {low:g} to {high:g} GeV is no range to scan"
        raise PhysicsError(msg)
    return predict.scan_masses(production.parts[0], low, high, section.n_masses)


def _conditions(ctx: context.Context, production: Production) -> dict[str, str]:
    """Return the lines that every result carries: production, model, target, what is left out."""
    lines = {f"production, {part.group}": describe(part) for part in production.parts}
    model = model_of(ctx)
    if by_charges(model):
        note = "; shares of the processes from the theory channels" if needs_shares(model) else ""
        lines["model"] = f"{model.charges.name}, coupling g: {model.charges.condition}{note}"
    else:
        own = "" if as_photons(model) else "; over that of dark photons as the model says"
        lines["model"] = f"{section_of(ctx).model}, the rate goes as the square of the coupling{own}"
    lines["target"] = OMITTED
    return lines


def predict_stage(
    ctx: context.Context, production: Production, state: context.RunState, masses: FloatArray | None = None
) -> Rate:
    """Return the rate per proton on target and squared coupling; `masses` [GeV] instead of the scan's."""
    section = section_of(ctx)
    scan = masses_of(ctx, production) if masses is None else masses
    own = files_of(ctx)
    ctx.cache.inputs |= own
    # an edited file of the user makes another result under the same name
    parts = [describe(part) for part in production.parts]
    described = digest(parts, repr(production.exposure), *own.values(), masses)
    before = ctx.cache.key_of("subtract", "match", "spectrum", "flow")
    key = ctx.cache.key(section, before, described, digest(ctx.steering.systematics.of("predict")))
    theory = section.source == "theory"
    ctx.cache.methods["rate"] = (
        f"theory channels, {'cross sections [pb]' if production.unit == 'pb' else 'per interacting proton'}"
        if theory
        else "dileptons per proton on target times m/(2 kappa) (Allison and Blinov, Eq. 6)"
    )
    ctx.cache.methods |= _conditions(ctx, production)

    def compute() -> Rate:
        ctx.tell("predict", None, f"rate at {len(scan)} masses")
        shifts = {} if theory else spectrum.relative_shifts(context.needed(state.spectrum, "spectrum"))
        return rate_of(production, scan, shifts, ctx.seed)

    return ctx.cache.keep("predict", key, compute, Rate)


def measured_pairs(
    ctx: context.Context, production: Production, state: context.RunState
) -> MeasuredPairs | None:
    """Return edges [GeV], dileptons per proton on target and their covariance; None for theory alone."""
    if state.spectrum is None or section_of(ctx).source == "theory":
        return None
    _, density, cov = spectrum.mass_density(state.spectrum)
    edges = np.asarray(state.spectrum.hist.axes["mass"].edges, dtype=np.float64)
    width = np.diff(edges)
    binned = edges, density * width, cov * np.outer(width, width)
    return fine_pairs(production.parts[0], binned)


def pairs_beside(
    ctx: context.Context, production: Production, measured: MeasuredPairs | None
) -> list[TheoryPairs]:
    """Return the theory channels of χχ̄, those of [predict.millicharge]."""
    section, exposure = section_of(ctx).millicharge, production.exposure
    names = () if section is None else section.channels
    channels = theory_channels(ctx, names, exposure.beam_energy, exposure.thickness)
    return theory_pairs(list(zip(names, channels, strict=True)), measured, lepton_mass(ctx))


def pair_unit(ctx: context.Context, production: Production) -> Unit:
    """Return what the rate of χχ̄ counts in; beside measured pairs theory must count per proton."""
    section = section_of(ctx)
    names = () if section.millicharge is None else section.millicharge.channels
    unit = unit_of(theory_channels(ctx, names, production.exposure.beam_energy))
    if section.source == "spectrum" and unit == "pb":
        raise SteeringError(
            "predict.millicharge.channels: cross sections beside measured pairs; give predict.sigma_inelastic"
        )
    return unit


def pair_stage(ctx: context.Context, production: Production, state: context.RunState) -> Rate | None:
    """Return pairs χχ̄ per proton on target and Q² at the masses of χ; None without [predict.millicharge]."""
    section = None if ctx.steering.predict is None else ctx.steering.predict.millicharge
    if section is None:
        return None
    m_chi = np.array(section.masses)
    measured = measured_pairs(ctx, production, state)
    theory = pairs_beside(ctx, production, measured)
    described = [describe(part.channel) for part in theory]
    key = ctx.cache.key(ctx.steering.predict, ctx.cache.key_of("spectrum"), digest(described, files_of(ctx)))

    def compute() -> Rate:
        ctx.tell("predict", None, f"millicharged pairs at {len(m_chi)} masses")
        return pair_rate(m_chi, measured, theory, lepton_mass(ctx), production.exposure.pot_sigma)

    for part, text in zip(theory, described, strict=True):
        ctx.cache.methods[f"millicharged pairs, {part.name}, photons up to {part.high:.4g} GeV"] = text
    if measured is not None:
        ctx.cache.methods["millicharged pairs, virtual photons"] = (
            "dileptons times Eq. 8 of Allison and Blinov, kinematics at the mass of each photon; photons "
            "heavier than the measured ones are left out"
        )
    return ctx.cache.keep("millicharge", key, compute, Rate)
