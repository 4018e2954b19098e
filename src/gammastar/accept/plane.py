"""From the particles that a detector lives on to the signal over masses and couplings, source by source."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.accept.decay import Accepted, Lines, Replicated, accepted, decay_probability
from gammastar.accept.expected_events import AcceptedYield, Sight, width_shift
from gammastar.core.records import BoolArray, FloatArray, Momenta, Rng, Sample
from gammastar.core.signal import (
    BEYOND,
    MOST,
    VIRTUAL_PHOTON,
    AcceptanceCurves,
    Effect,
    Rate,
    SignalPlane,
    Variation,
)
from gammastar.core.sources import EXTRAPOLATION, FLOW, PAIRS, SCALING, SEARCH_POT, SPIN, WIDTHS, Kind
from gammastar.physics.detector import Detector
from gammastar.physics.polarisation import FRAMES, NO_SPIN, TRANSVERSE, Frame, Spin, SpinDensities, SpinState

Index: TypeAlias = npt.NDArray[np.intp]
COARSE = 36  # couplings between which the smooth quantities here are interpolated
_TINY = 1e-300
FEW = 30  # decays that a detector sees, below which the lines alone say where to look


def turned(sample: Sample, detector: Detector, rng: Rng) -> Sample:
    """Return the sample turned about the beam into the azimuths in which a detector stands."""
    centre, half = detector.volume.azimuths(*detector.target.position[:2])
    if half >= np.pi:
        return sample
    p4 = sample.p4
    px, py = (np.asarray(c, dtype=np.float64) for c in (p4.px, p4.py))
    phi = centre + half * rng.uniform(-1.0, 1.0, len(px))
    angle = phi - np.arctan2(py, px)
    cosine, sine = np.cos(angle), np.sin(angle)
    parent = sample.parent
    if parent is not None:
        x, y, *rest = parent.T
        parent = np.stack([cosine * x - sine * y, sine * x + cosine * y, *rest], axis=1)
    pz, energy = (np.asarray(c, dtype=np.float64) for c in (p4.pz, p4.E))
    p4 = Momenta(cosine * px - sine * py, sine * px + cosine * py, pz, energy)
    return replace(sample, p4=p4, weight=sample.weight * (half / np.pi), parent=parent)


@dataclass(frozen=True, slots=True, eq=False)
class Flight:
    """The particles of a sample whose line meets the decay volume of a detector."""

    sight: Sight
    # Couplings of the sight at which decays are followed; what is asked at others lies between, shape (t,)
    at: Index
    lines: Lines  # Of those particles
    probability: FloatArray  # To decay in the volume, whether or not the decay is seen, shape (t, h)

    @property
    def index(self) -> Index:
        """Places of the particles in the sample, shape (h,)."""
        return self.lines.index

    @classmethod
    def of(cls, sight: Sight, sample: Sample) -> Flight:
        """Return the flights of a sample, turned or not."""
        count = len(sight.couplings)
        at = np.unique(np.linspace(0, count - 1, min(count, COARSE)).round().astype(np.intp))
        lines = Lines.of(sample, sight.mass, sight.detector)
        likely = decay_probability(lines.chord, lines.momentum, sight.mass, sight.ctau[at])
        return cls(sight, at, lines, likely)

    def effective_share(self, weight: FloatArray, own: BoolArray | None = None) -> FloatArray:
        """Return the share of the measured kinematics that effectively makes up the yield, shape (k,).

        E[a]²/E[a²] over the density of the photons, a the probability to decay in the volume: times the pairs
        behind that density it is the effective number (Kish) of pairs that carry the yield. It does not
        depend on how the sample was drawn. inf where measured photons add nothing.
        """
        mine = weight if own is None else np.where(own, weight, 0.0)
        square = float(mine.sum()) * (np.square(self.probability) @ mine[self.index])
        total = (self.probability @ weight[self.index]) ** 2
        share = np.divide(total, square, out=np.full_like(total, np.inf), where=square > _TINY)
        known = np.log(np.clip(share, _TINY, 1.0))
        between = np.interp(np.log(self.sight.couplings), np.log(self.sight.couplings[self.at]), known)
        return np.where(np.isinf(share).all(), np.inf, np.exp(between))

    def marks(self, weight: FloatArray, pairs: float = np.inf, own: BoolArray | None = None) -> Index:
        """Return which of the couplings `at` matter most for a contour, at most six.

        The largest yield, where it has fallen to one event on both sides, half-way to there, and where ten
        events are left on the steep side. Where it stays below ten events, a tenth of the largest yield takes
        the place of one event.
        """
        sight = self.sight
        events = sight.scale[self.at] * (self.probability @ weight[self.index]) * sum(sight.states.values())
        if np.isfinite(pairs):
            events = np.where(pairs * self.effective_share(weight, own)[self.at] >= 1.0, events, 0.0)
        peak = int(np.argmax(events))
        if not events[peak] > 0:
            return np.empty(0, dtype=np.intp)
        level = min(1.0, events[peak] / 10.0)
        one, ten = (np.flatnonzero(events >= f * level)[[0, -1]] for f in (1.0, 9.99))
        between = (one[0] + peak) // 2, (peak + one[1]) // 2
        return np.unique([one[0], peak, *between, ten[1], one[1]]).astype(np.intp)


def watched(
    sight: Sight, sample: Sample, rng: Rng, pairs: float = np.inf, own: BoolArray | None = None
) -> tuple[Accepted, FloatArray]:
    """Return the particles that a detector sees, and the effective number of pairs behind each yield."""
    particles = turned(sample, sight.detector, rng)
    flight = Flight.of(sight, particles)
    marks = flight.marks(particles.weight, pairs, own)
    behind = pairs * flight.effective_share(particles.weight, own)
    return sight.accepted(particles, rng, sight.ctau[flight.at[marks]], lines=flight.lines), behind


def importance_of(sights: Sequence[Sight], rng: Rng, pairs: float = np.inf) -> Callable[[Sample], FloatArray]:
    """Return the function that says how much each particle of a sample counts for some detectors."""

    def rows(sample: Sample) -> FloatArray:
        found = [np.zeros((0, len(sample.weight)))]
        for sight in sights:
            seen_by = turned(sample, sight.detector, rng)
            flight = Flight.of(sight, seen_by)
            marks = flight.marks(seen_by.weight, pairs)
            part = np.zeros((len(marks), len(sample.weight)))
            part[:, flight.index] = flight.probability[marks]
            decayed = sight.accepted(seen_by, rng, spins=(NO_SPIN,), lines=flight.lines).index
            if len(decayed) >= FEW:
                visible = np.zeros(len(sample.weight))
                visible[decayed] = 1.0
                part *= visible
            found.append(part)
        return np.concatenate(found)

    return rows


def spin_states(
    longitudinal: float, sigma: float | None, frame: Frame, measured: SpinDensities | None = None
) -> tuple[Spin, ...]:
    """Return the spin state of the photons, and those whose yields with it span its error.

    Parameters
    ----------
    longitudinal : float
        Share of helicity zero along the axis of `frame`, where nothing is measured.
    sigma : float or None
        Its error. None: photons that are transverse along the axis of each frame in turn, as a Dalitz decay
        makes its photon transverse along an axis that no measurement of the photon alone knows.
    measured : SpinDensities, optional
        Then the states are the measured one and its shifts, up and down in turn.
    """
    if measured is not None:
        return (measured, *measured.shifted())
    if sigma is None:
        others = [SpinState(TRANSVERSE, axis) for axis in FRAMES]
    else:
        ends = np.clip([longitudinal - sigma, longitudinal + sigma], 0.0, 1.0).tolist() if sigma > 0 else []
        others = [SpinState(end, frame) for end in ends]
    return (SpinState(longitudinal, frame), *others)


def spin_ends(signal: FloatArray, others: FloatArray, *, paired: bool) -> FloatArray:
    """Return the two ends of the yields that the error of the spin state spans, shape (2, k)."""
    if not paired:
        every = np.concatenate([signal[np.newaxis], others])
        return np.stack([every.min(axis=0), every.max(axis=0)])
    half = 0.5 * np.sqrt(np.sum((others[::2] - others[1::2]) ** 2, axis=0))
    return np.stack([np.clip(signal - half, 0.0, None), signal + half])


def stacked(variations: Sequence[Variation]) -> FloatArray | None:
    """Return the factors of all variations, shape (r, n), or None if nothing varies."""
    return np.concatenate([v.factors for v in variations]) if variations else None


def varied(sample: Sample, variations: Sequence[Variation]) -> Sample:
    """Return the sample with all factors as replicas, or the sample itself if nothing varies it."""
    factors = stacked(variations)
    return sample if factors is None else Replicated.of(sample, factors)


@dataclass(frozen=True, slots=True, eq=False)
class PlaneRow:
    """The yields of one detector at one mass."""

    accepted: AcceptedYield
    # What each variation makes of the signal: a relative error (k,), a part (k,), or rows (r, k)
    varied: Sequence[tuple[Variation, FloatArray]]
    spins: FloatArray | None  # Ends of the signal that the error of the spin state spans, shape (2, k)
    scaling: float  # Relative error of the scaling with A
    # Effective number of pairs whose kinematics the signal rests on, shape (k,)
    pairs: FloatArray | float = np.inf


def row_of(
    accepted: AcceptedYield,
    variations: Sequence[Variation],
    scaling: float,
    *,
    measured_spin: bool = False,
    pairs: FloatArray | float = np.inf,
) -> PlaneRow:
    """Return the row of a yield whose replicas are those of `varied`.

    `measured_spin` says that its other spin states are shifts of a measured one; `scaling` (relative error
    of the carrying to the target of the search) and `pairs` as for `PlaneRow`.
    """
    rows, start = [], 0
    for variation in variations if accepted.replicas is not None else ():
        own = np.asarray(accepted.replicas)[start : start + len(variation.factors)]
        start += len(variation.factors)
        if variation.form == "relative":
            own = variation.estimate(accepted.signal, own)
        elif variation.form == "share":
            own = own[0]
        rows.append((replace(variation, factors=np.zeros((0, 0))), own))
    spins = accepted.spins
    ends = None if spins is None else spin_ends(accepted.signal, spins, paired=measured_spin)
    return PlaneRow(accepted, rows, ends, scaling, pairs)


def plane_of(
    rate: Rate,
    rows: Sequence[PlaneRow],
    *,
    width_sigma: FloatArray,
    pot_sigma: float = 0.0,
    curves: AcceptanceCurves | None = None,
) -> SignalPlane:
    """Return the plane of one detector from its rows, one per mass of the rate.

    Parameters
    ----------
    width_sigma : NDArray, shape (n,)
        Relative standard deviation of the total width.
    pot_sigma : float
        Relative uncertainty of the protons on target of the search.

    Notes
    -----
    A source counts as varied where every row has it; a band of theory is closed at the masses without it, and
    moves nothing there.
    """
    coupling = rows[0].accepted.couplings
    pairs = np.stack([np.broadcast_to(row.pairs, coupling.shape) for row in rows])
    signal, inside, error, effective = (
        np.stack([getattr(row.accepted, name) for row in rows])
        for name in ("signal", "in_domain_signal", "mc_error", "n_effective")
    )
    seen: dict[str, Variation] = {v.name + v.form: v for row in rows for v, _ in row.varied}
    parts: dict[str, FloatArray] = {}
    effects: dict[str, Effect] = {}
    for key, variation in seen.items():
        found = [next((x for v, x in row.varied if v.name + v.form == key), None) for row in rows]
        name, kind, form = variation.name, variation.kind, variation.form
        if form == "ends":
            whole = [np.repeat(row[np.newaxis], 2, axis=0) for row in signal]
            filled = [w if x is None else x for x, w in zip(found, whole, strict=True)]
            effects[name] = Effect(name, kind, form, np.stack(filled, axis=1))
        elif any(x is None for x in found):
            continue
        elif form == "share":
            parts[name] = np.stack([np.asarray(x) for x in found])
        else:
            axis = 0 if form == "relative" else 1
            effects[name] = Effect(name, kind, form, np.stack([np.asarray(x) for x in found], axis=axis))
    ordered = [effect for effect in effects.values() if effect.kind == "theory"]
    for name, sigma in ((SEARCH_POT, pot_sigma), (SCALING, max(row.scaling for row in rows))):
        if sigma > 0:
            of_kind: Kind = "pot" if name == SEARCH_POT else "scaling"
            ordered.append(Effect(name, of_kind, "relative", np.array([[sigma]])))
    if np.any(width_sigma):
        ordered.append(Effect(WIDTHS, "widths", "relative", width_shift(signal, coupling, width_sigma)))
    if all(row.spins is not None for row in rows):
        ends = np.stack([np.asarray(row.spins) for row in rows], axis=1)
        ordered.append(Effect(SPIN, "polarisation", "ends", ends))
    ordered += [effect for effect in effects.values() if effect.kind != "theory"]
    if FLOW not in effects and np.isfinite(pairs).any():
        values = np.where(signal > 0, 1.0 / np.sqrt(np.maximum(pairs, 1.0 / MOST**2)), 0.0)
        ordered.append(Effect(PAIRS, "kinematics", "relative", values))
    beyond = parts.pop(BEYOND, None)
    arrays = rate, coupling, signal, inside, error, effective, tuple(ordered), parts
    return SignalPlane(*arrays, width_sigma, curves, pairs, beyond)


def _measured_share(plane: SignalPlane) -> FloatArray:
    """Return the part of the signal from where dileptons were measured, zero where there is no signal."""
    return np.clip(np.nan_to_num(plane.in_domain_fraction), 0.0, 1.0)


def measured_only(plane: SignalPlane) -> SignalPlane:
    """Return the plane with the measured part of the signal alone.

    It has no error of an extrapolation and no theory; replicas and spin states keep their relative spread.
    """
    share = _measured_share(plane)
    effects = [e.times(share) for e in plane.effects if e.kind not in ("extrapolation", "theory")]
    widths = functools.partial(width_shift, plane.in_domain, plane.coupling, plane.width_sigma)
    moved = [replace(e, values=widths()) if e.name == WIDTHS else e for e in effects]
    parts = {VIRTUAL_PHOTON: plane.in_domain} if VIRTUAL_PHOTON in plane.parts else {}
    return replace(plane, signal=plane.in_domain, effects=tuple(moved), parts=parts, beyond=None)


def with_extrapolation(plane: SignalPlane, sigma: float) -> SignalPlane:
    """Return the plane with one given ln κ of the signal outside the measured domain."""
    share = _measured_share(plane)
    values = np.where(plane.signal > 0, (1.0 - share) * sigma, 0.0)
    given = Effect(EXTRAPOLATION, "extrapolation", "relative", values)
    return replace(plane, effects=(*(e for e in plane.effects if e.name != EXTRAPOLATION), given))


def acceptance_curves(
    samples: Mapping[float, tuple[Sample, Rng]],
    replicas: Callable[[float, npt.NDArray[np.intp]], FloatArray | None],
    ctau: FloatArray,
    detector: Detector,
    state: str,
    spin: Spin,
) -> AcceptanceCurves:
    """Return acceptance over the lifetime at a few masses (Eq. B1 and Fig. 9 of Allison and Blinov, 2025)."""
    curves, errors = np.zeros((2, len(samples), len(ctau)))
    for i, (mass, (sample, rng)) in enumerate(samples.items()):
        norm = sample.weight.sum()
        particles = turned(sample, detector, rng)
        lines = Lines.of(particles, mass, detector)
        seen = accepted(particles, lines, detector, states={state: 1.0}, rng=rng, spins=(spin,))
        members = replicas(mass, seen.index) if len(seen.index) else None
        scan = seen.scan(ctau, members)
        spread = 0.0 if scan.replicas is None else scan.replicas.std(axis=0, ddof=1)
        curves[i], errors[i] = scan.accepted / norm, np.hypot(scan.mc_error, spread) / norm
    return AcceptanceCurves(np.array(list(samples)), ctau, curves, errors)
