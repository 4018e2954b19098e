"""Production: measured virtual photons, theory channels or both, and the error of what is extrapolated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from safetensors.numpy import save_file

from gammastar import predict, spectrum
from gammastar.config import Predict, Steering
from gammastar.core.axes import MASS
from gammastar.core.constants import LEPTON_MASS
from gammastar.core.constants import mass as mass_of
from gammastar.core.errors import PhysicsError, SteeringError
from gammastar.core.files import atomic, data_path, shipped
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import Exposure, FloatArray, Sample, Spectrum
from gammastar.core.resolve import UserCode, python_names, resolve
from gammastar.core.sampling import Sampler, stream
from gammastar.physics import bremsstrahlung
from gammastar.physics.mesons import MesonTable
from gammastar.physics.polarisation import SpinDensities
from gammastar.physics.qed import RTable, kappa
from gammastar.physics.vectors import CHARGES, SPLIT_MAX
from gammastar.pipeline.cache import Arrays
from gammastar.pipeline.context import Context, axes_of
from gammastar.predict import VirtualPhoton
from gammastar.spectrum import InDomain, TrainingSet, Trend, fit_trend
from gammastar.store.guarded import read_tensors

__all__ = [
    "FILE",
    "Production",
    "alternatives",
    "conditions",
    "files_of",
    "make_model",
    "mass_dependence",
    "masses_of",
    "measured_production",
    "measured_trend",
    "model_of",
    "needs_shares",
    "of_rate",
    "photons_of",
    "read_trend",
    "replica_weights",
    "scan_masses",
    "theory_channel",
    "theory_production",
    "trend_of",
    "write_trend",
]

FILE = "extrapolation.safetensors"
KINEMATICS = 4000  # particles of one mass: the measured part to one per cent


EVERY_PROTON = 50.0  # interaction lengths: theory counts per interacting proton
EVEN = 0.5  # of the particles of a spectrum with theory beside it: the forward ones are few and count most
MESONS: dict[str, type[predict.MesonChannel]] = {
    "pion_dalitz": predict.PionDalitz,
    "pseudoscalar_dalitz": predict.PseudoscalarDalitz,
    "vector_dalitz": predict.VectorDalitz,
    "vector_mesons": predict.VectorMixing,
    "jpsi": predict.JPsi,
}


@dataclass(frozen=True)
class Production:
    """The production of one run.

    Attributes
    ----------
    channel : Channel
        Per proton on the target of `exposure` and squared coupling of the model.
    parts : tuple of Channel
        The exclusive channels before a model changes their couplings.
    exposure : Exposure
        Of the measurement; for theory a target in which every proton interacts.
    mass_range : tuple of float
        Masses that a scan may ask for [GeV].
    threshold : float
        Nothing is claimed below [GeV].
    trend : Trend or None
        Of measured over simulated density, for the error of what is extrapolated.
    spin : SpinDensities or None
        Of the measured pairs, for the decays of what carries no parent.
    """

    channel: predict.Channel
    parts: tuple[predict.Channel, ...]
    exposure: Exposure
    mass_range: tuple[float, float]
    threshold: float
    trend: spectrum.Trend | None = None
    spin: SpinDensities | None = None


def r_table() -> RTable:
    """Return the shipped table of R."""
    return RTable.read(data_path("measurements/r_ratio.csv"))


def _of_user(kind: Any, key: str, name: str, where: Path | UserCode) -> Any:
    """Return the model or channel of ``file.py:attribute``, an instance or what makes one."""
    found = resolve(name, where)
    if not isinstance(found, kind) and callable(found):
        try:
            found = found()
        except TypeError as error:
            msg = f"{key}: cannot be made without arguments ({error})"
            raise SteeringError(msg) from error
    if not isinstance(found, kind):
        what = kind.__name__
        msg = f"{key}: {type(found).__name__} is no {what.lower()}; derive it from predict.{what}"
        raise SteeringError(msg)
    return found


def make_model(name: str, where: Path | UserCode) -> predict.Model:
    """Return the model of a name or of ``file.py:attribute`` (a model or a function without arguments).

    Raises
    ------
    SteeringError
        If there is none of that name, or if what was found is no model or does not say how many of its
        particles are made.
    """
    if name == "dark_photon":
        return predict.DarkPhoton(r_table())
    if name in CHARGES:
        return predict.VectorModel.named(name, r_table())
    if ":" not in name:
        known = ", ".join(("dark_photon", *CHARGES))
        msg = f"predict.model = {name!r}: neither one of {known} nor of the form 'file.py:attribute'"
        raise SteeringError(msg)
    model: predict.Model = _of_user(predict.Model, f"predict.model = {name!r}", name, where)
    if type(model).rate_ratio is predict.Model.rate_ratio:
        msg = (
            f"predict.model = {name!r}: {type(model).__name__} does not say how many of its particles are "
            "made: define rate_ratio(self, mass), particles per squared coupling over dark photons per ε² "
            "(np.ones_like(mass) for kinetic mixing)"
        )
        raise SteeringError(msg)
    labels: object = model.labels
    if not isinstance(labels, predict.Labels):
        msg = f"predict.model = {name!r}: labels = {labels!r} must be a gammastar.predict.Labels"
        raise SteeringError(msg)
    return model


def model_of(ctx: Context) -> predict.Model:
    """Return the model of a run; the dark photon without [predict]."""
    section = ctx.steering.predict
    return make_model("dark_photon" if section is None else section.model, ctx.code)


def files_of(ctx: Context) -> dict[str, str]:
    """Return the digests of the user's files behind the model and the channels, by their names.

    What they import from beside themselves is among them.
    """
    names = python_names(() if ctx.steering.predict is None else ctx.steering.predict.model_dump(mode="json"))
    return {f"[predict] {file}": sha for file, sha in ctx.code.shas(names).items()}


def needs_shares(model: predict.Model) -> TypeGuard[predict.VectorModel]:
    """Return whether the rate of a model depends on the shares of the processes."""
    return _by_charges(model) and not model.charges.loop_mixing


def _by_charges(model: predict.Model) -> TypeGuard[predict.VectorModel]:
    """Return whether the charges of a vector say its rate, process by process."""
    return isinstance(model, predict.VectorModel) and type(model).rate_ratio is predict.VectorModel.rate_ratio


def _as_photons(model: predict.Model) -> bool:
    """Return whether as many particles are made as dark photons."""
    return type(model).rate_ratio is predict.DarkPhoton.rate_ratio


def _own_rate(model: predict.Model) -> Callable[[FloatArray], FloatArray]:
    """Return the ratio to dark photons that a model states, looked at before it is used."""

    def ratio(mass: FloatArray) -> FloatArray:
        found = np.asarray(model.rate_ratio(mass), dtype=np.float64)
        name = type(model).__name__
        if found.shape != mass.shape:
            msg = f"{name}.rate_ratio: shape {found.shape} for masses of shape {mass.shape}"
            raise PhysicsError(msg)
        bad = ~(np.isfinite(found) & (found >= 0))
        if bad.any():
            msg = f"{name}.rate_ratio: {found[bad][0]:g} at {mass[bad][0]:g} GeV must be finite, not negative"
            raise PhysicsError(msg)
        return found

    return ratio


def replica_weights(folder: Path) -> predict.ReplicaWeights | None:
    """Return the weights of the flow's ensemble in a result folder, or None without one."""
    from gammastar.flow import load_variations

    found = load_variations(folder)
    return None if found is None else found.weights


