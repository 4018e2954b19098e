"""The spectrometer: muons through it, triggers, and candidates of every source as it records them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import LEPTON_MASS, M_MU
from gammastar.core.records import BoolArray, FloatArray
from gammastar.mock.card import Card, DetectorCard, Efficiency, Spectrometer, Target
from gammastar.mock.charm import CharmPairs
from gammastar.mock.cocktail import Dimuons
from gammastar.mock.combinatorial import DecayMuons, MuonPairs, decay_depth

__all__ = [
    "COMBINATORIAL",
    "Candidates",
    "accepted",
    "background_candidates",
    "bursts",
    "charm_candidates",
    "draw_muons",
    "efficiency",
    "event_columns",
    "false_pairs",
    "fired",
    "muon_columns",
    "pair_kinematics",
    "recorded_share",
    "sextant",
    "signal_candidates",
    "smear",
    "triggered",
    "vertex_z",
    "with_energy",
]


def sextant(px: FloatArray, py: FloatArray, count: int) -> npt.NDArray[np.int8]:
    """Return the number of the magnet's sector that a muon is in, from 0."""
    phi = np.mod(np.arctan2(py, px), 2.0 * np.pi)
    return np.minimum(phi * (count / (2.0 * np.pi)), count - 1).astype(np.int8)


