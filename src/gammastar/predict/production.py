"""Who makes the dark particles of a run: measured photons, theory or both; rate, masses, what varies them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeGuard

import numpy as np

from gammastar.core.constants import mass as mass_of
from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import BoolArray, Exposure, FloatArray, IntArray, Sample, divided
from gammastar.core.sampling import stream
from gammastar.core.signal import BEYOND, Rate, Variation
from gammastar.core.sources import (
    EXTRAPOLATION,
    FLOW,
    MEASUREMENT,
    POT,
    THEORY,
    THEORY_OF,
    OwnSource,
    Source,
    Sources,
)
from gammastar.physics.mesons import Unit
from gammastar.physics.polarisation import SpinDensities
from gammastar.physics.qed import kappa
from gammastar.physics.vectors import Process
from gammastar.predict.channel import Channel, VirtualPhoton, check_exclusive, unit_of
from gammastar.predict.mixture import Mixture, Scaled, envelope, recoupled_channels
from gammastar.predict.models import DarkPhoton, Model, VectorModel, rate_ratio
from gammastar.predict.theory import Outside

EVERY_PROTON = 50.0  # interaction lengths: theory counts per interacting proton
EVEN = 0.5  # of the particles of a spectrum with theory beside it: the forward ones are few and count most
KINEMATICS = 4000  # particles of one mass: the measured part to one per cent


class Trend(Protocol):
    """Measured over simulated density, continued outside the measured domain; ``spectrum.Trend`` is one."""

    def factors(
        self, mass: FloatArray, pt: FloatArray, energy: FloatArray, in_domain: BoolArray
    ) -> FloatArray:
        """Return factors on particles, shape (r, n)."""

    def beyond(self, mass: FloatArray, energy: FloatArray) -> BoolArray:
        """Return where energies are higher than any measured at their mass, shape (n,)."""

    def relative_error(self, total: FloatArray, sums: FloatArray) -> FloatArray:
        """Return the relative error of a total (k,) from what the factors make of it (r, k)."""


class Counted(Protocol):
    """A detector with protons on target or a luminosity."""

    @property
    def luminosity(self) -> float | None:
        """Integrated luminosity [1/pb]; None for protons on target."""


def check_exposures(found: Mapping[str, Counted], unit: Unit) -> None:
    """Refuse detectors that count otherwise than a rate does."""
    said = {
        "pb": "protons on target, the rate counts cross sections [pb]: give predict.sigma_inelastic, or a "
        "detector with luminosity",
        "proton": "a luminosity, the rate counts per proton on target: take channels from spectra of FORESEE "
        "without predict.sigma_inelastic",
    }
    for name, detector in found.items():
        require((detector.luminosity is None) != (unit == "pb"), f"detector {name!r} has {said[unit]}")


@dataclass(frozen=True)
class Production:
    """The production of one run."""

    channel: Channel  # Per proton on the target of `exposure` and squared coupling of the model
    parts: tuple[Channel, ...]  # The exclusive channels before a model changes their couplings
    exposure: Exposure  # Of the measurement; for theory a target in which every proton interacts
    mass_range: tuple[float, float]  # Masses that a scan may ask for [GeV]
    threshold: float  # Nothing is claimed below [GeV]
    trend: Trend | None = None  # Of measured over simulated density, for the error of what is extrapolated
    spin: SpinDensities | None = None  # Of the measured pairs, for the decays of what carries no parent
    unit: Unit = "proton"  # What the rate counts in

    @property
    def mixture(self) -> tuple[Mixture, Callable[[FloatArray], FloatArray]]:
        """The channels before a common factor of the model, and that factor as a function of the mass."""
        whole, factors = self.channel, []
        while isinstance(whole, Scaled):
            factors.append(whole.factor)
            whole = whole.channel
        parts = whole if isinstance(whole, Mixture) else Mixture((whole,))
        return parts, lambda mass: np.prod([np.ones(len(mass)), *(f(mass) for f in factors)], axis=0)

    def members(self, mass: float, n: int) -> IntArray | None:
        """Return which part makes each of `n` particles, 0 for the measured photons; None for one part."""
        channel = self.channel.channel if isinstance(self.channel, Scaled) else self.channel
        if not isinstance(channel, Mixture) or not isinstance(self.parts[0], VirtualPhoton):
            return None
        return channel.members(mass, n)

    def pairs_near(self, mass: float, n: int) -> float:
        """Return the effective number of pairs behind the kinematics at a mass [GeV].

        inf for theory; `n`, of the particles that are drawn, where it is not known.
        """
        photon = self.parts[0]
        if not isinstance(photon, VirtualPhoton):
            return np.inf
        return float(n) if photon.near is None else photon.near(mass)

    def replicas(self, mass: float, sample: Sample, members: IntArray | None) -> FloatArray | None:
        """Return what replicas of the kinematics would weigh some particles, of the given members, (r, n)."""
        mixture, factor = self.mixture
        scale = float(factor(np.array([mass]))[0])
        own = np.zeros(len(sample.weight), dtype=np.int64) if members is None else members
        return mixture.replicas(mass, replace(sample, weight=sample.weight / (scale or 1.0)), own)


def by_charges(model: Model) -> TypeGuard[VectorModel]:
    """Return whether the charges of a vector say its rate, process by process."""
    return isinstance(model, VectorModel) and type(model).rate_ratio is VectorModel.rate_ratio


def needs_shares(model: Model) -> TypeGuard[VectorModel]:
    """Return whether the rate of a model depends on the shares of the processes."""
    return by_charges(model) and not model.charges.loop_mixing


def as_photons(model: Model) -> bool:
    """Return whether as many particles are made as dark photons."""
    return type(model).rate_ratio is DarkPhoton.rate_ratio


def _own_rate(model: Model) -> Callable[[FloatArray], FloatArray]:
    """Return the ratio to dark photons that a model states, looked at before it is used."""

    def ratio(mass: FloatArray) -> FloatArray:
        values = np.asarray(model.rate_ratio(mass), dtype=np.float64)
        name = type(model).__name__
        if values.shape != mass.shape:
            raise PhysicsError(f"{name}.rate_ratio: shape {values.shape} for masses of shape {mass.shape}")
        bad = ~(np.isfinite(values) & (values >= 0))
        if bad.any():
            ratio = f"{values[bad][0]:g} at {mass[bad][0]:g} GeV"
            raise PhysicsError(f"{name}.rate_ratio: {ratio} must be finite, not negative")
        return values

    return ratio


def theory_production(
    channels: Sequence[Channel], model: Model, *, beam_energy: float, target_a: float, target_z: float
) -> Production:
    """Return what theory channels make, per interacting proton."""
    exposure = Exposure(beam_energy, target_a, target_z, EVERY_PROTON, 1.0)
    whole = Mixture(tuple(channels))
    channel = whole
    if by_charges(model):
        channel = recoupled_channels(channels, model.charges)
    elif not as_photons(model):
        ratio = _own_rate(model)
        channel = Mixture(tuple(Scaled(part, ratio) for part in channels), exclusive=False)
    return Production(channel, whole.channels, exposure, (0.0, np.inf), 0.0, unit=unit_of(channels))


def measured_production(
    photon: VirtualPhoton,
    others: Sequence[Channel],
    model: Model,
    exposure: Exposure,
    shares: Callable[[FloatArray], Mapping[Process, FloatArray]],
) -> Production:
    """Return what measured photons make, with the channels that their spectrum cannot hold."""
    check_exclusive([photon, *others])
    unit_of([photon, *others])
    threshold = 2 * photon.m_lepton
    if needs_shares(model):
        if others:
            own = f"{model.charges.name!r} needs its own ratio in each of them"
            raise PhysicsError(f"predict.channels and outside, beside a spectrum: {own}")
        charges = model.charges
        scaled = Scaled(photon, lambda mass: rate_ratio(charges, mass, shares(mass)))
        return Production(scaled, (photon,), exposure, photon.mass_range, threshold)
    parts = (photon, *others)
    whole: Channel = Mixture(parts, even=EVEN) if others else photon
    if not as_photons(model):
        whole = Scaled(whole, _own_rate(model))
    if all(isinstance(part, Outside) for part in others):
        return Production(whole, parts, exposure, photon.mass_range, threshold)
    return Production(whole, parts, exposure, (0.0, np.inf), 0.0)


def scan_masses(channel: Channel, low: float, high: float, n: int) -> FloatArray:
    """Return n masses [GeV]: equidistant, or closer where a rate with lines or the lepton threshold bends.

    Notes
    -----
    Half of the points are even in mass, the others in the way that log₁₀ of the rate goes up and down, and in
    that of the threshold factor of the leptons. The poles of ω and φ are among them.
    """
    even = np.linspace(low, high, n)
    if not isinstance(channel, VirtualPhoton) or channel.shape is None or n < 8:
        return even
    first, last = (float(np.clip(end, *channel.mass_range)) for end in (low, high))
    fine = np.linspace(first, last, 4000)
    blocks = np.array_split(fine, 40)  # the covariance of all of them would be most of the work
    rate = np.maximum(np.concatenate([channel.rate(block)[0] for block in blocks]), 1e-300)
    way = np.abs(np.diff(np.log10(rate))) + np.abs(np.diff(np.log10(kappa(fine, channel.m_lepton))))
    step = np.diff(fine) / (last - first) + way / max(float(way.sum()), 1e-300)
    position = np.concatenate([[0.0], np.cumsum(step)])
    masses = np.interp(np.linspace(0.0, position[-1], n), position, fine)
    masses[[0, -1]] = low, high
    for pole in (mass_of(223), mass_of(333)):
        if low < pole < high:
            masses[1 + int(np.argmin(np.abs(masses[1:-1] - pole)))] = pole
    return masses


def rate_of(production: Production, masses: FloatArray, shifts: Mapping[str, FloatArray], seed: int) -> Rate:
    """Return the rate of a production at some masses, with its sources by name."""
    value, cov = production.channel.rate(masses)
    pot_sigma, photon = production.exposure.pot_sigma, production.parts[0]
    channels = by_group(production.channel, masses) if len(production.parts) > 1 else {}
    if not isinstance(photon, VirtualPhoton):
        _, low, high = envelope(production.channel, masses)
        sources = sources_of(THEORY, value, cov, pot_sigma, {})
        return Rate(masses, value, cov, sources, production.threshold, channels, low, high)
    mixture, factor = production.mixture
    rates, covs = mixture.by_channel(masses)
    covs = covs * np.outer(factor(masses), factor(masses))
    own = rates[0] * factor(masses)
    moved = _moved(production, photon, masses, shifts)
    sources = sources_of(MEASUREMENT, own, covs[0], pot_sigma, moved)
    others = zip(production.parts[1:], covs[1:], strict=True)
    beside = [Source(f"{THEORY_OF}{part.group}", "theory", part_cov) for part, part_cov in others]
    rate = Rate(masses, value, cov, sources + Sources(tuple(beside)), production.threshold, channels)
    if production.trend is None:
        return rate
    share = divided(own, value)
    part, error, step = extrapolated(photon, production.trend, masses, seed)
    return replace(
        rate, measured_part=part * share, extrapolation=error * share, extrapolation_step=step * share
    )


def sources_of(
    name: str, rate: FloatArray, cov: FloatArray, pot_sigma: float, shifts: Mapping[str, FloatArray]
) -> Sources:
    """Return the sources of a rate: those in its covariance by name, the rest of it, protons on target."""
    named = [Source.shifted(key, "spectrum", shift) for key, shift in shifts.items()]
    rest = cov - sum((part.cov for part in named), np.zeros_like(cov))
    rest[np.diag_indices_from(rest)] = np.clip(np.diag(rest), 0.0, None)
    pot = Source.shifted(POT, "pot", pot_sigma * rate)
    return Sources((Source(name, "spectrum", rest), pot, *named))


def _moved(
    production: Production, photon: VirtualPhoton, masses: FloatArray, relative: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    """Return the shifts of the rate at some masses by the named sources of the unfolding."""
    own, _ = Mixture((photon,)).rate(masses)
    _, factor = production.mixture
    scale = np.where(own > 0, factor(masses), 0.0)  # other channels do not move with the spectrum
    inside = (masses >= photon.mass_range[0]) & (masses <= photon.mass_range[1])
    moved: dict[str, FloatArray] = {}
    for name, shift in relative.items():
        moved[name] = np.zeros(len(masses))
        moved[name][inside] = photon.moved(masses[inside], shift) * scale[inside]
    return moved


def by_group(channel: Channel, masses: FloatArray) -> dict[str, FloatArray]:
    """Return the rate of each group of channels, with the couplings of the model, shape (n,) each."""
    if isinstance(channel, Scaled):
        factor = channel.factor(masses)
        return {group: factor * rate for group, rate in by_group(channel.channel, masses).items()}
    if not isinstance(channel, Mixture):
        return {channel.group: channel.rate(masses)[0]}
    rates: dict[str, FloatArray] = {}
    for part, rate in zip(channel.channels, channel.by_channel(masses)[0], strict=True):
        group = part.channel.group if isinstance(part, Scaled) else part.group
        rates[group] = rates.get(group, np.zeros(len(masses))) + rate
    return rates


def alternatives(trend: Trend | None, mass: float, sample: Sample) -> FloatArray | None:
    """Return factors of the alternatives on the particles of a sample, (5, n), or None without a trend."""
    if trend is None:
        return None
    pt, energy = (np.asarray(c, dtype=np.float64) for c in (sample.p4.pt, sample.p4.E))
    return trend.factors(np.full(len(pt), mass), pt, energy, sample.in_domain)


def extrapolated(
    channel: VirtualPhoton, trend: Trend, masses: FloatArray, seed: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the measured part of a rate and the relative error of the whole from what is extrapolated."""
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
        error[i] = trend.relative_error(np.array([total]), sums)[0]
        step[i] = sums[0, 0] / total - 1.0
    return part, error, step


