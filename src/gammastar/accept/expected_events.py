"""Expected events for all lifetimes and all couplings from one sample of particles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator

from gammastar.accept.decay import (
    angular_weights,
    decay_probability,
    decay_weight,
    forced_decay,
    lepton_pair,
    seen,
)
from gammastar.core.constants import M_E, M_MU
from gammastar.core.errors import PhysicsError, PortabilityError
from gammastar.core.records import BoolArray, Exposure, FloatArray, Sample
from gammastar.physics.detector import Detector, Stand, target_factor
from gammastar.physics.polarisation import NO_SPIN, Spin

__all__ = [
    "LEPTONS",
    "AcceptedYield",
    "LifetimeScan",
    "LongLived",
    "Measured",
    "Replicated",
    "acceptance_curve",
    "lifetime_scan",
    "width_shift",
    "yields",
]

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
        """Return a sample with replicas of it."""
        kept = {name: getattr(sample, name) for name in ("p4", "weight", "origin", "in_domain", "parent")}
        return cls(**kept, replicas=replicas)

    def __post_init__(self) -> None:
        Sample.__post_init__(self)
        if self.replicas.ndim != 2 or self.replicas.shape[1] != len(self.weight):
            msg = f"Replicated: replicas {self.replicas.shape} do not fit {len(self.weight)} particles"
            raise PhysicsError(msg)


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

        Raises
        ------
        PhysicsError
            If a lifetime lies outside the scan, or the scan has fewer than two increasing lifetimes.
        """
        wanted = np.atleast_1d(np.asarray(ctau, dtype=np.float64))
        if len(self.ctau) < 2 or not (np.diff(self.ctau) > 0).all() or not np.isfinite(self.ctau).all():
            msg = "LifetimeScan.at: the scan must hold two or more finite, increasing lifetimes"
            raise PhysicsError(msg)
        outside = ~((wanted >= self.ctau[0]) & (wanted <= self.ctau[-1]))
        if outside.any():
            low, high = self.ctau[0], self.ctau[-1]
            msg = f"cτ = {wanted[outside][0]:g} m lies outside the scan, {low:g} to {high:g} m"
            raise PhysicsError(msg)
        x, columns = np.log(self.ctau), {}
        for name in (field.name for field in fields(self) if field.name != "ctau"):
            known: FloatArray | None = getattr(self, name)
            if known is not None:
                y = np.log(np.maximum(known, _TINY))
                value = np.exp(PchipInterpolator(x, y, axis=-1)(np.log(wanted)))
                columns[name] = np.where(value > 2 * _TINY, value, 0.0)
        return LifetimeScan(ctau=wanted, **columns)


@dataclass(frozen=True, slots=True, eq=False)
class _Visible:
    """Particles that can be seen, with a function (cτ, slice) -> decay factors (k, n).

    `weight` (1 + s, n): in the first spin state and in the others.
    """

    weight: FloatArray
    in_domain: BoolArray
    index: npt.NDArray[np.intp]
    factors: Callable[[FloatArray, slice], FloatArray]


def _momenta(sample: Sample, mass: float) -> FloatArray:
    """Return px, py, pz, E of a sample, shape (4, n), once it is known to be fit for use."""
    p4 = sample.p4
    p = np.stack([np.asarray(c, dtype=np.float64) for c in (p4.px, p4.py, p4.pz, p4.E)])
    if p.shape[1] == 0:
        msg = f"yields: the sample of {mass:g} GeV holds no particle; produce some first"
        raise PhysicsError(msg)
    for name, values in (("p4", p), ("weight", sample.weight), ("origin", sample.origin)):
        if not np.isfinite(values).all():
            msg = f"yields: Sample.{name} holds values that are not finite"
            raise PhysicsError(msg)
    off_shell = np.abs(p[3] ** 2 - np.sum(p[:3] ** 2, axis=0) - mass**2)
    if not (off_shell < 1e-3 * mass**2 + 1e-9 * p[3] ** 2).all():
        msg = f"yields: the sample holds particles of another mass than {mass:g} GeV"
        raise PhysicsError(msg)
    return p


