"""Millicharged pairs: rates from dileptons and theory, their virtual photons, decays to particles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core import constants
from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import BoolArray, FloatArray, Momenta, Rng, Sample
from gammastar.core.sampling import Sampler
from gammastar.core.signal import Rate
from gammastar.core.sources import MEASUREMENT, POT, Source, Sources
from gammastar.physics import polarisation
from gammastar.physics.millicharge import bin_factors, from_dark_photons, pair_factor, vector_branching
from gammastar.physics.qed import kappa
from gammastar.predict.channel import Channel, InDomain, VirtualPhoton, check_exclusive, held
from gammastar.predict.mixture import envelope, joined
from gammastar.predict.theory import JPsi, MesonChannel


@dataclass(frozen=True, slots=True, eq=False)
class VirtualPhotons:
    """Virtual photons on their way to χχ̄."""

    # shape (n,) [GeV]
    mass: FloatArray
    pt: FloatArray
    energy: FloatArray
    weight: FloatArray  # Sums to the pairs per proton on target and Q², shape (n,)
    in_domain: BoolArray  # True where lepton pairs of these kinematics were measured, shape (n,)
    parent: FloatArray | None = None  # As `Sample.parent`, x along the photon's transverse momentum, (n, 4)


def chi_rate(
    edges: npt.ArrayLike, pairs: npt.ArrayLike, cov: npt.ArrayLike, m_chi: npt.ArrayLike, m_lepton: float
) -> tuple[FloatArray, FloatArray]:
    """Return pairs χχ̄ per proton on target and Q² from the spectrum of virtual photons.

    Parameters
    ----------
    edges : array_like, shape (n + 1,) [GeV]
    pairs, cov : array_like, shapes (n,), (n, n)
        Lepton pairs per proton on target in each bin, unfolded, with their covariance.
    m_chi : array_like, shape (k,) [GeV]
    m_lepton : float [GeV]

    Returns
    -------
    rate : NDArray, shape (k,)
    cov : NDArray, shape (k, k)

    Notes
    -----
    Allison and Blinov (2025), Eq. 8. Virtual photons lighter than 2 m_lepton are not in it: the plateau at
    small m_χ is theirs to raise (π⁰ Dalitz decays above all), not a result.
    """
    factors = bin_factors(edges, m_chi, m_lepton)
    values, covariance = np.asarray(pairs, dtype=np.float64), np.asarray(cov, dtype=np.float64)
    if values.shape != factors.shape[1:] or covariance.shape != 2 * values.shape:
        shapes = f"pairs {values.shape} and cov {covariance.shape}"
        raise PhysicsError(f"chi_rate: {shapes} do not fit {factors.shape[1]} bins")
    return factors @ values, factors @ covariance @ factors.T


def conditional(
    m_chi: float,
    spectrum: tuple[npt.ArrayLike, npt.ArrayLike],
    m_lepton: float,
    sampler: Sampler,
    in_domain: InDomain,
    *,
    n: int,
    rng: Rng,
) -> VirtualPhotons:
    """Sample virtual photons of χχ̄ from the mass spectrum, edges [GeV] and contents, and a sampler."""
    edges, values = (np.asarray(array, dtype=np.float64) for array in spectrum)
    content = bin_factors(edges, m_chi, m_lepton)[0] * values
    positive, total = np.clip(content, 0.0, None), float(content.sum())
    require(total > 0, f"conditional: no virtual photon above 2 m_chi = {2 * m_chi:g} GeV is measured")
    index = rng.choice(len(values), size=n, p=positive / positive.sum())
    start = np.clip(np.maximum(edges[:-1], 2 * max(m_chi, m_lepton)), None, edges[1:])[index]
    mass = start + (edges[1:][index] - start) * rng.uniform(1e-9, 1.0, n)
    factor = pair_factor(mass, m_chi, m_lepton)
    mean = np.bincount(index, factor, len(values)) / np.maximum(np.bincount(index, minlength=len(values)), 1)
    weight = factor / np.where(mean > 0, mean, 1.0)[index]
    low, high = sampler.mass_range
    asked = np.clip(mass, low, high)
    pt, energy = sampler.sample(asked, rng)
    energy = np.maximum(energy, np.sqrt(mass**2 + pt**2))
    inside = np.asarray(in_domain(mass, pt, energy), dtype=np.bool_)
    return VirtualPhotons(mass, pt, energy, weight * (total / weight.sum()), inside)


MAX_THEORY_MASS = 3.5  # GeV: heaviest virtual photon of a theory channel
FINE_BIN_WIDTH = 0.001  # GeV, of a spectrum known at exact masses: a quarter of the width of the φ
MeasuredPairs: TypeAlias = tuple[FloatArray, FloatArray, FloatArray]
"""Edges [GeV], dileptons per proton on target in each bin, their covariance."""


def chi_pairs(
    photons: VirtualPhotons,
    m_chi: float,
    *,
    rng: Rng,
    longitudinal: float | Callable[[FloatArray], npt.ArrayLike] = polarisation.UNPOLARISED,
    spin: polarisation.SpinDensities | None = None,
) -> Sample:
    """Decay virtual photons to χχ̄.

    Parameters
    ----------
    m_chi : float [GeV]
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
    fraction = fraction if spin is None else polarisation.UNPOLARISED
    above = np.maximum(photons.mass, 2 * m_chi * (1 + 1e-12))
    known = np.zeros(n, dtype=np.bool_) if photons.parent is None else ~np.isnan(photons.parent[:, 0])
    share = np.where(known, polarisation.TRANSVERSE, np.broadcast_to(fraction, (n,)))
    lam = polarisation.lambda_theta(share, above, m_chi)
    cos_theta, around = polarisation.cosine(lam, rng.uniform(size=n)), rng.uniform(-np.pi, np.pi, n)
    first = polarisation.daughter(parent, photons.mass, m_chi, m_chi, cos_theta, around)
    if photons.parent is not None and known.any():
        meson = _turned(photons.parent[known].T, phi[known])
        own = photons.mass[known], m_chi, meson, cos_theta[known], around[known]
        first[:, known] = polarisation.daughter_about(parent[:, known], *own)
    weight = photons.weight
    if spin is not None and not known.all():
        free = ~known
        density = spin.weight(parent[:, free], above[free], first[:, free], m_chi, np.inf)
        total = float(weight[free] @ density)
        weight = weight.copy()
        weight[free] *= density * (float(weight[free].sum()) / total if total > 0 else 1.0)
    p = np.concatenate([first, parent - first], axis=1)
    p4 = Momenta(*p)
    twice = np.concatenate([weight, weight])
    return Sample(p4, twice, np.zeros((2 * n, 3)), np.concatenate([photons.in_domain] * 2))