def theory_channel(
    name: str,
    section: Predict,
    where: Path | UserCode,
    beam_energy: float,
    interaction: float = 1.0,
    **options: Any,
) -> predict.Channel:
    """Return the theory channel of a name or of ``file.py:attribute``.

    Parameters
    ----------
    name : str
        "bremsstrahlung", "pion_dalitz", "pseudoscalar_dalitz", "vector_dalitz", "vector_mesons" or "jpsi".
    section : Predict
        Its preset of bremsstrahlung, Λ and table of mesons.
    where : Path or UserCode
        Folder of the steering file, or the code that was frozen there.
    beam_energy : float [GeV]
    interaction : float
        Probability that a proton interacts.
    options
        Of the channel of mesons: mass_range.

    Raises
    ------
    SteeringError
        If there is none of that name.
    InputFileError
        If the table of mesons is missing: a channel never vanishes silently.
    """
    if name == "bremsstrahlung":
        kernel = bremsstrahlung.preset(section.bremsstrahlung)
        if section.off_shell is not None:
            title = f"{kernel.name}, Λ = {section.off_shell:g} GeV"
            kernel = replace(kernel, name=title, off_shell=section.off_shell)
        return predict.Bremsstrahlung(kernel, beam_energy, interaction)
    if name in MESONS:
        base = where if isinstance(where, Path) else where.folder
        table = MesonTable.read(shipped(section.mesons, base, "measurements"))
        return MESONS[name](table, beam_energy, interaction, **options)
    if ":" not in name:
        known = ", ".join(("bremsstrahlung", *MESONS))
        msg = f"predict.channels: {name!r} is neither one of {known} nor of the form 'file.py:attribute'"
        raise SteeringError(msg)
    channel: predict.Channel = _of_user(predict.Channel, f"predict.channels: {name!r}", name, where)
    named = isinstance(getattr(channel, "group", None), str), getattr(channel, "processes", None)
    if not (named[0] and isinstance(named[1], frozenset) and named[1]):
        msg = (
            f"predict.channels: {name!r} needs group, a name, and processes, a frozenset of names: they keep "
            "channels from counting a process twice"
        )
        raise SteeringError(msg)
    return channel


