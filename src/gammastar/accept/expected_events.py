"""Expected events for all lifetimes and all couplings from one sample of particles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from gammastar.accept.decay import LEPTONS, Accepted, Lines, Replicated, accepted
from gammastar.core.errors import PhysicsError, PortabilityError
from gammastar.core.records import Exposure, FloatArray, Rng, Sample, divided
from gammastar.physics.detector import Detector, DetectorLike, target_factor
from gammastar.physics.millicharge import MillichargeDetector
from gammastar.physics.polarisation import NO_SPIN, Spin


class LongLived(Protocol):
    """What this room needs to know of a model."""

    def ctau(self, mass: float, coupling: npt.ArrayLike) -> FloatArray:
        """Return cτ [m] for each coupling."""

    def branching(self, mass: float) -> Mapping[str, float]:
        """Return the branching ratios by final state."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Where a spectrum was measured, and by which law it is carried to another target."""

    exposure: Exposure  # Beam and target to which "per proton on target" refers
    # None: the detector must stand behind the same target. "per_interaction": the yield of one inelastic
    # interaction does not depend on the nucleus; "power": it goes as A^(α − α_inel)
    scaling: Literal["per_interaction", "power"] | None = None
    alpha: float | None = None
    alpha_inelastic: float | None = None
    # That of virtual photons whose parent is not known (from a measured λθ:
    # `gammastar.physics.polarisation.longitudinal_fraction`), then those of `AcceptedYield.spins`
    spins: tuple[Spin, ...] = (NO_SPIN,)

    def factor(self, detector: DetectorLike) -> float:
        """Return the rate per proton on the detector's target over that on the measured one."""
        if self.scaling is not None:
            exponents = {"alpha": self.alpha, "alpha_inelastic": self.alpha_inelastic}
            return target_factor(self.exposure, detector, scaling=self.scaling, **exponents)
        ratio = target_factor(self.exposure, detector)  # refuses another beam
        a, target = self.exposure.target_a, detector.target
        if not np.isclose(a, target.a, rtol=1e-2, atol=0.0) or not np.isclose(ratio, 1.0, rtol=1e-2, atol=0):
            raise PortabilityError(
                f"spectrum measured on A = {a:g} of {self.exposure.thickness:g} interaction lengths, "
                f"detector {detector.name!r} has A = {target.a:g} of {target.thickness:g}: name a scaling, "
                "'per_interaction' or 'power' with its exponents"
            )
        return 1.0


@dataclass(frozen=True, slots=True, eq=False)
class AcceptedYield:
    """Expected events per coupling."""

    couplings: FloatArray  # shape (k,)
    signal: FloatArray  # shape (k,)
    in_domain_signal: FloatArray  # Its part from where lepton pairs were measured; the rest is extrapolation
    mc_error: FloatArray  # Statistical error of `signal` from the finite sample, shape (k,)
    n_effective: FloatArray  # Effective number of accepted particles (Kish), shape (k,)
    # Signal of each replica of the kinematics (r, k), and in each other spin state of `Measured.spins` (s, k)
    replicas: FloatArray | None = None
    spins: FloatArray | None = None

    @property
    def in_domain_fraction(self) -> FloatArray:
        """Measured part of the signal, nan where there is no signal."""
        return divided(self.in_domain_signal, self.signal, np.nan)


