"""Production channels: what they are, which exclude each other, and that of measured lepton pairs (Eq. 6)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
from typing import ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import M_MU, M_PI0
from gammastar.core.constants import mass as mass_of
from gammastar.core.errors import PhysicsError
from gammastar.core.records import BoolArray, FloatArray, Momenta, Rng, Sample, divided
from gammastar.core.sampling import Sampler, Transport, at_mass
from gammastar.physics.mesons import Unit
from gammastar.physics.qed import dark_photon_rate, kappa

Importance: TypeAlias = Callable[[Sample], FloatArray]
"""Sample of n particles -> how much each of them, per unit weight, adds to some sums that count, (k, n)."""

_ETA, _ETA_PRIME, _OMEGA, _PHI, _JPSI = (mass_of(pdg) for pdg in (221, 331, 223, 333, 443))
_EVERY = (0.0, float("inf"))

MASSES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "pion_dalitz": (0.0, M_PI0),
        "pseudoscalar_dalitz": (0.0, _ETA_PRIME),
        "vector_dalitz": (0.0, max(_OMEGA, _PHI) - M_PI0),
        "vector_mesons": _EVERY,
        "bremsstrahlung": _EVERY,
        "drell_yan": _EVERY,
        "jpsi": (_JPSI, _JPSI),
    }
)
"""Masses of the virtual photon at which a process is open [GeV]."""

FORWARD = frozenset({"bremsstrahlung"})
"""Processes at angles that no spectrometer beside the beam sees, and no simulation of hadrons holds."""


def held(mass_range: tuple[float, float]) -> frozenset[str]:
    """Return the processes that a spectrum of lepton pairs holds."""
    low, high = mass_range
    inside = {name for name, (first, last) in MASSES.items() if first < high and low < last}
    return frozenset(inside | {outside(name) for name in inside - FORWARD})


def outside(process: str) -> str:
    """Return the name of the part of a process that lies outside the measured domain."""
    return f"{process} outside the measured domain"


class Channel(ABC):
    """A way to make dark particles at unit coupling.

    Attributes
    ----------
    group : str
        Name of the channel's kind; two channels of one group never add up.
    processes : frozenset of str
        What the channel contains, e.g. ``{"pseudoscalar_dalitz", "bremsstrahlung"}``.
    """

    @property
    def group(self) -> str:
        """Name of the kind; a class attribute will do."""
        raise AttributeError(f"{type(self).__name__} needs group, the name of its kind")

    @property
    def processes(self) -> frozenset[str]:
        """What the channel contains; a class attribute will do."""
        raise AttributeError(f"{type(self).__name__} needs processes, a frozenset of names")

    @abstractmethod
    def rate(self, mass: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the rate (n,) per proton on target and unit coupling, and its covariance (n, n)."""

    @abstractmethod
    def produce(self, mass: float, *, n: int, rng: Rng) -> Sample:
        """Return `n` weighted particles whose weights sum to the rate at this mass.

        They are symmetric about the beam: a detector beside it sees them turned into its azimuths.
        """

    def focused(
        self,
        mass: float,
        *,
        n: int,
        rng: Rng,
        importance: Importance,  # noqa: ARG002
    ) -> Sample:
        """Return `n` weighted particles, more of them where they count; by default those of `produce`.

        Weighted sums are those of `produce` on average, and so is the sum of the weights.
        """
        return self.produce(mass, n=n, rng=rng)

    def replicas(self, mass: float, sample: Sample) -> FloatArray | None:  # noqa: ARG002
        """Return what replicas of the kinematics would weigh the particles of a sample, or some of them.

        Density of each replica over that of the sample, shape (k, n); None if the channel has no replicas.
        """
        return None

    def band(self, mass: float, sample: Sample) -> FloatArray | None:
        """Return what the edges of the theory would weigh the particles of `produce`, one sigma each way.

        Lower and upper edge over the centre, shape (2, n); by default the error of the rate, for every
        particle the same. None where the errors are not those of a theory.
        """
        value, cov = self.rate([mass])
        relative = np.sqrt(max(float(cov[0, 0]), 0.0)) / float(value[0]) if value[0] > 0 else 0.0
        ends = np.array([max(0.0, 1.0 - relative), 1.0 + relative])
        return np.repeat(ends[:, None], len(sample.weight), axis=1)