def theory_production(ctx: Context) -> Production:
    """Return what the channels of ``source = "theory"`` make."""
    section = ctx.steering.predict
    if section is None or section.beam_energy is None:
        msg = "[predict] with source = 'theory' needs beam_energy"
        raise SteeringError(msg)
    exposure = Exposure(section.beam_energy, section.target_a, section.target_z, EVERY_PROTON, 1.0)
    channels = [theory_channel(name, section, ctx.code, section.beam_energy) for name in section.channels]
    whole = predict.Mixture(tuple(channels))
    model, channel = model_of(ctx), whole
    if _by_charges(model):
        channel = predict.recoupled_channels(channels, model.charges)
    elif not _as_photons(model):
        ratio = _own_rate(model)
        scaled = tuple(predict.Scaled(part, ratio) for part in channels)
        channel = predict.Mixture(scaled, exclusive=False)
    return Production(channel, whole.channels, exposure, (0.0, np.inf), 0.0)


def measured_production(
    ctx: Context,
    measured: Spectrum,
    sampler: Sampler,
    in_domain: InDomain,
    weights: predict.ReplicaWeights | None = None,
) -> Production:
    """Return what the spectrum per proton on target makes, with the channels that it cannot hold."""
    section, exposed = ctx.steering.predict, ctx.steering.spectrum
    if section is None or exposed is None or measured.exposure is None:
        msg = "[spectrum] and [predict] are needed for the rate of virtual photons"
        raise SteeringError(msg)
    m_lepton, exposure = LEPTON_MASS[exposed.lepton], measured.exposure
    photon = photons_of(
        measured,
        m_lepton,
        sampler,
        in_domain,
        weights,
        mass_dependence=mass_dependence(ctx.steering),
        coherence=section.coherence,
    )
    _told_shape(ctx, photon.shape)
    interaction = float(-np.expm1(-exposure.thickness))
    others = [
        theory_channel(name, section, ctx.code, exposure.beam_energy, interaction)
        for name in section.channels
    ]
    others += [
        predict.Outside(
            theory_channel(name, section, ctx.code, exposure.beam_energy, interaction),
            in_domain,
            photon.mass_range,
        )
        for name in section.outside
    ]
    predict.check_exclusive([photon, *others])
    if not others:
        return Production(
            _other_vector(ctx, section, photon), (photon,), exposure, photon.mass_range, 2 * m_lepton
        )
    model = model_of(ctx)
    if needs_shares(model):
        msg = (
            f"predict.channels and outside, beside a spectrum: {section.model!r} needs its own ratio in each "
            "of them"
        )
        raise SteeringError(msg)
    parts = (photon, *others)
    whole: predict.Channel = predict.Mixture(parts, even=EVEN)
    if not _as_photons(model):
        whole = predict.Scaled(whole, _own_rate(model))
    if not section.channels:
        return Production(whole, parts, exposure, photon.mass_range, 2 * m_lepton)
    return Production(whole, parts, exposure, (0.0, np.inf), 0.0)