def _weights(
    states: Sequence[str], branching: Mapping[str, float], mass: float, detector: Detector
) -> dict[str, float]:
    """Return branching × efficiency of each state, zero at and below threshold."""
    known = set(branching) & set(detector.efficiency)
    if detector.accept_on == "daughters":
        known &= set(LEPTONS)
    if not set(states) <= known or len(set(states)) != len(states) or not states:
        raise PhysicsError(
            f"final states {list(states)}: detector {detector.name!r} and model share {sorted(known)}"
        )
    closed = {state for state, lepton in LEPTONS.items() if mass <= 2 * lepton}
    return {s: 0.0 if s in closed else float(branching[s]) * detector.efficiency[s] for s in states}


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """One detector's view of the particles of a model at one mass, over all couplings."""

    detector: Detector
    # Increasing couplings, and their lifetimes [m], shape (k,)
    couplings: FloatArray
    ctau: FloatArray
    states: Mapping[str, float]  # Branching ratio × efficiency
    scale: FloatArray  # Events per seen particle per proton on target at unit coupling, shape (k,)
    mass: float  # [GeV]
    measured: Measured | None = None

    @classmethod
    def of(
        cls,
        mass: float,
        couplings: npt.ArrayLike,
        model: LongLived,
        detector: Detector,
        final_states: Sequence[str],
        measured: Measured | None,
    ) -> Sight:
        """Return the view of a detector; arguments as for `gammastar.accept.yields`."""
        epsilon = np.atleast_1d(np.asarray(couplings, dtype=np.float64))
        bad = ~(np.isfinite(epsilon) & (epsilon > 0))
        if bad.any() or epsilon.ndim != 1 or epsilon.size == 0:
            value = epsilon[bad][0] if bad.any() else epsilon.shape
            raise PhysicsError(f"yields: couplings must be a list of positive numbers, got {value!r}")
        ctau = np.broadcast_to(np.asarray(model.ctau(mass, epsilon), dtype=np.float64), epsilon.shape)
        states = _weights(final_states, model.branching(mass), mass, detector)
        factor = 1.0 if measured is None else measured.factor(detector)
        return cls(detector, epsilon, ctau, states, factor * detector.exposure * epsilon**2, mass, measured)

    @property
    def spins(self) -> tuple[Spin, ...]:
        """Spin states of the measured photons."""
        return (NO_SPIN,) if self.measured is None else self.measured.spins

    def accepted(
        self,
        sample: Sample,
        rng: Rng,
        towards: FloatArray | None = None,
        spins: Sequence[Spin] | None = None,
        lines: Lines | None = None,
    ) -> Accepted:
        """Return the particles of a sample that are seen; `towards` [m] and others as in `accepted`."""
        lines = Lines.of(sample, self.mass, self.detector) if lines is None else lines
        spins = self.spins if spins is None else spins
        states = {"states": self.states, "rng": rng, "spins": spins, "towards": towards}
        return accepted(sample, lines, self.detector, **states)  # type: ignore[arg-type]

    def expected(self, found: Accepted, replicas: FloatArray | None = None) -> AcceptedYield:
        """Return the expected events; `replicas` (r, n) are factors on the particles that are seen."""
        scan, scale = found.scan(self.ctau, replicas), self.scale
        return AcceptedYield(
            couplings=self.couplings,
            signal=scale * scan.accepted,
            in_domain_signal=scale * scan.in_domain,
            mc_error=scale * scan.mc_error,
            n_effective=scan.n_effective,
            replicas=None if scan.replicas is None else scale * scan.replicas,
            spins=None if scan.spins is None else scale * scan.spins,
        )