def check_exclusive(channels: Sequence[Channel]) -> None:
    """Check that no process is in two channels.

    Raises
    ------
    PhysicsError
        If two channels share their group or a process: their sum would count it twice.

    Notes
    -----
    A channel may bound the masses it covers with an attribute ``mass_range`` (low, high) [GeV]; channels that
    cover disjoint masses may share a process, as η Dalitz decays below and above the dimuon threshold.
    """
    for first, second in combinations(channels, 2):
        a, b = (getattr(channel, "mass_range", (0.0, np.inf)) for channel in (first, second))
        if a[1] <= b[0] or b[1] <= a[0]:
            continue
        shared = first.processes & second.processes
        if first.group == second.group or shared:
            what = ", ".join(sorted(shared)) if shared else f"the group {first.group!r}"
            msg = f"channels {first.group!r} and {second.group!r} both contain {what}: remove one of them"
            if shared and shared <= FORWARD and "virtual_photon" in (first.group, second.group):
                msg += ", or count it outside the measured domain only, under [predict] outside_domain"
            raise PhysicsError(msg)


def sample_at_origin(p: FloatArray, weight: FloatArray, parent: FloatArray | None = None) -> Sample:
    """Return particles of momenta (4, n) made at the origin, where no pair was measured."""
    n = len(weight)
    return Sample(Momenta(*p), weight, np.zeros((n, 3)), np.zeros(n, dtype=np.bool_), parent=parent)


def unit_of(channels: Sequence[Channel]) -> Unit:
    """Return what the rates of channels count in: "proton", or "pb" for a detector with a luminosity."""
    units = {channel.group: getattr(channel, "unit", "proton") for channel in channels}
    if len(set(units.values())) > 1:
        text = ", ".join(f"{group!r} in {unit}" for group, unit in units.items())
        what = f"rates count per proton or as cross sections, not both: {text}"
        raise PhysicsError(f"{what}; give predict.sigma_inelastic to have all of them per interacting proton")
    return "pb" if "pb" in units.values() else "proton"


BROAD_SIGMAS = (1.0, 2.0, 3.5)  # of the pilot, in standard deviations: the last one sees the rarest energies
ROUNDS = 2
PILOT_SHARE, MIN_PILOT = 0.1, 1500  # share of the particles that each round takes, and how many at least
BROAD_SHARE = 0.1  # share of the particles that stay as they are, and of those of the pilot
COVARIANCE_FACTOR = 1.5  # than the fitted covariance: tails of a proposal must not be too thin
MAX_SIGMA = 7.0  # standard deviations; 5e-12 of the draws lie beyond, where single precision ends
MIN_EFFECTIVE = 8.0  # effective number of particles from which a shape is fitted


@dataclass(frozen=True, slots=True, eq=False)
class NormalMixture:
    """A mixture of normal densities in two dimensions."""

    share: FloatArray  # Sum to one, shape (c,)
    mean: FloatArray  # shape (c, 2)
    cov: FloatArray  # shape (c, 2, 2)

    def draw(self, n: int, rng: Rng) -> tuple[FloatArray, FloatArray]:
        """Return n points (n, 2) and their weights (n,): standard normal density over that of the mixture."""
        count = rng.multinomial(n, self.share)
        component = np.repeat(np.arange(len(count)), count)
        root = np.linalg.cholesky(self.cov)
        normal = rng.standard_normal((n, 2))
        point = self.mean[component] + np.sum(root[component] * normal[:, None, :], axis=2)
        weight = np.exp(-0.5 * np.sum(point**2, axis=1) - np.log(2 * np.pi) - self.log_density(point))
        inside = (np.abs(point) < MAX_SIGMA).all(axis=1)
        return np.clip(point, -MAX_SIGMA, MAX_SIGMA), np.where(inside, weight, 0.0)

    def log_density(self, point: FloatArray) -> FloatArray:
        """Return the logarithm of the density at points (n, 2), shape (n,)."""
        whitening = np.linalg.inv(np.linalg.cholesky(self.cov))  # lower triangular
        x, y = (point[:, k] - self.mean[:, k, None] for k in (0, 1))
        distance = np.square(whitening[:, 0, 0, None] * x)
        distance += np.square(whitening[:, 1, 0, None] * x + whitening[:, 1, 1, None] * y)
        norm = np.log(self.share) - np.log(2 * np.pi) - 0.5 * np.log(np.linalg.det(self.cov))
        logs = norm[:, None] - 0.5 * distance
        largest = logs.max(axis=0)
        return np.asarray(np.log(np.exp(logs - largest).sum(axis=0)) + largest)