def mass_dependence(steering: Steering) -> str | None:
    """Return how the rate of a run follows the mass: as [predict] asks, no lines in smeared masses.

    Raises
    ------
    SteeringError
        If lines are asked for of a spectrum of reconstructed masses.
    """
    asked = None if steering.predict is None else steering.predict.mass_dependence
    if steering.unfold is None or not steering.unfold.preset.startswith("smeared"):
        return asked
    if asked == "lines":
        msg = (
            "predict.mass_dependence = 'lines' needs true masses; "
            f"unfold.preset = {steering.unfold.preset!r} leaves them smeared: take 'bins' or another preset"
        )
        raise SteeringError(msg)
    return "bins"


def photons_of(
    measured: Spectrum,
    m_lepton: float,
    sampler: Sampler,
    in_domain: InDomain,
    weights: predict.ReplicaWeights | None = None,
    *,
    mass_dependence: str | None = None,
    coherence: float = 0.0,
) -> predict.VirtualPhoton:
    """Return the channel of measured virtual photons; `mass_dependence` and `coherence` as in [predict].

    Raises
    ------
    SteeringError
        If lines are asked for and the mass bins do not allow them.
    """
    mass, density, cov = spectrum.mass_density(measured)
    edges = np.asarray(measured.hist.axes[MASS].edges, dtype=np.float64)
    rates, rate_cov = predict.rate(mass, density, cov, m_lepton, edges=edges)
    shape = None
    if mass_dependence != "bins":
        try:
            shape = spectrum.fit_mass_shape(measured, m_lepton=m_lepton, coherence=coherence)
        except PhysicsError as error:
            if mass_dependence == "lines":
                msg = f"predict.mass_dependence = 'lines': {error}; change [select] mass, or take 'bins'"
                raise SteeringError(msg) from error
    return predict.VirtualPhoton(mass, rates, rate_cov, sampler, in_domain, weights, shape, m_lepton)


def _told_shape(ctx: Context, shape: Any) -> None:
    """Write into the manifest how the rate follows the mass; alarm where the components do not fit."""
    if shape is None:
        ctx.book.methods["mass dependence"] = "straight between means over bins, no lines"
        return
    fit = f"χ² = {shape.chi2:.1f} for {shape.ndf} degrees of freedom"
    ctx.book.methods["mass dependence"] = f"continuum, ω and φ as natural lines, {fit}"
    if shape.follows_bins:
        ctx.book.methods["mass dependence"] += "; between the bins only, whose contents it follows"
        note = (
            f"the mass spectrum is not described by continuum and lines ({fit}); they are the shape between "
            "the bins only, and the rate on and beside ω and φ is as sure as that shape"
        )
        ctx.book.alarm(note)