def yields(
    sample: Sample,
    mass: float,
    couplings: npt.ArrayLike,
    model: LongLived,
    detector: Detector,
    *,
    final_states: Sequence[str] = ("ee", "mumu"),
    measured: Measured | None = None,
    rng: Rng,
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
        Gives beam, target and protons on target (or the luminosity, for weights in pb) besides geometry, cuts
        and efficiencies.
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
    sight = Sight.of(mass, couplings, model, detector, final_states, measured)
    found = sight.accepted(sample, rng)
    return sight.expected(found, sample.replicas[:, found.index] if isinstance(sample, Replicated) else None)


def width_shift(signal: npt.ArrayLike, couplings: npt.ArrayLike, error: npt.ArrayLike) -> FloatArray:
    """Return the relative shift of yields in leptons when the hadronic width grows by one standard deviation.

    With Γ' = Γ(1 + δ) every branching ratio to leptons falls by 1 + δ, and the decay length at ε is that of Γ
    at ε√(1 + δ), where 1 + δ times as many particles are made: s'(ε) = (1 + δ)⁻² s(ε√(1 + δ)), to first
    order s'/s − 1 = δ (½ d ln s/d ln ε − 2): nothing for lifetimes far beyond the detector, where s ∝ ε⁴.
    """
    events, epsilon = np.asarray(signal, dtype=np.float64), np.asarray(couplings, dtype=np.float64)
    seen = events > 0
    slope = np.gradient(np.log(np.where(seen, events, np.nan)), np.log(epsilon), axis=1)
    shift = np.asarray(error, dtype=np.float64)[:, None] * (0.5 * slope - 2.0)
    return np.where(np.isfinite(shift), shift, 0.0)


_BLOCK = 2_000_000  # elements of one (charges, particles) matrix


def millicharge_yields(
    sample: Sample,
    m_chi: float,
    charges: npt.ArrayLike,
    detector: MillichargeDetector,
    *,
    measured: Measured | None = None,
) -> AcceptedYield:
    """Return the expected events for every charge from one sample.

    Parameters
    ----------
    sample : Sample
        χ and χ̄ as particles of their own, per proton on target at Q = 1 (two per pair), or in pb for a
        detector with a luminosity. A `Replicated` one gives the signal of its replicas too.
    m_chi : float [GeV]
    charges : array_like, shape (k,)
        Q in units of e, positive and at most one.
    measured : Measured, optional
        Beam and target of the spectrum from which the sample was made; None for a theory channel.

    Returns
    -------
    AcceptedYield
        `couplings` are the charges.

    Raises
    ------
    PhysicsError
        If the sample is empty, a charge outside its range or a momentum not finite.
    PortabilityError
        As `Measured.factor`.

    Notes
    -----
    s(Q) = N_POT η Q² Σ_i w_i P(E_i, Q) over the particles whose straight line crosses the front. At small Q
    it goes as Q^`detector.exponent`. Energy loss and scattering between target and detector go as Q² too and
    are neglected: that holds for the small charges at the edge of a reach, not for Q near one.
    """
    q = np.atleast_1d(np.asarray(charges, dtype=np.float64))
    if q.ndim != 1 or q.size == 0 or not ((q > 0) & (q <= 1)).all():
        raise PhysicsError(f"millicharge_yields: charges {q!r} must be a list of numbers above 0, at most 1")
    p = sample.four_momenta
    if p.shape[1] == 0 or not np.isfinite(p).all():
        raise PhysicsError(
            f"millicharge_yields: the sample of {m_chi:g} GeV is empty or holds values that are not finite"
        )
    origin = sample.origin + np.asarray(detector.target.position)
    hit = detector.front.crossed(origin, p)
    energy, weight, inside = p[3, hit], sample.weight[hit], sample.in_domain[hit]
    replicas = sample.replicas[:, hit] if isinstance(sample, Replicated) else np.zeros((0, len(weight)))
    sums, members = np.zeros((3, len(q))), np.zeros((len(replicas), len(q)))
    step = max(1, _BLOCK // len(q))
    for start in range(0, len(weight), step):
        part = slice(start, start + step)
        seen, w = detector.detection.probability(energy[part], m_chi, q), weight[part]
        sums += np.stack([seen @ w, seen**2 @ w**2, seen @ (w * inside[part])])
        members += (replicas[:, part] * w) @ seen.T
    n = len(sample.weight)
    variance = np.clip(sums[1] - sums[0] ** 2 / n, 0.0, None)
    factor = 1.0 if measured is None else measured.factor(detector)
    scale = factor * detector.exposure * detector.efficiency * q**2
    return AcceptedYield(
        couplings=q,
        signal=scale * sums[0],
        in_domain_signal=scale * sums[2],
        mc_error=scale * np.sqrt(variance),
        n_effective=divided(sums[0] ** 2, sums[1]),
        replicas=scale * members if isinstance(sample, Replicated) else None,
    )
