"""Where the particles of a search come from: azimuths, couplings and kinematics that a detector lives on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.accept.decay import decay_probability
from gammastar.accept.expected_events import Sight
from gammastar.accept.lifetimes import Accepted, Lines
from gammastar.core.records import BoolArray, FloatArray, Momenta, Sample
from gammastar.physics.detector import Detector
from gammastar.physics.polarisation import NO_SPIN

Index: TypeAlias = npt.NDArray[np.intp]
COARSE = 36  # couplings between which the smooth quantities here are interpolated
_TINY = 1e-300
FEW = 30  # decays that a detector sees, below which the lines alone say where to look


def turned(sample: Sample, detector: Detector, rng: np.random.Generator) -> Sample:
    """Return the sample turned about the beam into the azimuths in which a detector stands.

    Notes
    -----
    A straight line from the beam axis keeps its azimuth, and so does the projection of the decay volume.
    """
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

        Notes
        -----
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

        Notes
        -----
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
    sight: Sight,
    sample: Sample,
    rng: np.random.Generator,
    pairs: float = np.inf,
    own: BoolArray | None = None,
) -> tuple[Accepted, FloatArray]:
    """Return the particles that a detector sees, and the effective number of pairs behind each yield."""
    particles = turned(sample, sight.detector, rng)
    flight = Flight.of(sight, particles)
    marks = flight.marks(particles.weight, pairs, own)
    behind = pairs * flight.effective_share(particles.weight, own)
    return sight.accepted(particles, rng, sight.ctau[flight.at[marks]], lines=flight.lines), behind


def importance_of(
    sights: Sequence[Sight], rng: np.random.Generator, pairs: float = np.inf
) -> Callable[[Sample], FloatArray]:
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
