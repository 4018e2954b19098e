"""Several exclusive channels as one, and channels whose particle couples otherwise than a dark photon."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import BoolArray, FloatArray, IntArray, Momenta, Rng, Sample
from gammastar.physics.bremsstrahlung import TITLES
from gammastar.physics.detector import Target
from gammastar.physics.mesons import Decay
from gammastar.physics.vectors import Charges, Process
from gammastar.predict.channel import Channel, Importance, check_exclusive
from gammastar.predict.theory import Bremsstrahlung, MesonChannel

OMITTED = (
    "first inelastic interaction of each proton only; secondary cascades, which would add soft particles, "
    "and the energy loss of the beam are omitted"
)


def in_depth(sample: Sample, thickness: float, length: float, rng: Rng) -> Sample:
    """Return the sample with exponential depths of first interactions in a thick target; see `OMITTED`."""
    if not (thickness > 0 and np.isfinite(length) and length > 0):
        raise PhysicsError(f"in_depth: thickness {thickness!r}, interaction length {length!r} m not positive")
    inside = -np.expm1(-thickness)
    depth = -length * np.log1p(-inside * rng.uniform(size=len(sample.weight)))
    origin = sample.origin.copy()
    origin[:, 2] += depth
    return replace(sample, origin=origin)


def on_nucleus(
    sample: Sample,
    a_measured: float,
    a_wanted: float,
    alpha: Callable[[FloatArray], FloatArray],
    *,
    alpha_inelastic: float,
    alpha_sigma: float = 0.0,
) -> tuple[Sample, float]:
    """Return the sample per interaction on another nucleus, and its relative uncertainty."""
    if not (a_measured > 0 and a_wanted > 0 and alpha_sigma >= 0):
        given = f"A = {a_measured!r}, {a_wanted!r}, sigma = {alpha_sigma!r}"
        raise PhysicsError(f"on_nucleus: {given} not positive")
    ratio = np.log(a_wanted / a_measured)
    exponent = np.asarray(alpha(np.asarray(sample.p4.pt, dtype=np.float64)), dtype=np.float64)
    weight = sample.weight * np.exp(ratio * (exponent - alpha_inelastic))
    return replace(sample, weight=weight), float(alpha_sigma * abs(ratio))


@dataclass(frozen=True)
class TargetTransfer:
    """How particles of one target become those of a detector's target."""

    # Points (pT [GeV], α) of σ ∝ A^α, straight between them; None leaves the weights
    alpha: Sequence[tuple[float, float]] | None = None
    # As in `on_nucleus`
    alpha_inelastic: float = 0.0
    alpha_sigma: float = 0.0
    # Interaction length [m] by the detector's name; others produce at the target's position
    depth: Mapping[str, float] | None = None

    def carry(
        self, sample: Sample, to: tuple[str, Target], measured: tuple[float, BoolArray | None], rng: Rng
    ) -> tuple[Sample, float]:
        """Return the sample of a detector's target, and the relative error of the scaling with A."""
        (name, target), (a_measured, own), sigma = to, measured, 0.0
        if self.alpha is not None:
            pt, alpha = np.array(self.alpha).T
            law: dict[str, Any] = {"alpha_inelastic": self.alpha_inelastic, "alpha_sigma": self.alpha_sigma}
            known = a_measured, target.a, lambda x: np.interp(x, pt, alpha)
            scaled, sigma = on_nucleus(sample, *known, **law)
            weight = scaled.weight if own is None else np.where(own, scaled.weight, sample.weight)
            sample = replace(sample, weight=weight)
        length = (self.depth or {}).get(name)
        if length is not None:
            sample = in_depth(sample, target.thickness, length, rng)
        return sample, sigma


class _Decaying(Protocol):
    def ctau(self, mass: float, coupling: npt.ArrayLike) -> FloatArray: ...

    def branching(self, mass: float) -> Mapping[str, float]: ...