def broad() -> NormalMixture:
    """Return the proposal of the pilot, which knows nothing."""
    n = len(BROAD_SIGMAS)
    cov = np.eye(2) * np.square(BROAD_SIGMAS)[:, None, None]
    return NormalMixture(np.full(n, 1 / n), np.zeros((n, 2)), cov)


def adapted(
    contribution: Callable[[FloatArray, FloatArray], FloatArray], n: int, rng: Rng
) -> tuple[FloatArray, FloatArray]:
    """Return normal numbers (n, 2) where they contribute, and their weights.

    Cross-entropy method, O. Cappé et al., Stat. Comput. 18 (2008) 447: a normal density per sum, two rounds.
    """
    proposal = broad()
    for _ in range(ROUNDS):
        point, weight = proposal.draw(max(int(PILOT_SHARE * n), min(MIN_PILOT, n)), rng)
        proposal = _fitted(point, contribution(point, weight) * weight)
    return proposal.draw(n, rng)


def _fitted(point: FloatArray, rows: FloatArray) -> NormalMixture:
    """Return one normal density per row of contributions (k, n), beside the broad ones."""
    start = broad()
    means, covs = [], []
    for row in rows:
        total, square = row.sum(), (row**2).sum()
        if not total**2 >= MIN_EFFECTIVE * square > 0:
            continue
        mean = row @ point / total
        offset = point - mean
        spread = np.einsum("n,ni,nj->ij", row / total, offset, offset)
        covs.append(COVARIANCE_FACTOR * spread + 0.02 * np.eye(2))
        means.append(mean)
    if not means:
        return start
    broadest = np.full(len(BROAD_SIGMAS) - 1, BROAD_SHARE / 2)
    own = np.full(len(means), (1 - 2 * BROAD_SHARE) / len(means))
    share = np.concatenate([[BROAD_SHARE], broadest, own])
    return NormalMixture(share, np.concatenate([start.mean, means]), np.concatenate([start.cov, covs]))


ABOVE_THRESHOLD = 5e-4  # GeV above the threshold of the leptons, where Eq. 6 divides by zero
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)

InDomain: TypeAlias = Callable[[FloatArray, FloatArray, FloatArray], BoolArray]
"""(mass, pt, energy), each (n,) [GeV] -> True where lepton pairs were measured."""


class ReplicaWeights(Protocol):
    """Replicas of a sampler, as ``flow.FlowVariations.weights``."""

    def __call__(
        self, mass: FloatArray, pt: FloatArray, energy: FloatArray, share: FloatArray | None = None
    ) -> FloatArray:
        """Return the density of each replica over the sampler's, (k, n); `share` of each particle."""


