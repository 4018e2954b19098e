"""Decays in a decay volume as events for a simulation of the detector: HepMC3, Les Houches, ROOT, CSV."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gammastar.accept.decay import (
    angular_weights,
    decay_weight,
    forced_decay,
    inverse_decay_length,
    lepton_pair,
)
from gammastar.accept.expected_events import LongLived, Measured
from gammastar.accept.lifetimes import LEPTONS, momenta
from gammastar.core.errors import PhysicsError
from gammastar.core.sampling import stream
from gammastar.physics.detector import Detector
from gammastar.physics.polarisation import NO_SPIN
from gammastar.predict.channel import Channel
from gammastar.predict.transfer import TargetTransfer
from gammastar.store.events import EventTable, write_events

PDG = {"ee": 11, "mumu": 13}
MOST, MOST_IN_ALL = 40, 400_000  # particles drawn per event that is written, and in all


@dataclass(frozen=True)
class Point:
    """A particle that decays in a detector."""

    mass: float  # [GeV]
    coupling: float
    state: str  # "ee", "mumu"


@dataclass(frozen=True)
class Stand:
    """Where and how particles decay."""

    model: LongLived  # Lifetime and branching ratio
    # Volume, beam and exposure; magnets, planes, cuts and efficiencies are left to the simulation
    detector: Detector
    # As for `gammastar.accept.yields`; its first spin state is that of the particles
    measured: Measured | None = None
    name: str = ""  # Of the detector, for the interaction length of its target in `transfer`
    # How particles of the measured target become those of the detector's
    transfer: TargetTransfer = field(default_factory=TargetTransfer)


def write_decays(
    path: Path, channel: Channel, stand: Stand, point: Point, *, n: int, seed: int = 1
) -> tuple[float, float]:
    """Write decays to two leptons inside the decay volume, before any cut on them.

    Parameters
    ----------
    path : Path
        Suffix as `gammastar.store.events.write_events`.
    n : int
        Events, of equal weight: their weights sum to the expected number of decays in the volume.

    Returns
    -------
    expected : float
        Decays to this state in the volume, for the exposure of the detector.
    effective : float
        Effective number of sampled decays behind the events (Kish); events repeat where it is below `n`.

    Raises
    ------
    PhysicsError
        If the state is closed or unknown, or no particle crosses the volume.

    Notes
    -----
    The production vertex is at the target's position at time zero. The vertex of the decay carries c·t = its
    distance over β in HepMC3; the Les Houches line has the proper lifetime c·τ [mm] (VTIMUP).
    """
    lepton = LEPTONS.get(point.state)
    if lepton is None or point.mass <= 2 * lepton:
        raise PhysicsError(
            f"state {point.state!r} at {point.mass:g} GeV: give one of {', '.join(LEPTONS)} that is open"
        )
    detector, model, measured = stand.detector, stand.model, stand.measured
    rng = stream(seed, "decays", detector.name, f"{point.mass:.6g}")
    sample = channel.produce(point.mass, n=min(MOST * n, MOST_IN_ALL), rng=rng)
    if measured is not None:
        target = stand.name, detector.target
        sample, _ = stand.transfer.carry(sample, target, (measured.exposure.target_a, None), rng)
    p = momenta(sample, point.mass)
    origin = sample.origin + np.asarray(detector.target.position)
    chord = detector.volume.chord(origin, p[:3].T)
    hit = np.flatnonzero(~np.isnan(chord[:, 0]))
    if not len(hit):
        many = f"{len(sample.weight)} particles of {point.mass:g} GeV"
        raise PhysicsError(f"{detector.name}: none of {many} crosses the decay volume")
    p, origin, chord = p[:, hit], origin[hit], chord[hit]
    momentum = np.linalg.norm(p[:3], axis=0)
    ctau = float(np.asarray(model.ctau(point.mass, np.array([point.coupling]))).ravel()[0])
    inverse = inverse_decay_length(momentum, point.mass, np.array([ctau]))
    distance, density = forced_decay(chord, rng, inverse)
    leptons = lepton_pair(p, point.mass, lepton, rng)
    weight = sample.weight[hit] * decay_weight(distance, density, momentum, point.mass, ctau)
    weight *= angular_weights(
        p,
        point.mass,
        leptons[0],
        lepton,
        (NO_SPIN,) if measured is None else measured.spins[:1],
        beam_energy=detector.beam_energy,
        meson=None if sample.parent is None else sample.parent[hit],
    )[0]
    factor = 1.0 if measured is None else measured.factor(detector)
    weight *= factor * detector.exposure * point.coupling**2 * model.branching(point.mass)[point.state]
    expected = float(weight.sum())
    if not expected > 0:
        raise PhysicsError(
            f"{detector.name}: no decay is expected at {point.mass:g} GeV and coupling {point.coupling:g}"
        )
    steps = (np.arange(n) + rng.uniform()) / n
    drawn = np.searchsorted(np.cumsum(weight) / expected, steps, side="right")
    drawn = rng.permutation(np.minimum(drawn, len(weight) - 1))
    vertex = origin + distance[:, None] * (p[:3] / momentum).T
    positive, negative = leptons
    events = EventTable(
        number=np.arange(n),
        p4=p[:, drawn],
        mass=np.full(n, point.mass),
        weight=np.full(n, expected / n),
        origin=origin[drawn].T,
        daughters=((PDG[point.state], negative[:, drawn]), (-PDG[point.state], positive[:, drawn])),
        decay=vertex[drawn].T,
    )
    write_events(path, events, beam_energy=detector.beam_energy)
    return expected, expected**2 / float(np.sum(weight**2))