def displaced(
    mass: npt.ArrayLike,
    edges: npt.ArrayLike,
    old: _Decaying,
    new: _Decaying,
    *,
    state: str,
    ratio: npt.ArrayLike = 1.0,
    length_ratio: float = 2.0,
) -> FloatArray:
    """Return both edges of a beam-dump limit for another model.

    N ∝ g² ratio BR [exp(−t₀/τ) − exp(−t₁/τ)] with one effective proper time t₀ from the target to the volume
    and t₁ = length_ratio t₀. Both edges of the old limit hold the same N, which fixes t₀; the new edges are
    where the new model gives that N. It stands for the spectrum by one momentum: good to tens of per cent
    between vectors with the same production, not for others.
    """
    m = np.atleast_1d(np.asarray(mass, dtype=np.float64))
    limits = np.asarray(edges, dtype=np.float64)
    if limits.shape != (len(m), 2) or not ((limits[:, 0] > 0) & (limits[:, 1] > limits[:, 0])).all():
        raise PhysicsError(f"displaced: edges of shape {limits.shape} must be increasing pairs, one per mass")
    require(length_ratio > 1, f"displaced: length_ratio = {length_ratio!r} must exceed one")
    one = np.ones(len(m))
    tau_old = np.array([float(old.ctau(float(x), 1.0)) for x in m])  # τ at unit coupling; τ ∝ 1/g²
    tau_new = np.array([float(new.ctau(float(x), 1.0)) for x in m])

    def log_yield(g: FloatArray, t0: FloatArray, tau: FloatArray) -> FloatArray:
        x = t0 * g**2 / tau
        return np.asarray(2 * np.log(g) - x + np.log(-np.expm1(-(length_ratio - 1) * x)), dtype=np.float64)

    low, high = limits.T

    def gap(log_t: FloatArray) -> FloatArray:
        t0 = np.exp(log_t)
        return log_yield(low, t0, tau_old) - log_yield(high, t0, tau_old)

    # The upper edge gains on the lower one as t0 falls.
    t0 = np.exp(_bisect(gap, np.log(1e-12 * tau_old / high**2), np.log(700.0 * tau_old / high**2)))
    level = log_yield(low, t0, tau_old) + np.log(_branching(m, old, state))
    with np.errstate(divide="ignore"):
        level = level - np.log(np.asarray(ratio) * one * _branching(m, new, state))
    grid = np.linspace(-12.0, 6.0, 721)[None, :] + 0.5 * np.log(tau_new / t0)[:, None]
    values = log_yield(np.exp(grid), t0[:, None], tau_new[:, None])
    top = np.argmax(values, axis=1)
    rows = np.arange(len(m))
    peak, found = grid[rows, top], values[rows, top] > level
    safe = np.where(found, level, values[rows, top] - 1e-6)

    def above(log_g: FloatArray) -> FloatArray:
        return log_yield(np.exp(log_g), t0, tau_new) - safe

    lower = _bisect(lambda x: -above(x), peak, grid[:, 0])
    upper = _bisect(lambda x: -above(x), peak, grid[:, -1])
    return np.where(found[:, None], np.exp(np.stack([lower, upper], axis=1)), np.nan)


def _branching(mass: FloatArray, model: _Decaying, state: str) -> FloatArray:
    values = [model.branching(float(m)) for m in mass]
    if state not in values[0]:
        raise PhysicsError(f"recast: final state {state!r} is none of {sorted(values[0])}")
    return np.array([value[state] for value in values])


def _bisect(f: Callable[[FloatArray], FloatArray], negative: FloatArray, positive: FloatArray) -> FloatArray:
    """Return roots of f between points where it is negative and points where it is positive, all at once."""
    a, b = negative.copy(), positive.copy()
    for _ in range(80):
        middle = 0.5 * (a + b)
        below = f(middle) < 0
        a, b = np.where(below, middle, a), np.where(below, b, middle)
    return np.asarray(0.5 * (a + b), dtype=np.float64)


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

    def _scale(self, mass: float) -> float:
        return float(self.factor(np.array([mass]))[0])

    def produce(self, mass: float, *, n: int, rng: Rng) -> Sample:
        """Return the sample of the channel with scaled weights."""
        sample = self.channel.produce(mass, n=n, rng=rng)
        return replace(sample, weight=sample.weight * self._scale(mass))

    def focused(self, mass: float, *, n: int, rng: Rng, importance: Importance) -> Sample:
        """Return the sample of the channel with scaled weights."""
        sample = self.channel.focused(mass, n=n, rng=rng, importance=importance)
        return replace(sample, weight=sample.weight * self._scale(mass))

    def replicas(self, mass: float, sample: Sample) -> FloatArray | None:
        """Return the replicas of the channel."""
        weight = sample.weight / (self._scale(mass) or 1.0)
        return self.channel.replicas(mass, replace(sample, weight=weight))

    def band(self, mass: float, sample: Sample) -> FloatArray | None:
        """Return the band of the channel."""
        return self.channel.band(mass, sample)