class MassDensity(Protocol):
    """dN/dm of virtual photons as a function of exact mass, e.g. `spectrum.MassShape`."""

    @property
    def edges(self) -> FloatArray:
        """Edges of the measured bins [GeV]."""

    def density(self, mass: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return dN/dm [1/GeV] and its covariance at masses (n,) [GeV]."""

    def shifted(self, mass: npt.ArrayLike, relative: npt.ArrayLike) -> FloatArray:
        """Return by how much dN/dm moves when the contents of the bins move by relative shifts."""

    def binned(self, edges: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the contents of other bins of mass [GeV] and their covariance."""


def rate(
    mass_centres: npt.ArrayLike,
    dn_dm: npt.ArrayLike,
    cov: npt.ArrayLike,
    m_lepton: float,
    *,
    edges: npt.ArrayLike | None = None,
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
    edges : array_like, shape (n + 1,), optional
        Of bins of which `dn_dm` is the mean [GeV]. The factor is then that of an even rate across the bin,
        width/∫ 2κ(m)/m dm: at the threshold κ bends inside a bin. Bins that lie below it give nan.

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
        shapes = f"masses {mass.shape}, dn_dm {density.shape}, cov {covariance.shape}"
        raise PhysicsError(f"rate: {shapes} do not fit")
    factor = _factors(mass, m_lepton) if edges is None else _bin_factors(edges, mass, m_lepton)
    return factor * density, covariance * np.outer(factor, factor)


def _factors(mass: FloatArray, m_lepton: float) -> FloatArray:
    return np.asarray(dark_photon_rate(np.ones_like(mass), mass, m_lepton))


def _bin_factors(edges: npt.ArrayLike, centres: FloatArray, m_lepton: float) -> FloatArray:
    bounds = np.asarray(edges, dtype=np.float64)
    if bounds.shape != (len(centres) + 1,) or not ((bounds[:-1] < centres) & (centres < bounds[1:])).all():
        raise PhysicsError(f"rate: edges {bounds.shape} are not those of bins around {centres.shape} masses")
    half, middle = 0.5 * np.diff(bounds), 0.5 * (bounds[1:] + bounds[:-1])
    m = middle[:, None] + half[:, None] * _NODES
    pairs = np.where(m > 2 * m_lepton, 2 * kappa(np.maximum(m, 2 * m_lepton), m_lepton) / m, 0.0)
    mean = pairs @ _WEIGHTS
    return divided(2.0, mean, np.nan)


def interpolate_rate(
    mass: npt.ArrayLike, mass_centres: npt.ArrayLike, rates: npt.ArrayLike, cov: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Return the rate and its covariance between the measured masses, linearly."""
    wanted = np.atleast_1d(np.asarray(mass, dtype=np.float64))
    centres = np.asarray(mass_centres, dtype=np.float64)
    outside = ~((wanted >= centres[0]) & (wanted <= centres[-1]))
    if outside.any():
        ends = f"the measured centres {centres[0]:g} to {centres[-1]:g} GeV"
        raise PhysicsError(f"mass {wanted[outside][0]:g} GeV lies outside {ends}, see [predict]")
    if len(centres) == 1:
        weights = np.ones((len(wanted), 1))
    else:
        low = np.clip(np.searchsorted(centres, wanted, side="right") - 1, 0, len(centres) - 2)
        fraction = (wanted - centres[low]) / (centres[low + 1] - centres[low])
        weights = np.zeros((len(wanted), len(centres)))
        rows = np.arange(len(wanted))
        weights[rows, low], weights[rows, low + 1] = 1 - fraction, fraction
    return weights @ np.asarray(rates, dtype=np.float64), weights @ np.asarray(cov) @ weights.T


def produce(mass: float, total: float, sampler: Sampler, in_domain: InDomain, *, n: int, rng: Rng) -> Sample:
    """Return a weighted sample of dark particles at one mass and unit coupling."""
    _check(mass, total, sampler, n)
    if isinstance(sampler, Transport):
        drawn = at_mass(sampler, mass)(rng.standard_normal((n, 2)))
    else:
        drawn = sampler.sample(np.full(n, mass), rng)
    return _sample(mass, drawn, np.full(n, total / n), in_domain, rng)


def _check(mass: float, total: float, sampler: Sampler, n: int) -> None:
    if not (np.isfinite(total) and total >= 0):
        raise PhysicsError(f"rate {total!r} at {mass:g} GeV must not be negative: merge mass bins")
    low, high = sampler.mass_range
    if n < 1 or not low <= mass <= high:
        raise PhysicsError(
            f"[predict]: {n} particles of mass {mass:g} GeV: kinematics are known from {low:g} to {high:g} "
            "GeV; take masses there, or fewer and wider bins of mass"
        )


def _sample(
    mass: float, drawn: tuple[FloatArray, FloatArray], weight: FloatArray, in_domain: InDomain, rng: Rng
) -> Sample:
    """Return the sample of pt and energy at random azimuths."""
    (pt, energy), n = drawn, len(weight)
    pz2 = energy**2 - mass**2 - pt**2
    if (pz2 < -1e-9 * energy**2).any() or not np.isfinite(pz2).all():
        raise PhysicsError(f"the sampler returned energies below the transverse mass at {mass:g} GeV")
    phi = rng.uniform(-np.pi, np.pi, n)
    p4 = Momenta(pt * np.cos(phi), pt * np.sin(phi), np.sqrt(np.clip(pz2, 0.0, None)), energy)
    inside = np.asarray(in_domain(np.full(n, mass), pt, energy), dtype=np.bool_)
    return Sample(p4, weight, np.zeros((n, 3)), inside)


@dataclass(frozen=True, slots=True, eq=False)
class VirtualPhoton(Channel):
    """The data-driven channel; it already holds every process that makes virtual photons of its masses."""

    mass_centres: FloatArray  # shape (n,) [GeV]
    # As returned by `rate`, shapes (n,), (n, n)
    rates: FloatArray
    cov: FloatArray
    sampler: Sampler
    in_domain: InDomain
    replica_weights: ReplicaWeights | None = None  # Of the sampler, e.g. ``flow.FlowVariations.weights``
    # The spectrum at exact masses; without it the rate is straight between `mass_centres`, which is wrong
    # beside a line that is narrower than the bins
    shape: MassDensity | None = None
    m_lepton: float = M_MU  # Of the measured pairs [GeV]
    near: Callable[[float], float] | None = None  # Mass [GeV] -> effective number of pairs behind it
    group: ClassVar[str] = "virtual_photon"

    @property
    def processes(self) -> frozenset[str]:
        """What makes single virtual photons of the measured masses."""
        return held(self.mass_range)

    def band(self, mass: float, sample: Sample) -> FloatArray | None:  # noqa: ARG002
        """Return None: the errors are those of a measurement."""
        return None

    @property
    def _open(self) -> BoolArray:
        """Which bins reach above the threshold of the leptons."""
        return np.isfinite(self.rates)

    @property
    def mass_range(self) -> tuple[float, float]:
        """First and last measured mass [GeV]; below and above, other channels may hold the same processes."""
        if self.shape is None:
            centres = self.mass_centres[self._open]
            return float(centres[0]), float(centres[-1])
        low, high = float(self.shape.edges[0]), float(self.shape.edges[-1])
        least, most = self.sampler.mass_range
        return max(low, least, 2 * self.m_lepton + ABOVE_THRESHOLD), min(high, most)

    def rate(self, mass: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the rate per proton on target and ε², and its covariance."""
        if self.shape is None:
            use = self._open
            return interpolate_rate(mass, self.mass_centres[use], self.rates[use], self.cov[np.ix_(use, use)])
        wanted = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        return rate(wanted, *self.shape.density(wanted), self.m_lepton)

    def moved(self, mass: npt.ArrayLike, relative: FloatArray) -> FloatArray:
        """Return by how much the rate moves when the mass bins move by relative shifts, shape of `mass`."""
        wanted = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        if self.shape is None:
            use = self._open
            return np.asarray(np.interp(wanted, self.mass_centres[use], (self.rates * relative)[use]))
        return _factors(wanted, self.m_lepton) * self.shape.shifted(wanted, relative)

    def produce(self, mass: float, *, n: int, rng: Rng) -> Sample:
        """Return `n` dark photons; the weights sum to the rate at this mass."""
        value, _ = self.rate([mass])
        return produce(mass, float(value[0]), self.sampler, self.in_domain, n=n, rng=rng)

    def focused(self, mass: float, *, n: int, rng: Rng, importance: Importance) -> Sample:
        """Return `n` dark photons, drawn from the flow where they count.

        A sampler that is no map of normal numbers, as a histogram, draws as in `produce`.
        """
        sampler, total = self.sampler, float(self.rate([mass])[0][0])
        if not isinstance(sampler, Transport):
            return produce(mass, total, sampler, self.in_domain, n=n, rng=rng)
        _check(mass, total, self.sampler, n)
        transform = at_mass(sampler, mass)

        def drawn(point: FloatArray, weight: FloatArray) -> Sample:
            return _sample(mass, transform(point), weight * total / len(point), self.in_domain, rng)

        point, weight = adapted(lambda z, w: importance(drawn(z, w)), n, rng)
        return drawn(point, weight)

    def describe(self) -> str:
        """Return what the channel is, to be printed beside the numbers."""
        low, high = self.mass_range
        how = "averaged over bins of mass" if self.shape is None else "continuum and natural lines"
        return f"virtual photons measured as lepton pairs, {low:.4g} to {high:.4g} GeV, {how} (Eq. 6)"

    def replicas(self, mass: float, sample: Sample) -> FloatArray | None:
        """Return the density of each replica over that of the sampler, shape (k, n), or None."""
        if self.replica_weights is None:
            return None
        pt, energy = (np.asarray(c, dtype=np.float64) for c in (sample.p4.pt, sample.p4.E))
        total = float(self.rate([mass])[0][0])
        share = sample.weight / total if total > 0 else np.full(len(pt), 1.0 / max(1, len(pt)))
        return self.replica_weights(np.full(len(pt), mass), pt, energy, share)
