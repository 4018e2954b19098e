"""χχ̄ as particles: decays of virtual photons by their spin state, and pairs from any theory channel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import vector

from gammastar.core import constants
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Sample
from gammastar.physics.kinematics import daughter, daughter_about
from gammastar.physics.millicharge import from_dark_photons, vector_branching
from gammastar.physics.polarisation import TRANSVERSE, UNPOLARISED, SpinDensities, cosine, lambda_theta
from gammastar.physics.qed import kappa
from gammastar.predict.channel import Channel
from gammastar.predict.channels.theory import MesonChannel
from gammastar.predict.millicharge import VirtualPhotons
from gammastar.predict.mixture import joined

__all__ = ["chi_from_channel", "chi_from_resonances", "chi_pairs", "resonance_rate"]


def chi_pairs(
    photons: VirtualPhotons,
    m_chi: float,
    *,
    rng: np.random.Generator,
    longitudinal: float | Callable[[FloatArray], npt.ArrayLike] = UNPOLARISED,
    spin: SpinDensities | None = None,
) -> Sample:
    """Decay virtual photons to χχ̄.

    Parameters
    ----------
    photons : VirtualPhotons
    m_chi : float [GeV]
    rng : numpy.random.Generator
    longitudinal : float or callable
        Longitudinal fraction along the flight in the laboratory, or a function of the mass that returns it,
        of photons whose parent is not known; 1/3 averages over spins. Photons of a known meson are transverse
        along their flight in its rest frame. From λθ of dimuons:
        `gammastar.physics.polarisation.longitudinal_fraction`.
    spin : SpinDensities, optional
        In place of `longitudinal`, e.g. that of measured dimuons: isotropic pairs carry the density of their
        angles as weight, with the sum of the weights unchanged.

    Returns
    -------
    Sample
        2n particles, first all χ, then their χ̄ in the same order; each carries the weight of its pair, so
        that the sum of weights counts particles: two per pair.
    """
    n = len(photons.mass)
    phi = rng.uniform(-np.pi, np.pi, n)
    pz = np.sqrt(np.clip(photons.energy**2 - photons.mass**2 - photons.pt**2, 0.0, None))
    parent = np.stack([photons.pt * np.cos(phi), photons.pt * np.sin(phi), pz, photons.energy])
    fraction = longitudinal(photons.mass) if callable(longitudinal) else longitudinal
    fraction = fraction if spin is None else UNPOLARISED
    above = np.maximum(photons.mass, 2 * m_chi * (1 + 1e-12))
    known = np.zeros(n, dtype=np.bool_) if photons.parent is None else ~np.isnan(photons.parent[:, 0])
    lam = lambda_theta(np.where(known, TRANSVERSE, np.broadcast_to(fraction, (n,))), above, m_chi)
    cos_theta, around = cosine(lam, rng.uniform(size=n)), rng.uniform(-np.pi, np.pi, n)
    first = daughter(parent, photons.mass, m_chi, m_chi, cos_theta, around)
    if photons.parent is not None and known.any():
        meson = _turned(photons.parent[known].T, phi[known])
        first[:, known] = daughter_about(
            parent[:, known], photons.mass[known], m_chi, meson, cos_theta[known], around[known]
        )
    weight = photons.weight
    if spin is not None and not known.all():
        free = ~known
        density = spin.weight(parent[:, free], above[free], first[:, free], m_chi, np.inf)
        total = float(weight[free] @ density)
        weight = weight.copy()
        weight[free] *= density * (float(weight[free].sum()) / total if total > 0 else 1.0)
    p = np.concatenate([first, parent - first], axis=1)
    p4 = vector.array({"px": p[0], "py": p[1], "pz": p[2], "E": p[3]})
    twice = np.concatenate([weight, weight])
    return Sample(p4, twice, np.zeros((2 * n, 3)), np.concatenate([photons.in_domain] * 2))


def _turned(p: FloatArray, phi: FloatArray) -> FloatArray:
    """Return four-momenta, shape (4, n), turned about the beam."""
    c, s = np.cos(phi), np.sin(phi)
    return np.stack([c * p[0] - s * p[1], s * p[0] + c * p[1], p[2], p[3]])


def chi_from_channel(
    channel: Channel,
    m_chi: float,
    *,
    mass_range: tuple[float, float],
    n: int,
    rng: np.random.Generator,
    n_masses: int = 40,
) -> VirtualPhotons:
    """Turn any production of dark photons into virtual photons of χχ̄.

    Parameters
    ----------
    channel : Channel
        Gives the rate of dark photons and their kinematics at each mass.
    m_chi : float [GeV]
    mass_range : tuple of float
        Where the channel holds; its lower end is raised to 2 m_chi. Next to a rate measured with dimuons
        give (0, 2 m_μ), so that no virtual photon counts twice.
    n : int
        Virtual photons in all.
    rng : numpy.random.Generator
    n_masses : int
        Masses at which the channel is asked, one in each stratum of equal rate.

    Raises
    ------
    PhysicsError
        If the channel makes nothing above threshold.

    Notes
    -----
    dN_χχ/dm² = Q² (κ_χ(m)/m²) N_A'(m)/ε²: Eqs. 6 and 8 of Allison and Blinov (2025) together.
    """
    low, high = max(2 * m_chi, mass_range[0]), mass_range[1]
    total = 0.0
    if low < high:
        total = float(
            from_dark_photons(lambda m: channel.rate(m)[0], [m_chi], high, mass_min=mass_range[0])[0]
        )
    if not total > 0:
        msg = f"channel {channel.group!r} makes no virtual photon between {low:g} and {high:g} GeV"
        raise PhysicsError(msg)
    grid = low * (high / low) ** np.linspace(0.0, 1.0, 601) ** 2
    middle = np.sqrt(grid[1:] * grid[:-1])
    density = kappa(middle, m_chi) * channel.rate(middle)[0] * np.diff(np.log(grid))
    cumulative = np.concatenate([[0.0], np.cumsum(density)]) / density.sum()
    strata = (np.arange(n_masses) + rng.uniform(size=n_masses)) / n_masses
    masses = np.interp(strata, cumulative, grid)
    each = max(1, n // n_masses)
    parts = [channel.produce(float(m), n=each, rng=rng) for m in masses]
    weight = [part.weight / part.weight.sum() for part in parts]
    return VirtualPhotons(
        mass=np.repeat(masses, each),
        pt=np.concatenate([np.asarray(part.p4.pt) for part in parts]),
        energy=np.concatenate([np.asarray(part.p4.E) for part in parts]),
        weight=np.concatenate(weight) * total / n_masses,
        in_domain=np.concatenate([part.in_domain for part in parts]),
        parent=_own_parents(joined(parts)),
    )


def _own_parents(sample: Sample) -> FloatArray | None:
    """Return the parents of a sample in axes whose x is along each particle's transverse momentum."""
    if sample.parent is None:
        return None
    return _turned(sample.parent.T, -np.arctan2(np.asarray(sample.p4.py), np.asarray(sample.p4.px))).T