def _visible(
    sample: Sample,
    mass: float,
    detector: Detector,
    states: Mapping[str, float],
    rng: np.random.Generator,
    spins: Sequence[Spin],
) -> _Visible:
    """Weight each particle by Σ over final states of (state's weight × seen × density of its angles)."""
    p = _momenta(sample, mass)
    origin = sample.origin + np.asarray(detector.target.position)
    chord = detector.volume.chord(origin, p[:3].T)
    hit = np.flatnonzero(~np.isnan(chord[:, 0]))
    p, origin, chord = p[:, hit], origin[hit], chord[hit]
    momentum = np.linalg.norm(p[:3], axis=0)
    weight, in_domain = sample.weight[hit], sample.in_domain[hit]
    if detector.accept_on == "parent":

        def factors(ctau: FloatArray, part: slice) -> FloatArray:
            return decay_probability(chord[part], momentum[part], mass, ctau)

        every = np.ones((len(spins), 1)) * weight * sum(states.values())
        return _Visible(every, in_domain, hit, factors)

    distance, density = forced_decay(chord, rng)
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

    return _Visible((weight * visible)[:, keep], in_domain[keep], hit[keep], point_factors)


def _sums(visible: _Visible, ctau: FloatArray, replicas: FloatArray | None) -> FloatArray:
    """Return Σw, Σw², Σw in the domain, then Σw of each other spin state and of each replica, in blocks.

    Shape (3 + s + r, k).
    """
    first, others = visible.weight[0], visible.weight[1:]
    seen_by = np.zeros((0, len(first))) if replicas is None else replicas[:, visible.index]
    total = np.zeros((3 + len(others) + len(seen_by), len(ctau)))
    step = max(1, _BLOCK // max(1, len(ctau)))
    for start in range(0, len(first), step):
        part = slice(start, start + step)
        factors, weight = visible.factors(ctau, part), first[part]
        total[0] += factors @ weight
        total[2] += factors @ (weight * visible.in_domain[part])
        total[3:] += np.concatenate([others[:, part], seen_by[:, part] * weight]) @ factors.T
        total[1] += np.square(factors, out=factors) @ weight**2
    return total


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
            msg = (
                f"final state {state!r} with weight {value!r}: weights are >= 0, known are {sorted(allowed)}"
            )
            raise PhysicsError(msg)
    replicas = sample.replicas if isinstance(sample, Replicated) else None
    visible = _visible(sample, mass, detector, states, rng, spins)
    total, square, inside, *rest = _sums(visible, lifetimes, replicas)
    others, members = (np.array(x).reshape(-1, len(lifetimes)) for x in np.split(rest, [len(spins) - 1]))
    n = len(sample.weight)  # rejected particles count as zero in the error of the sum
    variance = np.clip(square - total**2 / n, 0.0, None) * n / max(1, n - 1)
    return LifetimeScan(
        ctau=lifetimes,
        accepted=total,
        in_domain=inside,
        mc_error=np.sqrt(variance),
        n_effective=np.divide(total**2, square, out=np.zeros_like(total), where=square > 0),
        replicas=None if replicas is None else members,
        spins=others if len(others) else None,
    )


class LongLived(Protocol):
    """What this room needs to know of a model."""

    def ctau(self, mass: float, coupling: npt.ArrayLike) -> FloatArray:
        """Return cτ [m] for each coupling."""

    def branching(self, mass: float) -> Mapping[str, float]:
        """Return the branching ratios by final state."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Where a spectrum was measured, and by which law it is carried to another target.

    Attributes
    ----------
    exposure : Exposure
        Beam and target to which "per proton on target" refers.
    scaling : {"per_interaction", "power"} or None
        None: the detector must stand behind the same target. "per_interaction": the yield of one inelastic
        interaction does not depend on the nucleus; "power": it goes as A^(α − α_inel).
    alpha, alpha_inelastic : float, optional
        Exponents, for "power" only.
    spins : tuple of Spin
        The first is that of virtual photons whose parent is not known, by default unpolarised; from a
        measured λθ: `gammastar.physics.polarisation.longitudinal_fraction`. The others are those of
        `AcceptedYield.spins`.
    """

    exposure: Exposure
    scaling: Literal["per_interaction", "power"] | None = None
    alpha: float | None = None
    alpha_inelastic: float | None = None
    spins: tuple[Spin, ...] = (NO_SPIN,)

    def factor(self, detector: Stand) -> float:
        """Return the rate per proton on the detector's target over that on the measured one.

        Raises
        ------
        PortabilityError
            If the beam energies differ, or the targets do and no scaling is named.
        """
        if self.scaling is not None:
            return target_factor(
                self.exposure,
                detector,
                scaling=self.scaling,
                alpha=self.alpha,
                alpha_inelastic=self.alpha_inelastic,
            )
        ratio = target_factor(self.exposure, detector)  # refuses another beam
        a, target = self.exposure.target_a, detector.target
        if not np.isclose(a, target.a, rtol=1e-2, atol=0.0) or not np.isclose(ratio, 1.0, rtol=1e-2, atol=0):
            msg = (
                f"spectrum measured on A = {a:g} of {self.exposure.thickness:g} interaction lengths, "
                f"detector {detector.name!r} has A = {target.a:g} of {target.thickness:g}: name a scaling, "
                "'per_interaction' or 'power' with its exponents"
            )
            raise PortabilityError(msg)
        return 1.0


@dataclass(frozen=True, slots=True, eq=False)
class AcceptedYield:
    """Expected events per coupling.

    Attributes
    ----------
    couplings, signal : NDArray, shape (k,)
    in_domain_signal : NDArray, shape (k,)
        The part of the signal from (mass, pt, energy) where lepton pairs were measured; the rest is
        extrapolation.
    mc_error : NDArray, shape (k,)
        Statistical error of `signal` from the finite sample.
    n_effective : NDArray, shape (k,)
        Effective number of accepted particles (Kish).
    replicas : NDArray, shape (r, k), or None
        Signal of each replica of the kinematics, with the same particles and decays.
    spins : NDArray, shape (s, k), or None
        Signal in each of the other spin states of `Measured.spins`, with the same decays.
    """

    couplings: FloatArray
    signal: FloatArray
    in_domain_signal: FloatArray
    mc_error: FloatArray
    n_effective: FloatArray
    replicas: FloatArray | None = None
    spins: FloatArray | None = None

    @property
    def in_domain_fraction(self) -> FloatArray:
        """Measured part of the signal, nan where there is no signal."""
        nothing = np.full_like(self.signal, np.nan)
        return np.divide(self.in_domain_signal, self.signal, out=nothing, where=self.signal > 0)


def _weights(
    states: Sequence[str], branching: Mapping[str, float], mass: float, detector: Detector
) -> dict[str, float]:
    """Return branching × efficiency of each state, zero at and below threshold."""
    known = set(branching) & set(detector.efficiency)
    if detector.accept_on == "daughters":
        known &= set(LEPTONS)
    if not set(states) <= known or len(set(states)) != len(states) or not states:
        msg = f"final states {list(states)}: detector {detector.name!r} and model share {sorted(known)}"
        raise PhysicsError(msg)
    closed = {state for state, lepton in LEPTONS.items() if mass <= 2 * lepton}
    return {s: 0.0 if s in closed else float(branching[s]) * detector.efficiency[s] for s in states}


def yields(
    sample: Sample,
    mass: float,
    couplings: npt.ArrayLike,
    model: LongLived,
    detector: Detector,
    *,
    final_states: Sequence[str] = ("ee", "mumu"),
    measured: Measured | None = None,
    rng: np.random.Generator,
) -> AcceptedYield:
    """Return the expected events for every coupling from one sample.

    Parameters
    ----------
    sample : Sample
        Particles per proton on target at unit coupling; origins relative to the detector's target. A
        `Replicated` one gives the signal of its replicas too.
    mass : float [GeV]
    couplings : array_like, shape (k,)
        Positive.
    model : LongLived
        Gives cτ and branching ratios; the rate goes as the square of the coupling.
    detector : Detector
        Gives beam, target and protons on target besides geometry, cuts and efficiencies.
    final_states : sequence of str
        Summed; a state at or below its threshold gives exactly zero.
    measured : Measured, optional
        Beam, target and spin state of the spectrum from which the sample was made. None: the weights are
        already per proton on the detector's own target, as those of a theory channel, and leptons are
        isotropic unless the sample carries the parents.
    rng : numpy.random.Generator
        For decay positions and angles, drawn once for all couplings.

    Raises
    ------
    PortabilityError
        If the spectrum is of another beam energy, or of another target and no scaling is named.
    PhysicsError
        If the sample is empty, of another mass or not finite, a coupling is not positive, or a final state
        is not known to model and detector.

    Notes
    -----
    s(ε) = N_POT ε² Σ_i w_i Σ_f BR_f η_f a_if D_i(cτ(ε)); see `lifetime_scan`.
    """
    epsilon = np.atleast_1d(np.asarray(couplings, dtype=np.float64))
    bad = ~(np.isfinite(epsilon) & (epsilon > 0))
    if bad.any() or epsilon.ndim != 1 or epsilon.size == 0:
        value = epsilon[bad][0] if bad.any() else epsilon.shape
        msg = f"yields: couplings must be a list of positive numbers, got {value!r}"
        raise PhysicsError(msg)
    factor = 1.0 if measured is None else measured.factor(detector)
    states = _weights(final_states, model.branching(mass), mass, detector)
    ctau = np.broadcast_to(np.asarray(model.ctau(mass, epsilon), dtype=np.float64), epsilon.shape)
    spins = (NO_SPIN,) if measured is None else measured.spins
    scan = lifetime_scan(sample, mass, ctau, detector, states=states, rng=rng, spins=spins)
    scale = factor * detector.pot * epsilon**2
    return AcceptedYield(
        couplings=epsilon,
        signal=scale * scan.accepted,
        in_domain_signal=scale * scan.in_domain,
        mc_error=scale * scan.mc_error,
        n_effective=scan.n_effective,
        replicas=None if scan.replicas is None else scale * scan.replicas,
        spins=None if scan.spins is None else scale * scan.spins,
    )


def width_shift(signal: npt.ArrayLike, couplings: npt.ArrayLike, error: npt.ArrayLike) -> FloatArray:
    """Return the relative shift of yields in leptons when the hadronic width grows by one standard deviation.

    Parameters
    ----------
    signal : array_like, shape (n, k)
        Expected events over masses and couplings; cτ ∝ 1/ε².
    couplings : array_like, shape (k,)
        Increasing.
    error : array_like, shape (n,)
        Relative standard deviation of the total width.

    Returns
    -------
    NDArray, shape (n, k)
        Zero where there is no signal.

    Notes
    -----
    With Γ' = Γ(1 + δ) every branching ratio to leptons falls by 1 + δ, and the decay length at ε is that of Γ
    at ε√(1 + δ), where 1 + δ times as many particles are made: s'(ε) = (1 + δ)⁻² s(ε√(1 + δ)), to first
    order s'/s − 1 = δ (½ d ln s/d ln ε − 2): nothing for lifetimes far beyond the detector, where s ∝ ε⁴.

    Examples
    --------
    >>> epsilon = np.geomspace(1e-8, 1e-7, 5)
    >>> bool(np.allclose(width_shift([epsilon**4], epsilon, [0.1]), 0.0))
    True
    """
    events, epsilon = np.asarray(signal, dtype=np.float64), np.asarray(couplings, dtype=np.float64)
    seen = events > 0
    slope = np.gradient(np.log(np.where(seen, events, np.nan)), np.log(epsilon), axis=1)
    shift = np.asarray(error, dtype=np.float64)[:, None] * (0.5 * slope - 2.0)
    return np.where(np.isfinite(shift), shift, 0.0)


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
    sample : Sample
    mass : float [GeV]
    ctau : array_like, shape (k,) [m]
    detector : Detector
    final_state : {"ee", "mumu"}
        Leptons of the decay, if the detector accepts on daughters; branching and efficiency are left out.
    rng : numpy.random.Generator
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
    if not norm > 0:
        msg = f"acceptance: the weights of the sample sum to {norm!r}"
        raise PhysicsError(msg)
    return scan.accepted / norm, scan.mc_error / norm
