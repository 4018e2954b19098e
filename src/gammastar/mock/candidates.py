"""Events on their way to the ntuple: a muon pair, a third muon, and what the spectrometer keeps of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import LEPTON_MASS, M_MU
from gammastar.core.records import BoolArray, FloatArray
from gammastar.mock.card import Card
from gammastar.mock.charm import CharmPairs
from gammastar.mock.cocktail import Dimuons
from gammastar.mock.combinatorial import DecayMuons, MuonPairs, decay_depth
from gammastar.mock.spectrometer import accepted, efficiency, pair_kinematics, recorded_share

COMBINATORIAL = 8  # process code


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Events with up to three muons: slots 0 and 1 are the pair, slot 2 a decay muon of the same event."""

    p: FloatArray  # (3, 3, n): component, slot, event
    charge: npt.NDArray[np.int8]  # (3, n)
    present: BoolArray  # (3, n)
    mother: npt.NDArray[np.int32]  # (3, n)
    process: npt.NDArray[np.int8]  # (n,)
    gen: FloatArray  # (3, n): mass, pt, energy
    weight: FloatArray  # (n,)
    offset: FloatArray  # (2, 3, n): x and y of the track at the vertex [µm], zero without displacement
    kept: FloatArray  # (3, n): share of the momentum left after radiation
    decay_z: FloatArray  # (3, n): where the muon was born, along the beam from the interaction [cm]

    def __len__(self) -> int:
        return len(self.weight)

    def take(self, index: npt.NDArray[Any]) -> Candidates:
        """Return the events at these indices."""
        return Candidates(*(np.take(getattr(self, f.name), index, axis=-1) for f in fields(self)))

    @staticmethod
    def concatenate(parts: list[Candidates]) -> Candidates:
        """Return one set of events from several."""
        return Candidates(
            *(np.concatenate([getattr(part, f.name) for part in parts], axis=-1) for f in fields(Candidates))
        )


def with_energy(p: FloatArray, mass: float = M_MU) -> FloatArray:
    """Return four-momenta of leptons, shape (4, ...), from momenta of shape (3, ...) [GeV]."""
    return np.concatenate([p, np.sqrt(np.sum(p**2, axis=0, keepdims=True) + mass**2)])


def draw_muons(
    muons: DecayMuons,
    index: npt.NDArray[np.int64],
    rng: np.random.Generator,
    *,
    turn: FloatArray | None = None,
    sextants: int = 1,
    length: float = np.inf,
) -> tuple[FloatArray, npt.NDArray[np.int8], npt.NDArray[np.int32], FloatArray]:
    """Return momenta, shape (3, n), charges, mothers and places of decay [cm] of muons at fresh azimuths.

    Notes
    -----
    Azimuths of different hadrons are independent in the toy engine, so a muon may be used again after a turn.
    Where they are not, `turn` is the common turn of the muons of an event. In a magnet of several sextants
    a turn is by whole sextants, so that no muon comes to lie in a coil.
    """
    px, py, pz, _ = muons.p[:, index]
    pt = np.hypot(px, py)
    if turn is None and sextants == 1:
        phi = rng.uniform(-np.pi, np.pi, len(index))
    else:
        phi = np.arctan2(py, px) + (_turn(len(index), sextants, rng) if turn is None else turn)
    p = np.stack([pt * np.cos(phi), pt * np.sin(phi), pz])
    z = decay_depth(p, muons.flight[index], length, rng.spawn(1)[0])  # the other numbers stay as they are
    return p, muons.charge[index], muons.mother[index], z


def _turn(n: int, sextants: int, rng: np.random.Generator) -> FloatArray:
    if sextants == 1:
        return np.asarray(rng.uniform(-np.pi, np.pi, n))
    return np.asarray(rng.integers(0, sextants, n) * (2.0 * np.pi / sextants))


def _third(
    muons: DecayMuons | None, present: BoolArray, rng: np.random.Generator, sextants: int, length: float
) -> tuple[FloatArray, npt.NDArray[np.int8], npt.NDArray[np.int32], FloatArray]:
    """Return momenta, charges, mothers and places of the third muons of the events where one is present."""
    n = len(present)
    p, charge, mother = np.zeros((3, n)), np.ones(n, dtype=np.int8), np.zeros(n, dtype=np.int32)
    place = np.zeros(n)
    if muons is not None and bool(present.any()):
        cumulative = np.cumsum(muons.weight)
        index = np.searchsorted(cumulative, rng.random(int(present.sum())) * cumulative[-1])
        p[:, present], charge[present], mother[present], place[present] = draw_muons(
            muons, index.astype(np.int64), rng, sextants=sextants, length=length
        )
    return p, charge, mother, place


def signal_candidates(
    card: Card,
    dimuons: Dimuons,
    rng: np.random.Generator,
    *,
    muons: DecayMuons | None = None,
    probability: float = 0.0,
    minimum: int = 0,
) -> Candidates:
    """Return the cocktail events with at least `minimum` accepted muons."""
    pdg = np.zeros(128, dtype=np.int32)
    for mode in card.modes.values():
        pdg[mode.process] = card.mesons[mode.meson].pdg
    parent = pdg[dimuons.process]
    pairs = CharmPairs(dimuons, np.zeros((2, 2, 0)), np.stack([parent, parent]), np.zeros((2, 0)))
    return charm_candidates(card, pairs, rng, muons=muons, probability=probability, minimum=minimum)


