"""Millicharged pairs: their rate from measured dileptons or from any channel, and three ways to sample them.

The ways of Allison and Blinov (2025), III.C.2, for pairs from measured dileptons:

- `conditional`: masses from the dilepton spectrum times Eq. 8, kinematics from p(qT, E | m); the default;
- `by_rejection`: one joint generator of (m, qT, E) for all m_χ, and rejection on the mass;
- `from_generator`: a generator of its own for each m_χ, trained on pairs already weighted with Eq. 8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import BoolArray, FloatArray
from gammastar.core.sampling import Sampler
from gammastar.physics.millicharge import bin_factors, pair_factor
from gammastar.predict.channels.virtual_photon import InDomain

__all__ = [
    "Joint",
    "PairCloud",
    "VirtualPhotons",
    "by_rejection",
    "chi_rate",
    "conditional",
    "from_generator",
]

Joint: TypeAlias = Callable[[int, np.random.Generator], tuple[FloatArray, FloatArray, FloatArray]]
"""(n, rng) -> mass, pt, energy [GeV], each (n,), distributed as the measured lepton pairs."""


@dataclass(frozen=True, slots=True, eq=False)
class VirtualPhotons:
    """Virtual photons on their way to χχ̄.

    Attributes
    ----------
    mass, pt, energy : NDArray, shape (n,) [GeV]
    weight : NDArray, shape (n,)
        The sum of weights is the number of pairs per proton on target and Q².
    in_domain : NDArray of bool, shape (n,)
        True where lepton pairs of these kinematics were measured.
    parent : NDArray, shape (n, 4), or None
        As `Sample.parent`, in axes whose x is along the transverse momentum of the photon.
    """

    mass: FloatArray
    pt: FloatArray
    energy: FloatArray
    weight: FloatArray
    in_domain: BoolArray
    parent: FloatArray | None = None


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
        msg = f"chi_rate: pairs {values.shape} and cov {covariance.shape} do not fit {factors.shape[1]} bins"
        raise PhysicsError(msg)
    return factors @ values, factors @ covariance @ factors.T


def conditional(
    m_chi: float,
    edges: npt.ArrayLike,
    pairs: npt.ArrayLike,
    m_lepton: float,
    sampler: Sampler,
    in_domain: InDomain,
    *,
    n: int,
    rng: np.random.Generator,
) -> VirtualPhotons:
    """Sample virtual photons of χχ̄ from the mass spectrum and a conditional generator.

    Parameters
    ----------
    m_chi : float [GeV]
    edges, pairs : array_like, shapes (k + 1,), (k,)
        As `chi_rate`; bins that a subtraction left negative are not drawn, yet count in the sum.
    m_lepton : float [GeV]
    sampler : Sampler
        p(pt, energy | mass); masses outside its range take its nearest mass.
    in_domain : callable
    n : int
    rng : numpy.random.Generator

    Raises
    ------
    PhysicsError
        If the spectrum holds no pair above 2 m_chi.
    """
    edges, values = np.asarray(edges, dtype=np.float64), np.asarray(pairs, dtype=np.float64)
    content = bin_factors(edges, m_chi, m_lepton)[0] * values
    positive, total = np.clip(content, 0.0, None), float(content.sum())
    if not total > 0:
        msg = f"conditional: no virtual photon above 2 m_chi = {2 * m_chi:g} GeV in the measured spectrum"
        raise PhysicsError(msg)
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
    return _photons(mass, pt, energy, weight * (total / weight.sum()), in_domain)


def by_rejection(
    m_chi: float,
    total: float,
    m_lepton: float,
    joint: Joint,
    in_domain: InDomain,
    *,
    n: int,
    rng: np.random.Generator,
    cap: float = 3.0,
) -> VirtualPhotons:
    """Sample from one joint generator for all m_χ; what Eq. 8 forbids is rejected.

    Parameters
    ----------
    m_chi : float [GeV]
    total : float
        Rate of `chi_rate`: the sum of the weights.
    m_lepton : float [GeV]
    joint : callable
        (n, rng) -> (mass, pt, energy) as the lepton pairs are distributed.
    in_domain : callable
    n : int
        Draws before rejection.
    rng : numpy.random.Generator
    cap : float
        Eq. 8 grows without bound at the threshold of the leptons; draws above keep the excess as weight.

    Raises
    ------
    PhysicsError
        If nothing is left.
    """
    mass, pt, energy = joint(n, rng)
    above = mass > 2 * m_lepton * (1 + 1e-12)
    factor = np.where(above, pair_factor(np.where(above, mass, 3 * m_lepton), m_chi, m_lepton), 0.0)
    keep = rng.uniform(size=n) * cap < factor
    if not keep.any():
        msg = f"by_rejection: none of {n} pairs lies above 2 m_chi = {2 * m_chi:g} GeV; draw more"
        raise PhysicsError(msg)
    weight = np.maximum(factor[keep] / cap, 1.0)
    return _photons(mass[keep], pt[keep], energy[keep], weight * (total / weight.sum()), in_domain)


def from_generator(
    total: float, generator: Joint, in_domain: InDomain, *, n: int, rng: np.random.Generator
) -> VirtualPhotons:
    """Sample from a generator made for one m_χ: all weights are equal; arguments as `by_rejection`."""
    mass, pt, energy = generator(n, rng)
    return _photons(mass, pt, energy, np.full(n, total / n), in_domain)


@dataclass(frozen=True, slots=True, eq=False)
class PairCloud:
    """Measured pairs themselves as a joint generator: drawn again with their weights.

    The flow's twin without a network: an unconditional flow of (m, qT, E) may stand in its place.

    Attributes
    ----------
    mass, pt, energy, weight : NDArray, shape (n,)
        Pairs with signed weights; a pair whose weight is not positive is not drawn.
    """

    mass: FloatArray
    pt: FloatArray
    energy: FloatArray
    weight: FloatArray

    def weighted_for(self, m_chi: float, m_lepton: float) -> PairCloud:
        """Return the pairs above 2 m_χ with weights times Eq. 8: the training set of one m_χ."""
        keep = self.mass > 2 * max(m_chi, m_lepton) * (1 + 1e-12)
        if not keep.any():
            msg = f"no measured pair above 2 m_chi = {2 * m_chi:g} GeV"
            raise PhysicsError(msg)
        factor = pair_factor(self.mass[keep], m_chi, m_lepton)
        return PairCloud(self.mass[keep], self.pt[keep], self.energy[keep], self.weight[keep] * factor)

    def __call__(self, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return (mass, pt, energy) of `n` pairs."""
        p = np.clip(self.weight, 0.0, None)
        if not p.sum() > 0:
            msg = "no pair of positive weight to draw from"
            raise PhysicsError(msg)
        index = rng.choice(len(p), size=n, p=p / p.sum())
        return self.mass[index], self.pt[index], self.energy[index]


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A joint generator from a trained sampler: masses of the pairs it was trained on, kinematics from it.

    Attributes
    ----------
    sampler : Sampler
        Trained on the pairs of `cloud`, for one m_χ with the weights of `PairCloud.weighted_for`.
    cloud : PairCloud
    """

    sampler: Sampler
    cloud: PairCloud

    def __call__(self, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return (mass, pt, energy) of `n` virtual photons."""
        mass, _, _ = self.cloud(n, rng)
        pt, energy = self.sampler.sample(np.clip(mass, *self.sampler.mass_range), rng)
        return mass, pt, np.maximum(energy, np.sqrt(mass**2 + pt**2))


def _photons(
    mass: FloatArray, pt: FloatArray, energy: FloatArray, weight: FloatArray, in_domain: InDomain
) -> VirtualPhotons:
    inside = np.asarray(in_domain(mass, pt, energy), dtype=np.bool_)
    return VirtualPhotons(mass, pt, energy, weight, inside)