def _turned(p: FloatArray, phi: FloatArray) -> FloatArray:
    """Return four-momenta, shape (4, n), turned about the beam."""
    c, s = np.cos(phi), np.sin(phi)
    return np.stack([c * p[0] - s * p[1], s * p[0] + c * p[1], p[2], p[3]])


def chi_from_channel(
    channel: Channel, m_chi: float, *, mass_range: tuple[float, float], n: int, rng: Rng, n_masses: int = 40
) -> VirtualPhotons:
    """Turn any production of dark photons into virtual photons of χχ̄.

    dN_χχ/dm² = Q² (κ_χ(m)/m²) N_A'(m)/ε²: Eqs. 6 and 8 of Allison and Blinov (2025) together.
    """
    low, high = max(2 * m_chi, mass_range[0]), mass_range[1]
    total = 0.0
    if low < high:
        rate = from_dark_photons(lambda m: channel.rate(m)[0], [m_chi], high, mass_min=mass_range[0])
        total = float(rate[0])
    require(total > 0, f"channel {channel.group!r} makes no virtual photon between {low:g} and {high:g} GeV")
    grid = low * (high / low) ** np.linspace(0.0, 1.0, 601) ** 2
    middle = np.sqrt(grid[1:] * grid[:-1])
    density = kappa(middle, m_chi) * channel.rate(middle)[0] * np.diff(np.log(grid))
    cumulative = np.concatenate([[0.0], np.cumsum(density)]) / density.sum()
    strata = (np.arange(n_masses) + rng.uniform(size=n_masses)) / n_masses
    masses = np.interp(strata, cumulative, grid)
    each = max(1, n // n_masses)
    parts = [channel.produce(float(m), n=each, rng=rng) for m in masses]
    weight = [part.weight / part.weight.sum() for part in parts]
    whole = joined(parts)
    parent = whole.parent
    if parent is not None:
        parent = _turned(parent.T, -np.arctan2(np.asarray(whole.p4.py), np.asarray(whole.p4.px))).T
    return VirtualPhotons(
        mass=np.repeat(masses, each),
        pt=np.hypot(*whole.four_momenta[:2]),
        energy=whole.four_momenta[3],
        weight=np.concatenate(weight) * total / n_masses,
        in_domain=whole.in_domain,
        parent=parent,
    )


def resonance_rate(channel: MesonChannel, m_chi: npt.ArrayLike) -> FloatArray:
    """Return pairs per POT and Q² from V → χχ̄ at the poles of narrow resonances, shape (k,)."""
    chi = np.atleast_1d(np.asarray(m_chi, dtype=np.float64))
    total = np.zeros(len(chi))
    for decay in channel.decays:
        meson = channel.table.mesons[decay.parent]
        branching = vector_branching(chi, meson.mass, decay.branching)
        total += channel.interaction * meson.per_interaction * branching
    return total


def chi_from_resonances(channel: MesonChannel, m_chi: float, *, n: int, rng: Rng) -> VirtualPhotons:
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
    require(weight.sum() > 0, f"channel {channel.group!r}: {2 * m_chi:g} GeV is above all its resonances")
    keep = weight > 0
    nothing = np.zeros(int(keep.sum()), dtype=np.bool_)
    return VirtualPhotons(mass_[keep], pt[keep], energy[keep], weight[keep], nothing)


@dataclass(frozen=True)
class TheoryPairs:
    """A theory channel of χχ̄ with the masses of virtual photons for which it counts."""

    name: str
    channel: Channel
    # [GeV]
    low: float
    high: float

    def rate(self, m_chi: FloatArray) -> FloatArray:
        """Return pairs per proton on target and Q² with their lower and upper edge, shape (3, k)."""
        if isinstance(self.channel, JPsi):
            value = resonance_rate(self.channel, m_chi)
            sigma = self.channel.table.mesons["jpsi"].sigma
            return np.stack([value, (1 - sigma) * value, (1 + sigma) * value])

        ends: Any = {"mass_min": self.low, "panels": 200}

        def edge(i: int) -> FloatArray:
            return from_dark_photons(lambda m: envelope(self.channel, m)[i], m_chi, self.high, **ends)

        return np.stack([edge(i) for i in range(3)])

    def photons(self, m_chi: float, n: int, rng: Rng) -> VirtualPhotons:
        """Return virtual photons of χχ̄."""
        if isinstance(self.channel, JPsi):
            return chi_from_resonances(self.channel, m_chi, n=n, rng=rng)
        return chi_from_channel(self.channel, m_chi, mass_range=(self.low, self.high), n=n, rng=rng)


def fine_pairs(photon: Channel, binned: MeasuredPairs) -> MeasuredPairs:
    """Return measured pairs in narrow bins where they are known at exact masses: Eq. 8 bends inside bins."""
    if not isinstance(photon, VirtualPhoton) or photon.shape is None:
        return binned
    first, last = photon.shape.edges[[0, -1]]
    fine = np.linspace(first, last, max(2, round((last - first) / FINE_BIN_WIDTH)) + 1)
    return fine, *photon.shape.binned(fine)


def theory_pairs(
    channels: Sequence[tuple[str, Channel]], measured: MeasuredPairs | None, m_lepton: float
) -> list[TheoryPairs]:
    """Return theory channels of χχ̄; beside measured pairs they end where these begin."""
    first, last = (
        (MAX_THEORY_MASS, 0.0) if measured is None else (float(measured[0][0]), float(measured[0][-1]))
    )
    top = first if measured is None else max(first, 2 * m_lepton)
    tops = {name: min(top, constants.M_PI0) if name == "pion_dalitz" else top for name, _ in channels}
    parts = [TheoryPairs(name, channel, 0.0, tops[name]) for name, channel in channels]
    check_exclusive([part.channel for part in parts])
    if any(isinstance(part.channel, JPsi) for part in parts) and "jpsi" in held((first, last)):
        raise PhysicsError(
            "predict.millicharge.channels: 'jpsi' is among the measured pairs, "
            f"{first:.4g} to {last:.4g} GeV: remove it"
        )
    return parts


def pair_rate(
    m_chi: FloatArray,
    measured: MeasuredPairs | None,
    theory: Sequence[TheoryPairs],
    m_lepton: float,
    pot_sigma: float,
) -> Rate:
    """Return pairs χχ̄ per proton on target and Q² at some masses of χ, with their errors."""
    total, cov = np.zeros(len(m_chi)), np.zeros((len(m_chi), len(m_chi)))
    channels = {}
    if measured is not None:
        total, cov = chi_rate(*measured, m_chi, m_lepton)
        channels["virtual_photon"] = total
    square = np.array([np.diag(cov) + (pot_sigma * total) ** 2] * 2)
    for part in theory:
        value, low, high = part.rate(m_chi)
        half = 0.5 * (high - low)
        total, cov = total + value, cov + np.outer(half, half)
        square += np.stack([value - low, high - value]) ** 2
        channels[part.name] = value
    down, up = np.sqrt(square)
    rest = cov.copy()
    rest[np.diag_indices_from(rest)] = np.clip(np.diag(rest), 0.0, None)
    sources = Sources((Source(MEASUREMENT, "spectrum", rest), Source.shifted(POT, "pot", pot_sigma * total)))
    return Rate(m_chi, total, cov, sources, 0.0, channels, np.clip(total - down, 0.0, None), total + up)