def charm_candidates(
    card: Card,
    pairs: CharmPairs,
    rng: np.random.Generator,
    *,
    muons: DecayMuons | None = None,
    probability: float = 0.0,
    minimum: int = 2,
) -> Candidates:
    """Return the events of open charm with at least `minimum` accepted muons; as `signal_candidates`."""
    dimuons = pairs.dimuons
    present = np.stack(
        [
            accepted(dimuons.plus, card.detector),
            accepted(dimuons.minus, card.detector),
            rng.random(len(dimuons)) < probability,
        ]
    )
    every: Any = slice(None)
    chosen = np.flatnonzero(present.sum(axis=0) >= minimum) if minimum > 0 else every
    present = present[:, chosen]
    n = present.shape[1]
    length = card.background.decay_length
    p, charge, mother, place = _third(muons, present[2], rng, card.detector.sextants, length)
    offset, decay_z = np.zeros((2, 3, n)), np.zeros((3, n))
    decay_z[2] = place
    if pairs.offset.size:
        offset[:, :2], decay_z[:2] = pairs.offset[:, :, chosen], pairs.decay_z[:, chosen]
    return Candidates(
        p=np.stack([dimuons.plus[:3, chosen], dimuons.minus[:3, chosen], p], axis=1),
        charge=np.stack([np.ones(n, dtype=np.int8), -np.ones(n, dtype=np.int8), charge]),
        present=present,
        mother=np.concatenate([pairs.mother[:, chosen], mother[np.newaxis]]),
        process=dimuons.process[chosen],
        gen=np.stack([dimuons.mass[chosen], dimuons.pt[chosen], dimuons.energy[chosen]]),
        weight=dimuons.weight[chosen],
        offset=offset,
        kept=np.concatenate([dimuons.kept[:, chosen], np.ones((1, n))]),
        decay_z=decay_z,
    )


def background_candidates(
    pairs: MuonPairs,
    expected: float,
    probability: float,
    rng: np.random.Generator,
    sextants: int = 1,
    length: float = np.inf,
) -> Candidates:
    """Return unweighted background events, `expected` of them per unit of the pairs' weight.

    `length` is the path on which hadrons decay [m].
    """
    times = rng.poisson(expected * pairs.weight)
    first, second = np.repeat(pairs.first, times), np.repeat(pairs.second, times)
    n = len(first)
    turn = _turn(n, sextants, rng) if pairs.muons.correlated else None
    a, b = (
        draw_muons(pairs.muons, i, rng, turn=turn, sextants=sextants, length=length) for i in (first, second)
    )
    present = rng.random(n) < probability
    p, charge, mother, place = _third(pairs.muons, present, rng, sextants, length)
    both = np.ones(n, dtype=np.bool_)
    p_all = np.stack([a[0], b[0], p], axis=1)
    mass, pt, energy = pair_kinematics(with_energy(p_all[:, 0]), with_energy(p_all[:, 1]))
    return Candidates(
        p=p_all,
        charge=np.stack([a[1], b[1], charge]),
        present=np.stack([both, both, present]),
        mother=np.stack([a[2], b[2], mother]),
        process=np.full(n, COMBINATORIAL, dtype=np.int8),
        gen=np.stack([mass, pt, energy]),
        weight=np.ones(n),
        offset=np.zeros((2, 3, n)),
        kept=np.ones((3, n)),
        decay_z=np.stack([a[3], b[3], place]),
    )


def triggered(
    card: Card, candidates: Candidates, rng: np.random.Generator, *, prescaled: bool = True
) -> BoolArray:
    """Return True for events with two accepted muons whose leading slots pass trigger and reconstruction."""
    enough = candidates.present.sum(axis=0) >= 2
    chosen = np.flatnonzero(enough)
    slots = np.argsort(~candidates.present[:, chosen], axis=0, kind="stable")[:2]
    p = candidates.p[:, slots, chosen]
    mass = LEPTON_MASS[card.lepton]
    pair = pair_kinematics(with_energy(p[:, 0], mass), with_energy(p[:, 1], mass))
    probability = efficiency(*pair, card.efficiency)
    if card.spectrometer is not None:
        probability *= recorded_share(
            card,
            candidates.p[:, :, chosen],
            candidates.charge[:, chosen],
            candidates.present[:, chosen],
            prescaled=prescaled,
        )
    enough[chosen] = rng.random(len(chosen)) < probability
    return np.asarray(enough, dtype=np.bool_)


def false_pairs(candidates: Candidates) -> FloatArray:
    """Return weighted numbers of +−, ++ and −− pairs that hold the third muon, shape (3,)."""
    total = np.zeros(3)
    for slot in (0, 1):
        both = candidates.present[slot] & candidates.present[2]
        charge = candidates.charge[slot] + candidates.charge[2]
        total += [float(candidates.weight[both & (charge == q)].sum()) for q in (0, 2, -2)]
    return total
