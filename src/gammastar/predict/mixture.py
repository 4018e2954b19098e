"""Several exclusive channels as one, and channels whose particle couples otherwise than a dark photon."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import FloatArray, Momenta, Sample
from gammastar.physics.bremsstrahlung import TITLES
from gammastar.physics.mesons import Decay
from gammastar.physics.vectors import Charges, Process
from gammastar.predict.channel import Channel, Importance, check_exclusive
from gammastar.predict.channels.theory import Bremsstrahlung, MesonChannel

_PROCESSES: dict[tuple[str, str, int | None], Process] = {
    ("pseudoscalar_dalitz", "pi0", None): "pion_dalitz",
    ("pseudoscalar_dalitz", "eta", None): "eta_dalitz",
    ("pseudoscalar_dalitz", "eta_prime", None): "eta_prime_dalitz",
    ("vector_dalitz", "omega", 111): "omega_dalitz",
    ("vector_dalitz", "omega", 221): "omega_eta_dalitz",
    ("vector_dalitz", "rho", 111): "rho_dalitz",
    ("vector_dalitz", "phi", 111): "phi_pi_dalitz",
    ("vector_dalitz", "phi", 221): "phi_dalitz",
    ("rho_mixing", "rho", None): "rho",
    ("vector_mixing", "omega", None): "omega",
    ("vector_mixing", "phi", None): "phi",
}


@dataclass(frozen=True, slots=True)
class Scaled(Channel):
    """A channel times a factor that depends on the mass alone."""

    channel: Channel
    factor: Callable[[FloatArray], FloatArray]  # Masses (n,) [GeV] -> factor (n,)
    group: ClassVar[str] = "scaled"
    processes: ClassVar[frozenset[str]] = frozenset({"scaled"})

    @property
    def mass_range(self) -> tuple[float, float]:
        """Masses that the channel covers [GeV]."""
        return _range(self.channel)

    def rate(self, mass: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return rate and covariance, scaled."""
        value, cov = self.channel.rate(mass)
        factor = self.factor(np.atleast_1d(np.asarray(mass, dtype=np.float64)))
        return value * factor, cov * np.outer(factor, factor)

    def envelope(self, mass: npt.ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the rate and its lower and upper edge, scaled."""
        m = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        central, low, high = (edge * self.factor(m) for edge in envelope(self.channel, m))
        return central, low, high

    def produce(self, mass: float, *, n: int, rng: np.random.Generator) -> Sample:
        """Return the sample of the channel with scaled weights."""
        sample = self.channel.produce(mass, n=n, rng=rng)
        return replace(sample, weight=sample.weight * float(self.factor(np.array([mass]))[0]))

    def focused(self, mass: float, *, n: int, rng: np.random.Generator, importance: Importance) -> Sample:
        """Return the sample of the channel with scaled weights."""
        sample = self.channel.focused(mass, n=n, rng=rng, importance=importance)
        return replace(sample, weight=sample.weight * float(self.factor(np.array([mass]))[0]))

    def replicas(self, mass: float, sample: Sample) -> FloatArray | None:
        """Return the replicas of the channel."""
        scale = float(self.factor(np.array([mass]))[0]) or 1.0
        return self.channel.replicas(mass, replace(sample, weight=sample.weight / scale))

    def band(self, mass: float, sample: Sample) -> FloatArray | None:
        """Return the band of the channel."""
        return self.channel.band(mass, sample)


@dataclass(frozen=True, slots=True)
class Mixture(Channel):
    """The sum of exclusive channels.

    Attributes
    ----------
    channels : tuple of Channel
        A channel with an attribute ``mass_range`` adds nothing outside it.
    exclusive : bool
        False if the parts were checked before they were split or scaled.
    even : float
        Share of the particles that is dealt evenly among the open channels, whatever their rates: a rare
        channel may make most of what a detector sees.

    Raises
    ------
    PhysicsError
        If there are no channels, or two of them contain the same process.
    """

    channels: tuple[Channel, ...]
    exclusive: bool = True
    even: float = 0.0
    group: ClassVar[str] = "mixture"
    processes: ClassVar[frozenset[str]] = frozenset({"mixture"})

    def __post_init__(self) -> None:
        require(self.channels, "Mixture: no production channel; name at least one")
        if self.exclusive:
            check_exclusive(self.channels)

    def by_channel(self, mass: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the rate of each channel and its covariance, shapes (c, n) and (c, n, n)."""
        m = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        rates, covs = np.zeros((len(self.channels), len(m))), np.zeros((len(self.channels), len(m), len(m)))
        for i, channel in enumerate(self.channels):
            low, high = _range(channel)
            inside = np.flatnonzero((m >= low) & (m <= high))
            if inside.size:
                rates[i, inside], covs[i][np.ix_(inside, inside)] = _rate(channel, m[inside])
        return rates, covs

    def rate(self, mass: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the summed rate and covariance; the channels' errors count as independent."""
        rates, covs = self.by_channel(mass)
        return rates.sum(axis=0), covs.sum(axis=0)

    def envelope(self, mass: npt.ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the summed rate and its lower and upper edge, each of shape (n,).

        Edges of bremsstrahlung are those of its band of Λ, which is not symmetric; the channels' distances to
        their edges are added in quadrature.
        """
        m = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        total, down, up = np.zeros(len(m)), np.zeros(len(m)), np.zeros(len(m))
        for channel in self.channels:
            low, high = _range(channel)
            inside = np.flatnonzero((m >= low) & (m <= high))
            if inside.size:
                central, lower, upper = envelope(channel, m[inside])
                total[inside] += central
                down[inside] += (central - lower) ** 2
                up[inside] += (upper - central) ** 2
        return total, np.clip(total - np.sqrt(down), 0.0, None), total + np.sqrt(up)

    def members(self, mass: float, n: int) -> npt.NDArray[np.int64]:
        """Return which channel makes each of the `n` particles of `produce`, shape (n,)."""
        return np.repeat(np.arange(len(self.channels)), self._shared(mass, n)[0])

    def _shared(self, mass: float, n: int) -> tuple[npt.NDArray[np.int64], FloatArray]:
        rates = self.by_channel([mass])[0][:, 0]
        total = float(rates.sum())
        if not total > 0 or n < np.count_nonzero(rates):
            raise PhysicsError(f"{n} particles of {mass:g} GeV from {len(rates)} channels of rate {total:g}")
        open_ = rates > 0
        dealt = self.even * open_ / open_.sum() + (1.0 - self.even) * rates / total
        counts = np.where(open_, np.maximum(np.rint(n * dealt), 1), 0).astype(np.int64)
        counts[np.argmax(counts)] += n - counts.sum()
        return counts, rates

    def produce(self, mass: float, *, n: int, rng: np.random.Generator) -> Sample:
        """Return `n` particles, shared among the channels by their rates, one channel after the other."""
        rows = zip(self.channels, *self._shared(mass, n), strict=True)
        return joined([_made(c, mass, int(count), float(rate), rng) for c, count, rate in rows if count])

    def focused(self, mass: float, *, n: int, rng: np.random.Generator, importance: Importance) -> Sample:
        """Return `n` particles, shared among the channels as in `produce`."""
        counts, _ = self._shared(mass, n)
        rows = zip(self.channels, counts.tolist(), strict=True)
        return joined([c.focused(mass, n=k, rng=rng, importance=importance) for c, k in rows if k])

    def replicas(
        self, mass: float, sample: Sample, members: npt.NDArray[np.int64] | None = None
    ) -> FloatArray | None:
        """Return the replicas of the channels that have some; the others weigh one.

        `members` says which channel made each particle, by default those of a whole sample.
        """
        own = self.members(mass, len(sample.weight)) if members is None else members
        rows_of = [
            (own == i, channel.replicas(mass, sample.part(own == i)))
            for i, channel in enumerate(self.channels)
            if (own == i).any()
        ]
        sizes = {len(rows) for _, rows in rows_of if rows is not None}
        if not sizes:
            return None
        if len(sizes) > 1:
            raise PhysicsError(f"Mixture: channels with {sorted(sizes)} replicas; give all the same number")
        result = np.ones((sizes.pop(), len(own)))
        for chosen, rows in rows_of:
            if rows is not None:
                result[:, chosen] = rows
        return result


def envelope(channel: Channel, mass: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the rate of a channel with its lower and upper edge: its own, or one standard deviation."""
    if isinstance(channel, Bremsstrahlung | Mixture | Scaled):
        return channel.envelope(mass)
    rate, cov = channel.rate(mass)
    sigma = np.sqrt(np.clip(np.diag(cov), 0.0, None))
    return rate, np.clip(rate - sigma, 0.0, None), rate + sigma


def describe(channel: Channel) -> str:
    """Return what a channel says of its conventions, or its group."""
    return str(channel.describe()) if hasattr(channel, "describe") else channel.group


def joined(samples: Sequence[Sample]) -> Sample:
    """Return several samples as one."""
    components = [
        np.concatenate([np.asarray(getattr(s.p4, name), dtype=np.float64) for s in samples])
        for name in ("px", "py", "pz", "E")
    ]
    parents = [np.full((len(s.weight), 4), np.nan) if s.parent is None else s.parent for s in samples]
    return Sample(
        Momenta(*components),
        np.concatenate([s.weight for s in samples]),
        np.concatenate([s.origin for s in samples]),
        np.concatenate([s.in_domain for s in samples]),
        parent=None if all(s.parent is None for s in samples) else np.concatenate(parents),
    )


def _rate(channel: Channel, mass: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return rate and covariance of a channel, looked at: a wrong shape would spread in silence."""
    rate, cov = (np.asarray(x, dtype=np.float64) for x in channel.rate(mass))
    n = len(mass)
    if rate.shape != (n,) or cov.shape != (n, n):
        shapes = f"{rate.shape}, {cov.shape} for {n} masses"
        raise PhysicsError(f"channel {channel.group!r}: rate and covariance of shapes {shapes}")
    bad = ~(np.isfinite(rate) & (rate >= 0))
    if bad.any() or not np.isfinite(cov).all():
        where = f"{rate[bad][0]:g} at {mass[bad][0]:g} GeV" if bad.any() else "with a covariance"
        raise PhysicsError(f"channel {channel.group!r}: rate {where} must be finite and not negative")
    return rate, cov


def _made(channel: Channel, mass: float, n: int, rate: float, rng: np.random.Generator) -> Sample:
    sample = channel.produce(mass, n=n, rng=rng)
    total = float(np.sum(sample.weight))
    if not abs(total - rate) <= 1e-6 * rate:
        raise PhysicsError(
            f"channel {channel.group!r}: weights at {mass:g} GeV sum to {total:g}, but its rate is {rate:g}; "
            "produce must return weights that sum to the rate"
        )
    return sample


def _range(channel: Channel) -> tuple[float, float]:
    found: tuple[float, float] = getattr(channel, "mass_range", (0.0, np.inf))
    return found


def process_of(decay: Decay) -> Process:
    """Return the process that a decay of a meson belongs to."""
    key = (decay.kind, decay.parent, decay.daughter)
    require(key in _PROCESSES, f"{decay.kind} of {decay.parent!r}: its ratio for another vector is not known")
    return _PROCESSES[key]


def single_decays(channels: Sequence[Channel]) -> list[tuple[Process, Channel]]:
    """Return bremsstrahlung and every single decay of the meson channels with their processes."""
    decays: list[tuple[Process, Channel]] = []
    for channel in channels:
        if isinstance(channel, Bremsstrahlung):
            decays.append(("bremsstrahlung", channel))
        elif isinstance(channel, MesonChannel):
            for decay in channel.decays:
                table = replace(channel.table, decays=(decay,))
                decays.append((process_of(decay), replace(channel, table=table)))
        else:
            raise PhysicsError(f"channel {channel.group!r}: another vector needs its process")
    return decays


def shares_of(channels: Sequence[Channel], mass: npt.ArrayLike) -> dict[Process, FloatArray]:
    """Return the share of each process in the virtual photons, as theory channels divide them."""
    m = np.atleast_1d(np.asarray(mass, dtype=np.float64))
    rates: dict[Process, FloatArray] = {}
    for process, channel in single_decays(channels):
        rates[process] = rates.get(process, np.zeros(len(m))) + channel.rate(m)[0]
    total = np.sum(list(rates.values()), axis=0)
    if not (total > 0).all():
        raise PhysicsError(f"shares of processes: no channel is open at {m[total <= 0][0]:g} GeV")
    return {process: rate / total for process, rate in rates.items()}


def recoupled_channels(channels: Sequence[Channel], charges: Charges) -> Mixture:
    """Return theory channels of dark photons as channels of another vector per g², decay by decay."""
    check_exclusive(channels)
    if charges.loop_mixing:
        ratio = _ratio(charges, "bremsstrahlung")
        return Mixture(tuple(Scaled(channel, ratio) for channel in channels), exclusive=False)
    parts = tuple(Scaled(channel, _ratio(charges, process)) for process, channel in single_decays(channels))
    return Mixture(parts, exclusive=False)


def _ratio(charges: Charges, process: Process) -> Callable[[FloatArray], FloatArray]:
    return lambda m: charges.production_ratio(process, m)


def beside_data(channels: Sequence[Channel], mass: FloatArray) -> dict[str, FloatArray]:
    """Return what theory says beside measured photons: low, central and high rate, shape (n, 3)."""
    brem, decays = channels[0], Mixture(tuple(channels[1:]))
    if not isinstance(brem, Bremsstrahlung):
        return {}
    known = mass <= brem.kernel.largest_mass(brem.beam_energy)
    band = np.full((len(mass), 3), np.nan)
    if known.any():
        central, low, high = brem.envelope(mass[known])
        band[known] = np.stack([low, central, high], axis=1)
    rate, cov = decays.rate(mass)
    sigma = np.sqrt(np.diag(cov))
    return {
        f"p bremsstrahlung, {TITLES.get(brem.kernel.name, brem.kernel.name)}": band,
        "meson decays, illustrative": np.stack([np.clip(rate - sigma, 0, None), rate, rate + sigma], axis=1),
    }
