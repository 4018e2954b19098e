"""Who makes the dark particles: measured virtual photons, theory channels, or both if exclusive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gammastar import predict, spectrum
from gammastar.config import Predict
from gammastar.core.constants import M_E, M_MU
from gammastar.core.data import data_path
from gammastar.core.errors import PhysicsError, SteeringError
from gammastar.core.records import Exposure, FloatArray, Spectrum
from gammastar.core.resolve import resolve
from gammastar.core.sampler import Sampler
from gammastar.physics import bremsstrahlung
from gammastar.physics.hadronic_split import SPLIT_MAX
from gammastar.physics.mesons import MesonTable
from gammastar.physics.vector_models import CHARGES, Charges
from gammastar.physics.widths import RTable
from gammastar.pipeline.context import Context, shipped
from gammastar.pipeline.learning import InDomain

__all__ = [
    "LEPTON_MASS",
    "Decaying",
    "Production",
    "conditions",
    "make_model",
    "masses_of",
    "measured_production",
    "replica_weights",
    "theory_channel",
    "theory_production",
]

LEPTON_MASS = {"e": M_E, "mu": M_MU}
EVERY_PROTON = 50.0  # interaction lengths: theory counts per interacting proton
MESONS: dict[str, type[predict.MesonChannel]] = {
    "pion_dalitz": predict.PionDalitz,
    "pseudoscalar_dalitz": predict.PseudoscalarDalitz,
    "vector_dalitz": predict.VectorDalitz,
    "vector_mesons": predict.VectorMixing,
    "jpsi": predict.JPsi,
}


class Decaying(Protocol):
    """What later stages need of a model."""

    def ctau(self, mass: float, coupling: npt.ArrayLike) -> FloatArray:
        """Return cτ [m]."""

    def branching(self, mass: float) -> Any:
        """Return the branching ratios by final state."""


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
    """

    channel: predict.Channel
    parts: tuple[predict.Channel, ...]
    exposure: Exposure
    mass_range: tuple[float, float]
    threshold: float
    trend: spectrum.Trend | None = None


def r_table() -> RTable:
    """Return the shipped table of R."""
    return RTable.read(data_path("measurements/r_ratio.csv"))


def make_model(name: str, base: Path) -> Decaying:
    """Return the model of a name or of ``file.py:attribute`` (a model or a function without arguments).

    Raises
    ------
    SteeringError
        If there is none of that name.
    """
    if name == "dark_photon":
        return predict.DarkPhoton(r_table())
    if name in CHARGES:
        return predict.VectorModel.named(name, r_table())
    if ":" not in name:
        known = ", ".join(("dark_photon", *CHARGES))
        msg = f"predict.model = {name!r}: neither one of {known} nor of the form 'file.py:attribute'"
        raise SteeringError(msg)
    found = resolve(name, base)
    model: Decaying = found if hasattr(found, "branching") and not isinstance(found, type) else found()
    return model


def replica_weights(folder: Path) -> predict.ReplicaWeights | None:
    """Return the weights of the flow's ensemble in a result folder, or None without one."""
    from gammastar.pipeline.training import flow_variations

    found = flow_variations(folder)
    return None if found is None else found.weights