def variations_of(
    production: Production,
    mass: float,
    sample: Sample,
    sources: Sequence[OwnSource] = (),
    members: IntArray | None = None,
) -> tuple[Variation, ...]:
    """Return all that varies particles which a production made at one mass; `members` says which part did."""
    variations = []
    replicas = production.replicas(mass, sample, members)
    if replicas is not None:
        variations.append(Variation(FLOW, "kinematics", "replicas", replicas))
    factors = alternatives(production.trend, mass, sample)
    if factors is not None and production.trend is not None:
        own = factors if members is None else np.where(members == 0, factors, 1.0)
        estimate = production.trend.relative_error
        variations.append(Variation(EXTRAPOLATION, "extrapolation", "relative", own, estimate))
        energy = np.asarray(sample.p4.E, dtype=np.float64)
        beyond = production.trend.beyond(np.full(len(energy), mass), energy)
        beyond = beyond if members is None else beyond & (members == 0)
        share = beyond.astype(np.float64)[np.newaxis]
        variations.append(Variation(BEYOND, "extrapolation", "share", share))
    for i, part in enumerate(production.parts if members is not None else ()):
        chosen = members == i
        share = np.asarray(chosen, dtype=np.float64)[np.newaxis]
        variations.append(Variation(part.group, "theory", "share", share))
        band = part.band(mass, sample) if np.any(chosen) else None
        if band is not None:
            ends = np.where(chosen, band, 1.0)
            variations.append(Variation(f"{THEORY_OF}{part.group}", "theory", "ends", ends))
    pt, energy = (np.asarray(c, dtype=np.float64) for c in (sample.p4.pt, sample.p4.E))
    for source in sources:
        if source.particles is not None:
            factor = source.factor(np.full(len(pt), mass), pt, energy)[np.newaxis]
            variations.append(Variation(source.name, "own", "relative", factor))
    return tuple(variations)
