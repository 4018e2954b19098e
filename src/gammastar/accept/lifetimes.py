"""What a detector sees of one sample of particles at every lifetime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator

from gammastar.accept.decay import (
    angular_weights,
    decay_probability,
    decay_weight,
    forced_decay,
    inverse_decay_length,
    lepton_pair,
    seen,
)
from gammastar.core.constants import M_E, M_MU
from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import BoolArray, FloatArray, Sample
from gammastar.physics.detector import Detector
from gammastar.physics.polarisation import NO_SPIN, Spin

LEPTONS = {"ee": M_E, "mumu": M_MU}
_BLOCK = 200_000  # elements of one (lifetimes, particles) matrix: it stays in the cache
_TINY = 1e-300


@dataclass(frozen=True, slots=True, eq=False)
class Replicated(Sample):
    """A sample with replicas of its kinematics: the same particles with other weights.

    Attributes
    ----------
    replicas : NDArray, shape (r, n)
        Factors on the weights, one row per replica; from `gammastar.predict.Channel.replicas`.
    """

    replicas: FloatArray

    @classmethod
    def of(cls, sample: Sample, replicas: FloatArray) -> Replicated:
        """Return a sample with replicas of it.

        Parameters
        ----------
        replicas : NDArray, shape (r, n)
            Factors on the weights.
        """
        kept = {name: getattr(sample, name) for name in ("p4", "weight", "origin", "in_domain", "parent")}
        return cls(**kept, replicas=replicas)

    def __post_init__(self) -> None:
        Sample.__post_init__(self)
        if self.replicas.ndim != 2 or self.replicas.shape[1] != len(self.weight):
            raise PhysicsError(
                f"Replicated: replicas {self.replicas.shape} do not fit {len(self.weight)} particles"
            )


@dataclass(frozen=True, slots=True, eq=False)
class LifetimeScan:
    """Accepted particles per proton on target at unit coupling.

    Attributes
    ----------
    ctau : NDArray, shape (k,) [m]
    accepted : NDArray, shape (k,)
        Sum over the sample of weight × decay and detection probability.
    in_domain : NDArray, shape (k,)
        The part of `accepted` from (mass, pt, energy) where lepton pairs were measured.
    mc_error : NDArray, shape (k,)
        Statistical error of `accepted` from the finite sample.
    n_effective : NDArray, shape (k,)
        Effective number of accepted particles (Kish).
    replicas : NDArray, shape (r, k), or None
        `accepted` of each replica of the kinematics, with the same particles and decays.
    spins : NDArray, shape (s, k), or None
        `accepted` in each of the other spin states, with the same decays.
    """

    ctau: FloatArray
    accepted: FloatArray
    in_domain: FloatArray
    mc_error: FloatArray
    n_effective: FloatArray
    replicas: FloatArray | None = None
    spins: FloatArray | None = None

    def at(self, ctau: npt.ArrayLike) -> LifetimeScan:
        """Return the scan at other lifetimes, by monotone interpolation in both logarithms.

        With it a whole plane of mass and coupling needs one scan per mass.

        Parameters
        ----------
        ctau : array_like, shape (k,) [m]
            Inside the range of the scan.
        """
        wanted = np.atleast_1d(np.asarray(ctau, dtype=np.float64))
        if len(self.ctau) < 2 or not (np.diff(self.ctau) > 0).all() or not np.isfinite(self.ctau).all():
            raise PhysicsError("LifetimeScan.at: the scan must hold two or more finite, increasing lifetimes")
        outside = ~((wanted >= self.ctau[0]) & (wanted <= self.ctau[-1]))
        if outside.any():
            low, high = self.ctau[0], self.ctau[-1]
            raise PhysicsError(f"cτ = {wanted[outside][0]:g} m lies outside the scan, {low:g} to {high:g} m")
        x, columns = np.log(self.ctau), {}
        for name in (field.name for field in fields(self) if field.name != "ctau"):
            known: FloatArray | None = getattr(self, name)
            if known is not None:
                y = np.log(np.maximum(known, _TINY))
                value = np.exp(PchipInterpolator(x, y, axis=-1)(np.log(wanted)))
                columns[name] = np.where(value > 2 * _TINY, value, 0.0)
        return LifetimeScan(ctau=wanted, **columns)


@dataclass(frozen=True, slots=True, eq=False)
class Accepted:
    """The particles of a sample that a detector sees, for every lifetime."""

    index: npt.NDArray[np.intp]  # Their places in the sample, shape (n,)
    # Weight × Σ over final states of (state's weight × seen), in the first spin state and in the others,
    # shape (1 + s, n)
    weight: FloatArray
    in_domain: BoolArray  # shape (n,)
    factors: Callable[[FloatArray, slice], FloatArray]  # (cτ (k,), slice) -> decay factors (k, n)
    size: int  # Particles of the sample, rejected ones too

    def scan(self, ctau: FloatArray, replicas: FloatArray | None = None) -> LifetimeScan:
        """Return what is seen at lifetimes (k,) [m]; `replicas` (r, n) are factors on these particles."""
        total, square, inside, *rest = self._sums(ctau, replicas)
        split = [len(self.weight) - 1]
        others, members = (np.array(x).reshape(-1, len(ctau)) for x in np.split(rest, split))
        n = self.size  # rejected particles count as zero in the error of the sum
        variance = np.clip(square - total**2 / n, 0.0, None) * n / max(1, n - 1)
        return LifetimeScan(
            ctau=ctau,
            accepted=total,
            in_domain=inside,
            mc_error=np.sqrt(variance),
            n_effective=np.divide(total**2, square, out=np.zeros_like(total), where=square > 0),
            replicas=None if replicas is None else members,
            spins=others if len(others) else None,
        )

    def _sums(self, ctau: FloatArray, replicas: FloatArray | None) -> FloatArray:
        """Return Σw, Σw², Σw in the domain, then Σw of each other spin state and of each replica, in blocks.

        Shape (3 + s + r, k).
        """
        first, others = self.weight[0], self.weight[1:]
        members = np.zeros((0, len(first))) if replicas is None else replicas
        total = np.zeros((3 + len(others) + len(members), len(ctau)))
        step = max(1, _BLOCK // max(1, len(ctau)))
        for start in range(0, len(first), step):
            part = slice(start, start + step)
            factors, weight = self.factors(ctau, part), first[part]
            total[0] += factors @ weight
            total[2] += factors @ (weight * self.in_domain[part])
            total[3:] += np.concatenate([others[:, part], members[:, part] * weight]) @ factors.T
            total[1] += np.square(factors, out=factors) @ weight**2
        return total


def momenta(sample: Sample, mass: float) -> FloatArray:
    """Return px, py, pz, E of a sample, shape (4, n), once it is known to be fit for use."""
    p4 = sample.p4
    p = np.stack([np.asarray(c, dtype=np.float64) for c in (p4.px, p4.py, p4.pz, p4.E)])
    require(p.shape[1] != 0, f"yields: the sample of {mass:g} GeV holds no particle; produce some first")
    for name, values in (("p4", p), ("weight", sample.weight), ("origin", sample.origin)):
        if not np.isfinite(values).all():
            raise PhysicsError(f"yields: Sample.{name} holds values that are not finite")
    off_shell = np.abs(p[3] ** 2 - (p[0] ** 2 + p[1] ** 2 + p[2] ** 2) - mass**2)
    if not (off_shell < 1e-3 * mass**2 + 1e-9 * p[3] ** 2).all():
        raise PhysicsError(f"yields: the sample holds particles of another mass than {mass:g} GeV")
    return p


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """The particles of a sample whose line meets the decay volume of a detector."""

    index: npt.NDArray[np.intp]  # Their places in the sample, shape (h,)
    p: FloatArray  # shape (4, h) [GeV]
    origin: FloatArray  # shape (h, 3) [m]
    chord: FloatArray  # Path lengths to entry and exit, shape (h, 2) [m]
    momentum: FloatArray  # shape (h,) [GeV]

    @classmethod
    def of(cls, sample: Sample, mass: float, detector: Detector) -> Lines:
        """Return those of a sample of one mass [GeV]."""
        p = momenta(sample, mass)
        origin = sample.origin + np.asarray(detector.target.position)
        chord = detector.volume.chord(origin, p[:3].T)
        hit = np.flatnonzero(~np.isnan(chord[:, 0]))
        p = p[:, hit]
        return cls(hit, p, origin[hit], chord[hit], np.sqrt(p[0] ** 2 + p[1] ** 2 + p[2] ** 2))


def accepted(
    sample: Sample,
    mass: float,
    detector: Detector,
    *,
    states: Mapping[str, float],
    rng: np.random.Generator,
    spins: Sequence[Spin] = (NO_SPIN,),
    towards: FloatArray | None = None,
    lines: Lines | None = None,
) -> Accepted:
    """Return the particles that a detector sees, each decayed once in its volume."""
    known = Lines.of(sample, mass, detector) if lines is None else lines
    hit, p, origin, chord, momentum = known.index, known.p, known.origin, known.chord, known.momentum
    weight, in_domain, size = sample.weight[hit], sample.in_domain[hit], len(sample.weight)
    if detector.accept_on == "parent":

        def factors(ctau: FloatArray, part: slice) -> FloatArray:
            return decay_probability(chord[part], momentum[part], mass, ctau)

        every = np.ones((len(spins), 1)) * weight * sum(states.values())
        return Accepted(hit, every, in_domain, factors, size)

    inverse = None if towards is None else inverse_decay_length(momentum, mass, towards)
    distance, density = forced_decay(chord, rng, inverse)
    vertex = origin + distance[:, None] * (p[:3] / momentum).T
    meson = None if sample.parent is None else sample.parent[hit]
    visible = np.zeros((len(spins), len(weight)))
    for state, value in states.items():
        if value > 0:
            leptons = lepton_pair(p, mass, LEPTONS[state], rng)
            found = np.flatnonzero(seen(vertex, leptons, detector))
            visible[:, found] += value * angular_weights(
                p[:, found],
                mass,
                leptons[0][:, found],
                LEPTONS[state],
                spins,
                beam_energy=detector.beam_energy,
                meson=None if meson is None else meson[found],
            )
    keep = visible.any(axis=0)
    distance, density, momentum = distance[keep], density[keep], momentum[keep]

    def point_factors(ctau: FloatArray, part: slice) -> FloatArray:
        return decay_weight(distance[part], density[part], momentum[part], mass, ctau)

    return Accepted(hit[keep], (weight * visible)[:, keep], in_domain[keep], point_factors, size)


def lifetime_scan(
    sample: Sample,
    mass: float,
    ctau: npt.ArrayLike,
    detector: Detector,
    *,
    states: Mapping[str, float],
    rng: np.random.Generator,
    spins: Sequence[Spin] = (NO_SPIN,),
) -> LifetimeScan:
    """Return the accepted particles for every lifetime from one sample.

    Parameters
    ----------
    sample : Sample
        Particles per proton on target at unit coupling; origins relative to the detector's target. A
        `Replicated` one gives the replicas too.
    mass : float [GeV]
    ctau : array_like, shape (k,) [m]
        inf for a stable particle.
    detector : Detector
        Its protons on target and its beam do not enter here.
    states : mapping of final state to float
        Weight of each final state, e.g. branching ratio × efficiency. On daughters: "ee" and "mumu".
    rng : numpy.random.Generator
        For decay positions and angles, drawn once for all lifetimes.
    spins : sequence of Spin
        The first is that of particles whose parent the sample does not carry; the others are those of
        `LifetimeScan.spins`.

    Raises
    ------
    PhysicsError
        If the sample is empty, of another mass or not finite, a lifetime is not positive, or a state weighs
        less than zero or has no leptons to follow.

    Notes
    -----
    Σ_i w_i Σ_f b_f a_if D_i(cτ). On the parent, a = 1 and D = e^(−a/λ) − e^(−b/λ), Eq. B1 of Allison and
    Blinov (2025) for an open volume. On daughters one decay per particle is placed in the volume
    (`forced_decay`) and D is its `decay_weight`; whether it is seen does not depend on the lifetime, so
    that all lifetimes use the same decays. Where a lifetime leans on few of them, `n_effective` tells.
    """
    lifetimes = np.atleast_1d(np.asarray(ctau, dtype=np.float64))
    allowed = LEPTONS if detector.accept_on == "daughters" else states
    for state, value in states.items():
        if state not in allowed or not (np.isfinite(value) and value >= 0):
            raise PhysicsError(
                f"final state {state!r} with weight {value!r}: weights are >= 0, known are {sorted(allowed)}"
            )
    found = accepted(sample, mass, detector, states=states, rng=rng, spins=spins)
    return found.scan(lifetimes, sample.replicas[:, found.index] if isinstance(sample, Replicated) else None)


def acceptance_curve(
    sample: Sample,
    mass: float,
    ctau: npt.ArrayLike,
    detector: Detector,
    *,
    final_state: str = "mumu",
    rng: np.random.Generator,
    spin: Spin = NO_SPIN,
) -> tuple[FloatArray, FloatArray]:
    """Return the acceptance as a function of the lifetime, and its Monte Carlo error.

    Parameters
    ----------
    mass : float [GeV]
    ctau : array_like, shape (k,) [m]
    final_state : {"ee", "mumu"}
        Leptons of the decay, if the detector accepts on daughters; branching and efficiency are left out.
    spin : Spin
        Of particles whose parent the sample does not carry.

    Returns
    -------
    acceptance, error : NDArray, shape (k,)

    Raises
    ------
    PhysicsError
        As `lifetime_scan`, or if the weights of the sample do not sum to something positive.

    Notes
    -----
    Eq. B1 and Fig. 9 of Allison and Blinov (2025): the weighted mean over the sample.
    """
    states = {final_state: 1.0}
    scan = lifetime_scan(sample, mass, ctau, detector, states=states, rng=rng, spins=(spin,))
    norm = float(sample.weight.sum())
    require(norm > 0, f"acceptance: the weights of the sample sum to {norm!r}")
    return scan.accepted / norm, scan.mc_error / norm