def resonance_rate(channel: MesonChannel, m_chi: npt.ArrayLike) -> FloatArray:
    """Return pairs per proton on target and Q² from V → χχ̄ at the poles of a mixing channel, shape (k,).

    For resonances as narrow as the J/ψ, whose line no integral over the mass resolves.
    """
    chi = np.atleast_1d(np.asarray(m_chi, dtype=np.float64))
    total = np.zeros(len(chi))
    for decay in channel.decays:
        meson = channel.table.mesons[decay.parent]
        branching = vector_branching(chi, meson.mass, decay.branching)
        total += channel.interaction * meson.per_interaction * branching
    return total


def chi_from_resonances(
    channel: MesonChannel, m_chi: float, *, n: int, rng: np.random.Generator
) -> VirtualPhotons:
    """Return virtual photons at the poles of a mixing channel; arguments as `chi_from_channel`."""
    parts = []
    for decay in channel.decays:
        meson = channel.table.mesons[decay.parent]
        mass = constants.mass(meson.pdg)
        rate = float(vector_branching(m_chi, mass, decay.branching))
        weight = np.full(n, channel.interaction * meson.per_interaction * rate / n)
        p = meson.sample(mass, n, channel.beam_energy, rng)
        parts.append((np.full(n, mass), np.hypot(p[0], p[1]), p[3], weight))
    mass_, pt, energy, weight = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    if not weight.sum() > 0:
        msg = f"channel {channel.group!r}: 2 m_chi = {2 * m_chi:g} GeV lies above all its resonances"
        raise PhysicsError(msg)
    keep = weight > 0
    nothing = np.zeros(int(keep.sum()), dtype=np.bool_)
    return VirtualPhotons(mass_[keep], pt[keep], energy[keep], weight[keep], nothing)