def _other_vector(ctx: Context, section: Predict, photon: predict.VirtualPhoton) -> predict.Channel:
    """Return the channel with the couplings of the model; shares of processes are those of theory."""
    model = model_of(ctx)
    if _as_photons(model):
        return photon
    if not needs_shares(model) or ctx.steering.spectrum is None:
        return predict.Scaled(photon, _own_rate(model))
    names = ("pseudoscalar_dalitz", "vector_dalitz", "vector_mesons", "bremsstrahlung")
    beam, charges = ctx.steering.spectrum.beam_energy, model.charges
    channels = [theory_channel(name, section, ctx.code, beam) for name in names]
    return predict.Scaled(
        photon, lambda mass: predict.rate_ratio(charges, mass, predict.shares_of(channels, mass))
    )


def masses_of(ctx: Context, production: Production) -> FloatArray:
    """Return the masses of the scan.

    Raises
    ------
    PhysicsError
        If a mass lies outside what production or model know.
    """
    section = ctx.steering.predict
    if section is None:
        msg = "[predict] is needed for a rate"
        raise SteeringError(msg)
    model = model_of(ctx)
    low, high = section.mass_range or production.mass_range
    if isinstance(model, predict.VectorModel) and not model.charges.loop_mixing:
        high = min(high, SPLIT_MAX)
    if section.masses:
        return np.array(section.masses)
    if not (0 < low < high < np.inf):
        msg = f"[predict]: give masses or mass_range; {low:g} to {high:g} GeV is no range to scan"
        raise PhysicsError(msg)
    return scan_masses(production.parts[0], low, high, section.n_masses)


def scan_masses(channel: predict.Channel, low: float, high: float, n: int) -> FloatArray:
    """Return n masses [GeV]: equidistant, or closer where a rate with lines or the lepton threshold bends.

    Notes
    -----
    Half of the points are even in mass, the others in the way that log₁₀ of the rate goes up and down, and in
    that of the threshold factor of the leptons. The poles of ω and φ are among them.
    """
    even = np.linspace(low, high, n)
    if not isinstance(channel, predict.VirtualPhoton) or channel.shape is None or n < 8:
        return even
    first, last = (float(np.clip(end, *channel.mass_range)) for end in (low, high))
    fine = np.linspace(first, last, 4000)
    rate = np.maximum(channel.rate(fine)[0], 1e-300)
    way = np.abs(np.diff(np.log10(rate))) + np.abs(np.diff(np.log10(kappa(fine, channel.m_lepton))))
    step = np.diff(fine) / (last - first) + way / max(float(way.sum()), 1e-300)
    position = np.concatenate([[0.0], np.cumsum(step)])
    found = np.interp(np.linspace(0.0, position[-1], n), position, fine)
    found[[0, -1]] = low, high
    for pole in (mass_of(223), mass_of(333)):
        if low < pole < high:
            found[1 + int(np.argmin(np.abs(found[1:-1] - pole)))] = pole
    return found


def conditions(ctx: Context, production: Production) -> dict[str, str]:
    """Return the lines that every result carries: production, model, target, what is left out."""
    section = ctx.steering.predict
    if section is None:
        return {}
    lines = {f"production, {part.group}": predict.describe(part) for part in production.parts}
    model = model_of(ctx)
    if _by_charges(model):
        note = "; shares of the processes from the theory channels" if needs_shares(model) else ""
        lines["model"] = f"{model.charges.name}, coupling g: {model.charges.condition}{note}"
    else:
        own = "" if _as_photons(model) else "; over that of dark photons as the model says"
        lines["model"] = f"{section.model}, the rate goes as the square of the coupling{own}"
    lines["target"] = predict.OMITTED
    return lines