@dataclass(frozen=True, slots=True)
class Mixture(Channel):
    """The sum of exclusive channels.

    Raises
    ------
    PhysicsError
        If there are no channels, or two of them contain the same process.
    """

    channels: tuple[Channel, ...]  # One with an attribute ``mass_range`` adds nothing outside it
    exclusive: bool = True  # False if the parts were checked before they were split or scaled
    # Share of the particles that is dealt evenly among open channels: a rare one may make most of a signal
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
        """Return the summed rate and its edges, (n,) each: distances to edges add in quadrature."""
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

    def members(self, mass: float, n: int) -> IntArray:
        """Return which channel makes each of the `n` particles of `produce`, shape (n,)."""
        return np.repeat(np.arange(len(self.channels)), self._shared(mass, n)[0])

    def _shared(self, mass: float, n: int) -> tuple[IntArray, FloatArray]:
        rates = self.by_channel([mass])[0][:, 0]
        total = float(rates.sum())
        if not total > 0 or n < np.count_nonzero(rates):
            raise PhysicsError(f"{n} particles of {mass:g} GeV from {len(rates)} channels of rate {total:g}")
        open_ = rates > 0
        dealt = self.even * open_ / open_.sum() + (1.0 - self.even) * rates / total
        counts = np.where(open_, np.maximum(np.rint(n * dealt), 1), 0).astype(np.int64)
        counts[np.argmax(counts)] += n - counts.sum()
        return counts, rates

    def produce(self, mass: float, *, n: int, rng: Rng) -> Sample:
        """Return `n` particles, shared among the channels by their rates, one channel after the other."""
        rows = zip(self.channels, *self._shared(mass, n), strict=True)
        return joined([_made(c, mass, int(count), float(rate), rng) for c, count, rate in rows if count])

    def focused(self, mass: float, *, n: int, rng: Rng, importance: Importance) -> Sample:
        """Return `n` particles, shared among the channels as in `produce`."""
        counts, _ = self._shared(mass, n)
        rows = zip(self.channels, counts.tolist(), strict=True)
        return joined([c.focused(mass, n=k, rng=rng, importance=importance) for c, k in rows if k])

    def replicas(self, mass: float, sample: Sample, members: IntArray | None = None) -> FloatArray | None:
        """Return the replicas of the channels that have some; `members` says which made each particle."""
        own = self.members(mass, len(sample.weight)) if members is None else members
        drawn = [(own == i, channel) for i, channel in enumerate(self.channels) if (own == i).any()]
        rows_of = [(mine, channel.replicas(mass, sample.part(mine))) for mine, channel in drawn]
        sizes = {len(rows) for _, rows in rows_of if rows is not None}
        if not sizes:
            return None
        require(len(sizes) <= 1, f"Mixture: channels with {sorted(sizes)} replicas; give all the same number")
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
    parents = [np.full((len(s.weight), 4), np.nan) if s.parent is None else s.parent for s in samples]
    return Sample(
        Momenta(*np.concatenate([s.four_momenta for s in samples], axis=1)),
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
        raise PhysicsError(
            f"channel {channel.group!r}: rate {where} must be finite and not negative; take other [predict] "
            "masses, or wider bins of mass in [select] and [unfold]"
        )
    return rate, cov


def _made(channel: Channel, mass: float, n: int, rate: float, rng: Rng) -> Sample:
    sample = channel.produce(mass, n=n, rng=rng)
    total = float(np.sum(sample.weight))
    if not abs(total - rate) <= 1e-6 * rate:
        raise PhysicsError(
            f"channel {channel.group!r}: weights at {mass:g} GeV sum to {total:g}, but its rate is {rate:g}; "
            "produce must return weights that sum to the rate"
        )
    return sample


def _range(channel: Channel) -> tuple[float, float]:
    return getattr(channel, "mass_range", (0.0, np.inf))


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
