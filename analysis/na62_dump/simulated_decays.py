"""Simulated decays as an experiment records them, reweighted to every coupling afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tracking import Species, Spectrometer, Tracks, measure

from gammastar.accept.decay import (
    LEPTONS,
    angular_weights,
    decay_probability,
    decay_weight,
    forced_decay,
    lepton_pair,
    momenta,
)
from gammastar.core.errors import PhysicsError
from gammastar.core.records import BoolArray, FloatArray, Sample
from gammastar.physics.detector import Detector
from gammastar.physics.polarisation import NO_SPIN, Spin

if TYPE_CHECKING:
    import awkward as ak


_SPECIES: Mapping[str, Species] = {"ee": "e", "mumu": "mu"}
_BLOCK = 400_000


@dataclass(frozen=True, slots=True, eq=False)
class SignalEvents:
    """Decays with two found tracks, and all that crossed the volume."""

    mass: float  # [GeV]
    state: str
    positive: Tracks
    negative: Tracks
    # Particles per proton and squared coupling, times the density of the lepton angles over the isotropic
    # one; path to the decay [m] and the density with which it was placed [1/m]; momentum of the parent [GeV],
    # shape (n,)
    weight: FloatArray
    distance: FloatArray
    density: FloatArray
    momentum: FloatArray
    vertex: FloatArray  # True decay point, shape (n, 3) [m]
    in_domain: BoolArray  # shape (n,)
    # shape (N,)
    crossing_weight: FloatArray
    crossing_momentum: FloatArray
    # Everything whose line crosses the volume, for the normalisation of efficiencies, shape (N, 2)
    crossing_chord: FloatArray
    n_generated: int

    def __len__(self) -> int:
        return len(self.weight)

    def branches(self) -> dict[str, Any]:
        """Return the events as branches of a tree: jagged ``Track``, flat event and truth columns."""
        n = len(self)
        order = np.arange(n, dtype=np.int64)
        tracks = Tracks.concatenate([self.positive, self.negative])
        return {
            "event": order,
            "Track": track_collection(tracks, np.concatenate([order, order]), n),
            "weight": self.weight,
            "gen_momentum": self.momentum,
            "gen_distance": self.distance,
            "gen_density": self.density,
            **{f"gen_{axis}": self.vertex[:, i] for i, axis in enumerate("xyz")},
        }


def track_collection(tracks: Tracks, event: npt.NDArray[np.int64], n_events: int) -> ak.Array:
    """Return tracks as one list of records per event, in the order of the events."""
    order = np.argsort(event, kind="stable")
    columns = {name: tracks.p[order, i] for i, name in enumerate(("px", "py", "pz"))}
    columns |= {name: tracks.point[order, i] for i, name in enumerate("xyz")}
    columns |= {name: getattr(tracks, name)[order] for name in ("charge", "energy", "muon_hit", "time")}
    import awkward as ak  # here: a reach needs none

    return ak.unflatten(ak.zip(columns), np.bincount(event, minlength=n_events))


def signal_events(
    sample: Sample,
    mass: float,
    state: str,
    detector: Detector,
    card: Spectrometer,
    *,
    rng: np.random.Generator,
    spin: Spin = NO_SPIN,
) -> SignalEvents:
    """Decay a sample once per particle in the volume and measure both leptons.

    Parameters
    ----------
    sample : Sample
        Particles per proton on target at unit coupling; origins relative to the detector's target.
    mass : float [GeV]
    state : {"ee", "mumu"}
    detector : Detector
        Its planes carry the apertures; momentum cuts and separations belong to the selection.
    card : Spectrometer
        Also spreads the beam spot and the depth of production.
    spin : Spin
        Of particles whose parent the sample does not carry.

    Raises
    ------
    PhysicsError
        If the sample is empty or of another mass, or the state is not one of the two.
    """
    if state not in _SPECIES:
        raise PhysicsError(f"signal events: state {state!r} must be one of {sorted(_SPECIES)}")
    p = momenta(sample, mass)
    n = p.shape[1]
    origin = sample.origin + np.asarray(detector.target.position)
    origin = origin + np.column_stack(
        [card.beam_spot * rng.standard_normal((n, 2)), card.depth * rng.standard_exponential(n)]
    )
    chord = detector.volume.chord(origin, p[:3].T)
    hit = ~np.isnan(chord[:, 0])
    p, origin, chord = p[:, hit], origin[hit], chord[hit]
    momentum = np.linalg.norm(p[:3], axis=0)
    weight, in_domain = sample.weight[hit], sample.in_domain[hit]
    distance, density = forced_decay(chord, rng)
    vertex = origin + distance[:, None] * (p[:3] / momentum).T
    leptons = lepton_pair(p, mass, LEPTONS[state], rng)
    angles = angular_weights(
        p,
        mass,
        leptons[0],
        LEPTONS[state],
        (spin,),
        beam_energy=detector.beam_energy,
        meson=None if sample.parent is None else sample.parent[hit],
    )[0]
    measured = [
        measure(vertex, lepton, charge, _SPECIES[state], detector, card, rng)
        for lepton, charge in zip(leptons, (1, -1), strict=True)
    ]
    keep = measured[0][1] & measured[1][1]
    return SignalEvents(
        mass=mass,
        state=state,
        positive=measured[0][0].select(keep),
        negative=measured[1][0].select(keep),
        weight=(weight * angles)[keep],
        distance=distance[keep],
        density=density[keep],
        momentum=momentum[keep],
        vertex=vertex[keep],
        in_domain=in_domain[keep],
        crossing_weight=weight,
        crossing_momentum=momentum,
        crossing_chord=chord,
        n_generated=n,
    )


@dataclass(frozen=True, slots=True, eq=False)
class SignalScan:
    """Selected events per proton and squared coupling, for each lifetime."""

    ctau: FloatArray  # shape (k,) [m]
    # Selected events, and decays inside the volume, for a branching ratio of one, shape (k,)
    selected: FloatArray
    decays: FloatArray
    in_domain: FloatArray  # The part of `selected` where lepton pairs were measured, shape (k,)
    # Statistical error of `selected`, and the effective number of events behind it, shape (k,)
    mc_error: FloatArray
    n_effective: FloatArray
    # Root mean square of reconstructed minus true mass [GeV]; nan without events, shape (k,)
    resolution: FloatArray

    @property
    def efficiency(self) -> FloatArray:
        """Selected events over decays in the volume; nan where nothing decays."""
        nothing = np.full_like(self.selected, np.nan)
        return np.divide(self.selected, self.decays, out=nothing, where=self.decays > 0)


def signal_scan(
    events: SignalEvents, passed: BoolArray, reconstructed: FloatArray, ctau: npt.ArrayLike
) -> SignalScan:
    """Return selected events, efficiency and mass resolution for every lifetime from one set of events.

    Parameters
    ----------
    passed : NDArray of bool, shape (n,)
    reconstructed : NDArray, shape (n,) [GeV]
        Reconstructed mass.
    ctau : array_like, shape (k,) [m]
    """
    lifetimes = np.atleast_1d(np.asarray(ctau, dtype=np.float64))
    if passed.shape != (len(events),) or reconstructed.shape != (len(events),):
        raise PhysicsError(
            f"signal scan: {len(events)} events, {passed.shape} flags and {reconstructed.shape} masses"
        )
    factor = decay_weight(
        events.distance[passed], events.density[passed], events.momentum[passed], events.mass, lifetimes
    )
    factor = factor * events.weight[passed]
    selected, square = factor.sum(axis=1), np.square(factor).sum(axis=1)
    spread = factor @ np.square(reconstructed[passed] - events.mass)
    nothing = np.full_like(selected, np.nan)
    n = events.n_generated
    return SignalScan(
        ctau=lifetimes,
        selected=selected,
        decays=_decays(events, lifetimes),
        in_domain=factor @ events.in_domain[passed].astype(np.float64),
        mc_error=np.sqrt(np.clip(square - selected**2 / n, 0.0, None) * n / max(1, n - 1)),
        n_effective=np.divide(selected**2, square, out=np.zeros_like(selected), where=square > 0),
        resolution=np.sqrt(np.divide(spread, selected, out=nothing, where=selected > 0)),
    )


def _decays(events: SignalEvents, ctau: FloatArray) -> FloatArray:
    total = np.zeros(len(ctau))
    step = max(1, _BLOCK // len(ctau))
    for start in range(0, len(events.crossing_weight), step):  # blocks of bounded memory
        part = slice(start, start + step)
        probability = decay_probability(
            events.crossing_chord[part], events.crossing_momentum[part], events.mass, ctau
        )
        total += probability @ events.crossing_weight[part]
    return total