def theory_channel(
    name: str, section: Predict, base: Path, beam_energy: float, interaction: float = 1.0, **options: Any
) -> predict.Channel:
    """Return the theory channel of a name or of ``file.py:attribute``.

    Parameters
    ----------
    name : str
        "bremsstrahlung", "pion_dalitz", "pseudoscalar_dalitz", "vector_dalitz", "vector_mesons" or "jpsi".
    section : Predict
        Its preset of bremsstrahlung, Λ and table of mesons.
    base : Path
        Folder of the steering file.
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
        table = MesonTable.read(shipped(section.mesons, base, "measurements"))
        return MESONS[name](table, beam_energy, interaction, **options)
    if ":" not in name:
        known = ", ".join(("bremsstrahlung", *MESONS))
        msg = f"predict.channels: {name!r} is neither one of {known} nor of the form 'file.py:attribute'"
        raise SteeringError(msg)
    found = resolve(name, base)
    channel: predict.Channel = found if isinstance(found, predict.Channel) else found()
    return channel


def theory_production(ctx: Context) -> Production:
    """Return what the channels of ``source = "theory"`` make."""
    section = ctx.steering.predict
    if section is None or section.beam_energy is None:
        msg = "[predict] with source = 'theory' needs beam_energy"
        raise SteeringError(msg)
    exposure = Exposure(section.beam_energy, section.target_a, section.target_z, EVERY_PROTON, 1.0)
    channels = [theory_channel(name, section, ctx.base, section.beam_energy) for name in section.channels]
    whole = predict.Mixture(tuple(channels))
    charges = _charges(ctx, section)
    channel = whole if charges is None else predict.recoupled_channels(channels, charges)
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
    mass, density, cov = spectrum.mass_density(measured)
    rates, rate_cov = predict.rate(mass, density, cov, m_lepton)
    photon = predict.VirtualPhoton(mass, rates, rate_cov, sampler, in_domain, weights)
    interaction = float(-np.expm1(-exposure.thickness))
    others = [
        theory_channel(name, section, ctx.base, exposure.beam_energy, interaction)
        for name in section.channels
    ]
    predict.check_exclusive([photon, *others])
    if not others:
        return Production(
            _other_vector(ctx, section, photon), (photon,), exposure, photon.mass_range, 2 * m_lepton
        )
    charges = _charges(ctx, section)
    if charges is not None and not charges.loop_mixing:
        msg = f"predict.channels beside a spectrum: {section.model!r} needs its own ratio in each of them"
        raise SteeringError(msg)
    parts = (photon, *others)
    whole: predict.Channel = predict.Mixture(parts)
    if charges is not None:
        whole = predict.Scaled(whole, _photon_ratio(charges, []))
    return Production(whole, parts, exposure, (0.0, np.inf), 0.0)


def _charges(ctx: Context, section: Predict) -> Charges | None:
    """Return the charges of a vector that is no dark photon."""
    model = make_model(section.model, ctx.base)
    return model.charges if isinstance(model, predict.VectorModel) else None


def _other_vector(ctx: Context, section: Predict, photon: predict.VirtualPhoton) -> predict.Channel:
    """Return the channel with the couplings of the model; shares of processes are those of theory."""
    charges = _charges(ctx, section)
    if charges is None:
        return photon
    names = ("pseudoscalar_dalitz", "vector_dalitz", "vector_mesons", "bremsstrahlung")
    if charges.loop_mixing or ctx.steering.spectrum is None:
        return predict.Scaled(photon, _photon_ratio(charges, []))
    beam = ctx.steering.spectrum.beam_energy
    channels = [theory_channel(name, section, ctx.base, beam) for name in names]
    return predict.Scaled(photon, _photon_ratio(charges, channels))


def _photon_ratio(
    charges: Charges, channels: Sequence[predict.Channel]
) -> Callable[[FloatArray], FloatArray]:
    """Return the ratio of the vector to dark photons against the mass."""

    def ratio(mass: FloatArray) -> FloatArray:
        shares = predict.shares_of(channels, mass) if channels else {}
        return predict.rate_ratio(charges, mass, shares)

    return ratio


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
    charges = _charges(ctx, section)
    low, high = section.mass_range or production.mass_range
    if charges is not None and not charges.loop_mixing:
        high = min(high, SPLIT_MAX)
    if section.masses:
        return np.array(section.masses)
    if not (0 < low < high < np.inf):
        msg = f"[predict]: give masses or mass_range; {low:g} to {high:g} GeV is no range to scan"
        raise PhysicsError(msg)
    return np.linspace(low, high, section.n_masses)


def conditions(ctx: Context, production: Production) -> dict[str, str]:
    """Return the lines that every result carries: production, model, target, what is left out."""
    section = ctx.steering.predict
    if section is None:
        return {}
    lines = {f"production, {part.group}": predict.describe(part) for part in production.parts}
    charges = _charges(ctx, section)
    if charges is not None:
        note = "" if charges.loop_mixing else "; shares of the processes from the theory channels"
        lines["model"] = f"{charges.name}, coupling g: {charges.condition}{note}"
    else:
        lines["model"] = f"{section.model}, the rate goes as the square of the coupling"
    lines["target"] = predict.OMITTED
    return lines
