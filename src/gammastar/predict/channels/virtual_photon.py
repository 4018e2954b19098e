"""Dark photons from measured lepton pairs: the rate by Eq. 6, the kinematics from a sampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
import vector

from gammastar.core.errors import PhysicsError
from gammastar.core.records import BoolArray, FloatArray, Sample
from gammastar.core.sampler import Sampler
from gammastar.physics.kroll_wada import dark_photon_rate
from gammastar.predict.channel import Channel

__all__ = ["InDomain", "ReplicaWeights", "VirtualPhoton", "interpolate_rate", "produce", "rate"]

InDomain: TypeAlias = Callable[[FloatArray, FloatArray, FloatArray], BoolArray]
"""(mass, pt, energy), each (n,) [GeV] -> True where lepton pairs were measured."""

ReplicaWeights: TypeAlias = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]
"""(mass, pt, energy), each (n,) [GeV] -> density of each replica over that of the sampler, (k, n)."""


def rate(
    mass_centres: npt.ArrayLike, dn_dm: npt.ArrayLike, cov: npt.ArrayLike, m_lepton: float
) -> tuple[FloatArray, FloatArray]:
    """Return dark photons per proton on target and ε² from the spectrum of virtual photons.

    Parameters
    ----------
    mass_centres : array_like, shape (n,) [GeV]
    dn_dm : array_like, shape (n,)
        Density of lepton pairs from virtual photons, unfolded [1/GeV per proton on target].
    cov : array_like, shape (n, n)
        Covariance of `dn_dm`.
    m_lepton : float
        Lepton of the measured pairs [GeV].

    Returns
    -------
    rate : NDArray, shape (n,)
    cov : NDArray, shape (n, n)

    Raises
    ------
    PhysicsError
        If shapes differ, or a mass lies at or below the threshold 2 m_lepton.

    Notes
    -----
    Allison and Blinov (2025), Eq. 6 with dN/dm² = (dN/dm)/(2m):
    N(A')/ε² = m (dN/dm)/(2κ(m)), κ = (α/3π) √(1 − 4m_l²/m²) (1 + 2m_l²/m²).
    """
    mass = np.asarray(mass_centres, dtype=np.float64)
    density, covariance = np.asarray(dn_dm, dtype=np.float64), np.asarray(cov, dtype=np.float64)
    if mass.ndim != 1 or density.shape != mass.shape or covariance.shape != 2 * mass.shape:
        msg = f"rate: masses {mass.shape}, dn_dm {density.shape}, cov {covariance.shape} do not fit together"
        raise PhysicsError(msg)
    factor = dark_photon_rate(np.ones_like(mass), mass, m_lepton)
    return factor * density, covariance * np.outer(factor, factor)


def interpolate_rate(
    mass: npt.ArrayLike, mass_centres: npt.ArrayLike, rates: npt.ArrayLike, cov: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Return the rate and its covariance between the measured masses, linearly.

    Parameters
    ----------
    mass : array_like, shape (k,) [GeV]
    mass_centres : array_like, shape (n,) [GeV]
        Increasing.
    rates, cov : array_like, shapes (n,), (n, n)

    Returns
    -------
    rate : NDArray, shape (k,)
    cov : NDArray, shape (k, k)

    Raises
    ------
    PhysicsError
        If a mass lies outside the first and last centre: a measurement does not extrapolate.
    """
    wanted = np.atleast_1d(np.asarray(mass, dtype=np.float64))
    centres = np.asarray(mass_centres, dtype=np.float64)
    outside = ~((wanted >= centres[0]) & (wanted <= centres[-1]))
    if outside.any():
        msg = (
            f"mass {wanted[outside][0]:g} GeV lies outside the measured centres "
            f"{centres[0]:g} to {centres[-1]:g} GeV: scan masses inside"
        )
        raise PhysicsError(msg)
    if len(centres) == 1:
        weights = np.ones((len(wanted), 1))
    else:
        low = np.clip(np.searchsorted(centres, wanted, side="right") - 1, 0, len(centres) - 2)
        fraction = (wanted - centres[low]) / (centres[low + 1] - centres[low])
        weights = np.zeros((len(wanted), len(centres)))
        rows = np.arange(len(wanted))
        weights[rows, low], weights[rows, low + 1] = 1 - fraction, fraction
    return weights @ np.asarray(rates, dtype=np.float64), weights @ np.asarray(cov) @ weights.T


def produce(
    mass: float, total: float, sampler: Sampler, in_domain: InDomain, *, n: int, rng: np.random.Generator
) -> Sample:
    """Return a weighted sample of dark particles at one mass and unit coupling.

    Parameters
    ----------
    mass : float [GeV]
    total : float
        Rate per proton on target and ε²: the sum of the weights.
    sampler : Sampler
        p(pt, energy | mass).
    in_domain : callable
        (mass, pt, energy) -> True where lepton pairs were measured.
    n : int
    rng : numpy.random.Generator

    Returns
    -------
    Sample
        Azimuthally symmetric about the beam; its origin is the centre of production, zero. A detector's
        own file says where its target stands.

    Raises
    ------
    PhysicsError
        If the mass lies outside the sampler, the rate is not a non-negative number, or the sampler leaves
        the physical region.
    """
    if not (np.isfinite(total) and total >= 0):
        msg = f"rate {total!r} at {mass:g} GeV must not be negative: merge mass bins before predicting"
        raise PhysicsError(msg)
    low, high = sampler.mass_range
    if n < 1 or not low <= mass <= high:
        msg = f"{n} particles of mass {mass:g} GeV asked of a sampler for {low:g} to {high:g} GeV"
        raise PhysicsError(msg)
    masses = np.full(n, mass)
    pt, energy = sampler.sample(masses, rng)
    pz2 = energy**2 - mass**2 - pt**2
    if (pz2 < -1e-9 * energy**2).any() or not np.isfinite(pz2).all():
        msg = f"the sampler returned energies below the transverse mass at {mass:g} GeV"
        raise PhysicsError(msg)
    phi = rng.uniform(-np.pi, np.pi, n)
    p4 = vector.array(
        {"px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": np.sqrt(np.clip(pz2, 0.0, None)), "E": energy}
    )
    inside = np.asarray(in_domain(masses, pt, energy), dtype=np.bool_)
    return Sample(p4, np.full(n, total / n), np.zeros((n, 3)), inside)


@dataclass(frozen=True, slots=True, eq=False)
class VirtualPhoton(Channel):
    """The data-driven channel; it already holds every process that makes single virtual photons.

    Attributes
    ----------
    mass_centres : NDArray, shape (n,) [GeV]
    rates, cov : NDArray, shapes (n,), (n, n)
        As returned by `rate`.
    sampler : Sampler
    in_domain : callable
    replica_weights : callable, optional
        Replicas of the sampler, e.g. ``flow.FlowVariations.weights``; see `ReplicaWeights`.
    """

    mass_centres: FloatArray
    rates: FloatArray
    cov: FloatArray
    sampler: Sampler
    in_domain: InDomain
    replica_weights: ReplicaWeights | None = None
    group: ClassVar[str] = "virtual_photon"
    processes: ClassVar[frozenset[str]] = frozenset(
        {"pseudoscalar_dalitz", "vector_dalitz", "vector_mesons", "bremsstrahlung", "drell_yan"}
    )

    @property
    def mass_range(self) -> tuple[float, float]:
        """First and last measured mass [GeV]; below and above, other channels may hold the same processes."""
        return float(self.mass_centres[0]), float(self.mass_centres[-1])

    def rate(self, mass: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the interpolated rate per proton on target and ε², and its covariance."""
        return interpolate_rate(mass, self.mass_centres, self.rates, self.cov)

    def produce(self, mass: float, *, n: int, rng: np.random.Generator) -> Sample:
        """Return `n` dark photons; the weights sum to the rate at this mass."""
        value, _ = self.rate([mass])
        return produce(mass, float(value[0]), self.sampler, self.in_domain, n=n, rng=rng)

    def describe(self) -> str:
        """Return what the channel is, to be printed beside the numbers."""
        low, high = self.mass_range
        return f"virtual photons measured as lepton pairs, {low:.4g} to {high:.4g} GeV (Eq. 6)"

    def replicas(self, mass: float, sample: Sample) -> FloatArray | None:
        """Return the density of each replica over that of the sampler, shape (k, n), or None."""
        if self.replica_weights is None:
            return None
        pt, energy = (np.asarray(c, dtype=np.float64) for c in (sample.p4.pt, sample.p4.E))
        return self.replica_weights(np.full(len(pt), mass), pt, energy)