def fired(
    card: Card, p: FloatArray, charge: npt.NDArray[np.int8], present: BoolArray
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Return trigger bits of events and the smallest prescale among the triggers that fired (0: none).

    Parameters
    ----------
    card : Card
        With a section ``[spectrometer]``.
    p : NDArray, shape (3, k, n)
        Momenta of up to k muons of n events.
    charge, present : NDArray, shape (k, n)
    """
    bits = np.zeros(present.shape[1], dtype=np.uint32)
    prescale = np.zeros(present.shape[1], dtype=np.int64)
    if card.spectrometer is None:
        return bits, prescale
    sector = sextant(p[0], p[1], card.detector.sextants)
    slots = [(i, j) for i in range(len(present)) for j in range(i)]
    for trigger in card.spectrometer.triggers.values():
        if trigger.muons < 2:
            good = present.sum(axis=0) >= trigger.muons
        else:
            good = np.zeros(present.shape[1], dtype=np.bool_)
            for i, j in slots:
                pair = present[i] & present[j]
                if trigger.different_sextants:
                    pair &= sector[i] != sector[j]
                if trigger.charge != "any":
                    pair &= (charge[i] == charge[j]) == (trigger.charge == "like")
                good |= pair
            good &= present.sum(axis=0) >= trigger.muons
        bits |= np.where(good, np.uint32(1) << np.uint32(trigger.bit), np.uint32(0)).astype(np.uint32)
        better = good & ((prescale == 0) | (trigger.prescale < prescale))
        prescale[better] = trigger.prescale
    return bits, prescale


def recorded_share(
    card: Card, p: FloatArray, charge: npt.NDArray[np.int8], present: BoolArray, *, prescaled: bool = True
) -> FloatArray:
    """Return the share of events that the triggers record: one over the prescale, or zero."""
    if card.spectrometer is None:
        return np.ones(present.shape[1])
    _, prescale = fired(card, p, charge, present)
    share = np.divide(1.0, prescale, out=np.zeros(len(prescale)), where=prescale > 0)
    return share if prescaled else np.asarray(prescale > 0, dtype=np.float64)


def vertex_z(target: Target, uniform: FloatArray) -> FloatArray:
    """Return the place of interactions along the target, about its middle [cm], from numbers in ±½.

    Notes
    -----
    Attenuated: dN/dz ∝ exp(−L z/l) over the length l of a target of L interaction lengths.
    """
    if target.profile == "uniform":
        return np.asarray(uniform * target.z_size, dtype=np.float64)
    depth = -np.log1p((uniform + 0.5) * np.expm1(-target.thickness)) / target.thickness
    return np.asarray((depth - 0.5) * target.z_size, dtype=np.float64)


def pieces(target: Target, n: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.int8], FloatArray]:
    """Return index and place [cm] of the target that each event comes from."""
    if target.pieces is None:
        return np.full(n, target.index, dtype=np.int8), np.zeros(n)
    found = list(target.pieces.values())
    share = np.array([piece.share for piece in found])
    chosen = rng.choice(len(found), n, p=share / share.sum())
    return (
        np.array([piece.index for piece in found], dtype=np.int8)[chosen],
        np.array([piece.z for piece in found])[chosen],
    )


def bursts(n: int, pot: float, part: Spectrometer, rng: np.random.Generator) -> tuple[Any, int]:
    """Return the burst of every event, in order, and the number of bursts of the exposure."""
    count = max(int(np.ceil(pot / part.pot_per_burst)), 1)
    return np.sort(rng.integers(0, count, n)).astype(np.int32), count


def event_columns(
    part: Spectrometer, counts: npt.NDArray[Any], rng: np.random.Generator
) -> dict[str, npt.NDArray[Any]]:
    """Return columns of the interaction vertex: its tracks and χ² per degree of freedom."""
    n = len(counts)
    tracks = counts + rng.poisson(part.tracks, n)
    dof = np.maximum(2 * tracks - 3, 1)
    return {"PV_ntrk": tracks.astype(np.int16), "PV_chi2": (rng.chisquare(dof) / dof).astype(np.float32)}


def muon_columns(
    card: Card, part: Spectrometer, p: FloatArray, wide: FloatArray, rng: np.random.Generator
) -> Mapping[str, npt.NDArray[Any]]:
    """Return hits, χ², offsets and sextant of muons.

    Parameters
    ----------
    card : Card
    part : Spectrometer
    p : NDArray, shape (3, n)
        [GeV]
    wide : NDArray of bool, shape (n,)
        Muons of decays in flight, whose kink widens offset and match.
    rng : numpy.random.Generator
    """
    n = p.shape[1]
    factor = np.where(wide, part.kink, 1.0)
    size = np.sqrt(np.sum(p**2, axis=0))
    sigma = np.hypot(part.offset_constant, part.offset_scattering / size) * factor
    pixels = np.asarray(rng.binomial(part.planes, part.hit_efficiency, n))
    stations = np.asarray(rng.binomial(part.stations, part.hit_efficiency, n))
    freedom = np.maximum(2 * pixels - 5, 1)
    return {
        "chi2trk": (rng.chisquare(freedom) / freedom).astype(np.float32),
        "chi2match": (factor**2 * rng.chisquare(5, n) / 5.0).astype(np.float32),
        "nPix": pixels.astype(np.int16),
        "nMS": stations.astype(np.int16),
        "dx": sigma * rng.standard_normal(n),
        "dy": sigma * rng.standard_normal(n),
        "sextant": sextant(p[0], p[1], card.detector.sextants),
    }


def accepted(muon: FloatArray, card: DetectorCard) -> BoolArray:
    """Return True where a muon reaches the spectrometer: energy above the absorber's, angle inside the cone.

    Parameters
    ----------
    muon : NDArray, shape (4, ...)
        px, py, pz, E [GeV].
    card : DetectorCard
    """
    px, py, pz, energy = muon
    slope2 = px**2 + py**2
    inside = (slope2 > (np.tan(card.theta_min) * pz) ** 2) & (slope2 < (np.tan(card.theta_max) * pz) ** 2)
    inside &= (pz > 0) & (energy > card.e_min)
    if card.pt_min > 0:
        inside &= slope2 > card.pt_min**2
    if card.coil > 0:
        sector = 2.0 * np.pi / card.sextants
        into = np.mod(np.arctan2(py, px), sector)
        inside &= np.minimum(into, sector - into) > card.coil
    return np.asarray(inside, dtype=np.bool_)


def pair_kinematics(first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return mass, pt and energy of pairs of four-momenta, shape (4, n) each [GeV]."""
    px, py, pz, energy = first + second
    pt2 = px**2 + py**2
    return np.sqrt(np.maximum(energy**2 - pz**2 - pt2, 0.0)), np.sqrt(pt2), energy


def efficiency(mass: FloatArray, pt: FloatArray, energy: FloatArray, card: Efficiency) -> FloatArray:
    """Return the trigger and reconstruction efficiency of a pair of accepted muons.

    Parameters
    ----------
    mass, pt, energy : NDArray, shape (n,)
        Of the pair [GeV].
    card : Efficiency

    Notes
    -----
    plateau × [1 − d exp(−(m² + pt²)/2s²)] × 1/(1 + exp(−(E − E½)/w)): soft pairs and low energies lose, and
    it does not depend on the charges, so that it cancels in the like-sign ratio R.
    """
    soft = 1.0 - card.soft_depth * np.exp(-(mass**2 + pt**2) / (2.0 * card.soft_scale**2))
    turn_on = 1.0 / (1.0 + np.exp(-(energy - card.energy_half) / card.energy_width))
    return np.asarray(card.plateau * soft * turn_on, dtype=np.float64)


def smear(momentum: FloatArray, card: DetectorCard, rng: np.random.Generator) -> FloatArray:
    """Return measured three-momenta.

    Parameters
    ----------
    momentum : NDArray, shape (3, ...)
        px, py, pz [GeV], pz > 0.
    card : DetectorCard
    rng : numpy.random.Generator

    Notes
    -----
    Gaussian relative error of the momentum and Gaussian errors of the two slopes.
    """
    px, py, pz = momentum
    p = np.sqrt(px**2 + py**2 + pz**2)
    measured = p * np.maximum(1.0 + card.sigma_p * rng.standard_normal(p.shape), 0.05)
    safe = np.where(pz > 0, pz, 1.0)
    slope_x = px / safe + card.sigma_theta * rng.standard_normal(p.shape)
    slope_y = py / safe + card.sigma_theta * rng.standard_normal(p.shape)
    z = measured / np.sqrt(1.0 + slope_x**2 + slope_y**2)
    return np.stack([z * slope_x, z * slope_y, z])


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
        return Candidates(*(getattr(self, f.name)[..., index] for f in fields(self)))

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
    """Return the cocktail events with at least `minimum` accepted muons.

    Parameters
    ----------
    card : Card
    dimuons : Dimuons
    rng : numpy.random.Generator
    muons : DecayMuons, optional
        With `probability` one of these joins the pair.
    probability : float
    minimum : int
    """
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
    chosen = np.flatnonzero(present.sum(axis=0) >= minimum)
    present, n = present[:, chosen], len(chosen)
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