def measured_trend(ctx: Context, training: TrainingSet, matched: MatchedPairs) -> Trend:
    """Return the trend of measured over simulated density inside the measured domain."""
    section = ctx.steering.spectrum
    beam = np.inf if section is None else section.beam_energy
    edges = np.asarray(axes_of(ctx.steering.unfold, ctx.steering.select)[0].edges)
    own = training.measured & (training.mass > edges[0]) & (training.mass < edges[-1])
    data = np.stack([training.mass, training.pt, training.energy], axis=1)[own]
    true = matched.true
    inside = training.in_domain(*true.T) & (true[:, 2] < beam)
    found = fit_trend((data, training.reference[own]), (true[inside], matched.weight[inside]), edges, beam)
    (power, width), errors = found.slopes, np.sqrt(np.diag(found.cov))
    ctx.book.numbers["measured over simulated density, slopes in ln mT and y*^2"] = (
        f"{power:.3f} ± {errors[0]:.3f}, {width:.4f} ± {errors[1]:.4f}"
    )
    ctx.book.methods["error of the extrapolated part"] = (
        "step from the simulated shape to the trend of measured over simulated density (in ln mT and y*^2) "
        "continued outside the measured domain, and the error of that trend"
    )
    return found


def trend_of(ctx: Context, made: Any, training: Any) -> Trend | None:
    """Return the trend of a run, fitted once; that of the record in a reinterpretation."""
    if made.trend is None and made.matched is not None:
        made.trend = measured_trend(ctx, training, made.matched)
    found: Trend | None = made.trend
    return found


def write_trend(folder: Path, trend: Trend) -> None:
    """Write ``extrapolation.safetensors``."""
    with atomic(folder / FILE) as temporary:
        save_file({k: np.ascontiguousarray(v) for k, v in trend.arrays().items()}, temporary)


def read_trend(folder: Path) -> Trend | None:
    """Read the trend of a run; None if the run kept none.

    Raises
    ------
    InputFileError
        If the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    return Trend.of(read_tensors(path, {"mass": 1, "norm": 1, "slopes": 1, "cov": 2, "beam_energy": 1}))


def alternatives(trend: Trend | None, mass: float, sample: Sample) -> FloatArray | None:
    """Return factors on the particles of a sample, shape (3, n), or None without a trend."""
    if trend is None:
        return None
    pt, energy = (np.asarray(c, dtype=np.float64) for c in (sample.p4.pt, sample.p4.E))
    return trend.factors(np.full(len(pt), mass), pt, energy, sample.in_domain)


def of_rate(channel: VirtualPhoton, trend: Trend, masses: FloatArray, seed: int) -> Arrays:
    """Return the measured part of a rate and the relative error of the whole from what is extrapolated.

    Parameters
    ----------
    channel : VirtualPhoton
    trend : Trend
    masses : NDArray, shape (n,) [GeV]
        Where the channel is not known, the measured part is nan and the error zero.
    seed : int
        Of the run.

    Returns
    -------
    Arrays
        ``measured_part``, ``extrapolation`` and ``extrapolation_step``, each (n,). The last one is the
        relative change of the rate if the trend of measured over simulated density went on outside the
        measured domain; its size is part of the error.

    Notes
    -----
    As for a yield, with every particle accepted: `Trend.relative_error` of the sum of weights.
    """
    part, (error, step) = np.full(len(masses), np.nan), np.zeros((2, len(masses)))
    low, high = channel.mass_range
    for i in np.flatnonzero((masses >= low) & (masses <= high)):
        sample = channel.produce(float(masses[i]), n=KINEMATICS, rng=stream(seed, "measured part", int(i)))
        factors = alternatives(trend, float(masses[i]), sample)
        total = float(sample.weight.sum())
        if factors is None or not total > 0:
            continue
        part[i] = sample.weight[sample.in_domain].sum() / total
        sums = factors @ sample.weight[:, None]
        error[i] = Trend.relative_error(np.array([total]), sums)[0]
        step[i] = sums[0, 0] / total - 1.0
    return {"measured_part": part, "extrapolation": error, "extrapolation_step": step}
