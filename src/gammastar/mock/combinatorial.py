"""Pairs of muons of pions and kaons that decay in flight before the absorber.

Hadrons come in charge-balanced clusters, so opposite-sign pairs are more frequent than twice the geometric
mean of the like-sign ones: R > 1, as charge conservation demands of every real event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from gammastar.core import constants
from gammastar.core.constants import M_MU, M_PI0
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.mock.card import Card, Hadron
from gammastar.mock.cocktail import (
    beam_kinematics,
    momentum,
    photon_leg,
    rapidity_limit,
    sample_pt,
    truncated_normal,
)
from gammastar.mock.spectrometer import accepted, efficiency, pair_kinematics, recorded_share
from gammastar.physics.kinematics import daughter

Pairing: TypeAlias = Literal["same-event", "mixed"]
PAIRINGS: tuple[str, ...] = get_args(Pairing)
IntArray: TypeAlias = npt.NDArray[np.int64]

NEUTRAL_PION = 111
CHUNK = 20_000  # interactions at a time
N_BLOCKS = 50  # blocks of interactions for the error of R


@dataclass(frozen=True, slots=True, eq=False)
class MuonPairs:
    """Pairs of decay muons: indices into `muons`, and weights (pairs per interaction when summed)."""

    muons: DecayMuons
    first: IntArray
    second: IntArray
    weight: FloatArray

    @property
    def charge(self) -> npt.NDArray[np.int64]:
        """Sum of the charges: +2, 0, −2."""
        charge = self.muons.charge.astype(np.int64)
        return charge[self.first] + charge[self.second]


def muon_pairs(muons: DecayMuons, rng: np.random.Generator, *, pairing: Pairing = "same-event") -> MuonPairs:
    """Pair decay muons."""
    if str(pairing) not in PAIRINGS:
        msg = f"pairing = {pairing!r} is not one of {list(PAIRINGS)}"
        raise PhysicsError(msg)
    if pairing == "same-event":
        first, second = _same_event(muons.event)
        return MuonPairs(muons, first, second, muons.weight[first] * muons.weight[second] / muons.n_events)
    n = len(muons.event)
    reach = np.concatenate([rng.permutation(n) for _ in range(4)])
    first, second = np.tile(np.arange(n), 4), reach
    other = muons.event[first] != muons.event[second]
    first, second = first[other], second[other]
    product = muons.weight[first] * muons.weight[second]
    rate = 0.5 * (float(muons.weight.sum()) / muons.n_events) ** 2  # pairs per interaction, independent muons
    return MuonPairs(muons, first, second, product * (rate / float(product.sum())))


def _same_event(event: IntArray) -> tuple[IntArray, IntArray]:
    """Return the indices of all pairs i < j of equal, sorted event numbers (one pass per distance j − i)."""
    first, second = [], []
    for distance in range(1, len(event)):
        i = np.flatnonzero(event[distance:] == event[:-distance])
        if len(i) == 0:
            break
        first.append(i)
        second.append(i + distance)
    empty = np.zeros(0, dtype=np.int64)
    return np.concatenate([empty, *first]), np.concatenate([empty, *second])


def recorded_weight(card: Card, pairs: MuonPairs) -> FloatArray:
    """Return the weights of pairs times their trigger and reconstruction efficiency, shape (n,)."""
    muon = pairs.muons.p
    kinematics = pair_kinematics(muon[:, pairs.first], muon[:, pairs.second])
    weight = pairs.weight * efficiency(*kinematics, card.efficiency)
    if card.spectrometer is None:
        return weight
    index = np.stack([pairs.first, pairs.second])
    both = np.ones(index.shape, dtype=np.bool_)
    return weight * recorded_share(card, muon[:3, index], pairs.muons.charge[index], both)


def charge_sums(pairs: MuonPairs, weight: FloatArray) -> FloatArray:
    """Return sums of `weight` of +−, ++ and −− pairs in blocks of interactions, shape (3, 50)."""
    block, charge = pairs.muons.event[pairs.first] * N_BLOCKS // pairs.muons.n_events, pairs.charge
    return np.stack(
        [np.bincount(block[charge == q], weight[charge == q], minlength=N_BLOCKS) for q in (0, 2, -2)]
    )


def like_sign_ratio(sums: FloatArray) -> tuple[float, float]:
    """Return R = N(+−)/(2 √(N(++) N(−−))) and its error, the delete-one-block jackknife."""
    totals = sums.sum(axis=1, keepdims=True)
    os, pp, mm = np.concatenate([totals, totals - sums], axis=1)
    if bool(np.any(pp <= 0) | np.any(mm <= 0)):
        msg = f"R: too few like-sign pairs (++: {pp[0]:.3g}, --: {mm[0]:.3g}); use more interactions"
        raise PhysicsError(msg)
    ratio = os / (2.0 * np.sqrt(pp * mm))
    blocks = sums.shape[1]
    error = np.sqrt((blocks - 1) * np.mean((ratio[1:] - ratio[1:].mean()) ** 2))
    return float(ratio[0]), float(error)


def measured_r(
    card: Card, n: int, rng: np.random.Generator, *, pairing: Pairing = "same-event", recorded: bool = True
) -> tuple[float, float]:
    """Return R = N(+−)/(2 √(N(++) N(−−))) of decay-muon pairs, and its statistical error.

    Parameters
    ----------
    card, n, rng, pairing
        As `decay_muons` and `muon_pairs`.
    recorded : bool
        Weight accepted pairs with trigger and reconstruction efficiency; without, R of accepted pairs.

    Raises
    ------
    PhysicsError
        If there are too few like-sign pairs; raise `n`.
    """
    pairs = muon_pairs(decay_muons(card, n, rng), rng, pairing=pairing)
    return like_sign_ratio(charge_sums(pairs, recorded_weight(card, pairs) if recorded else pairs.weight))


@dataclass(frozen=True, slots=True, eq=False)
class DecayMuons:
    """Accepted muons from hadrons that decay before the absorber, ordered by interaction."""

    p: FloatArray  # px, py, pz, E [GeV], shape (4, n)
    charge: npt.NDArray[np.int8]  # shape (n,)
    mother: npt.NDArray[np.int32]  # PDG number of the hadron, shape (n,)
    # Probability that the hadron decays in flight over the card's `decay_length`, shape (n,)
    weight: FloatArray
    event: IntArray  # Number of the interaction, shape (n,)
    flight: FloatArray  # Mean decay length of the hadron [m]; zero for leptons of photons, shape (n,)
    n_events: int  # Interactions generated
    correlated: bool = False  # Whether the azimuths of one interaction belong together


def _hadrons(card: Card, n: int, rng: np.random.Generator) -> tuple[IntArray, IntArray, FloatArray]:
    """Return interaction, charge and cluster rapidity of every charged hadron of `n` interactions."""
    background, k = card.background, card.background.nbd_k
    clusters = rng.negative_binomial(k, k / (k + background.clusters), n)
    of_cluster = np.repeat(np.arange(n), clusters)
    of_extra = np.repeat(np.arange(n), rng.poisson(background.positive_excess, n))
    width = max(hadron.y_width for hadron in background.hadrons.values())
    spread = np.sqrt(max(width**2 - background.cluster_y_width**2, 1e-6))
    y_cluster = np.clip(spread * rng.standard_normal(len(of_cluster)), -3.0, 3.0)
    y_extra = np.clip(spread * rng.standard_normal(len(of_extra)), -3.0, 3.0)
    event = np.concatenate([of_cluster, of_cluster, of_extra])
    charge = np.repeat(np.array([1, -1, 1]), [len(of_cluster), len(of_cluster), len(of_extra)])
    return event, charge, np.concatenate([y_cluster, y_cluster, y_extra])


def _decay(
    card: Card, hadron: Hadron, y_cluster: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return muons, shape (4, n), decay probabilities and mean flights [m] of hadrons of one species."""
    mass = constants.mass(hadron.pdg)
    sqrt_s, y_cm = beam_kinematics(card.beam.energy)
    n = len(y_cluster)
    u = rng.random((5, n))
    pt = np.minimum(sample_pt(hadron.p0, hadron.n, u[0]), 0.4 * sqrt_s)
    limit = rapidity_limit(sqrt_s, mass, np.sqrt(mass**2 + pt**2))
    scale = hadron.y_width / max(h.y_width for h in card.background.hadrons.values())
    centre = np.clip(y_cluster * scale, -limit, limit)
    width = card.background.cluster_y_width * scale
    y = centre + truncated_normal(width, -limit - centre, limit - centre, u[1])
    p = momentum(mass, pt, y + y_cm, 2.0 * np.pi * u[2])
    if hadron.pdg == NEUTRAL_PION:  # no decay in flight: the share of photons that leave one electron
        return photon_leg(p, rng), np.full(n, hadron.branching), np.zeros(n)
    flight = np.sqrt(p[3] ** 2 - mass**2) / mass * hadron.ctau
    probability = -hadron.branching * np.expm1(-card.background.decay_length / flight)
    return daughter(p, mass, M_MU, 0.0, 2.0 * u[3] - 1.0, 2.0 * np.pi * u[4]), probability, flight


def _chunk(card: Card, n: int, rng: np.random.Generator) -> DecayMuons:
    event, charge, y_cluster = _hadrons(card, n, rng)
    hadrons = list(card.background.hadrons.values())
    shares = np.array([hadron.share for hadron in hadrons])
    species = rng.choice(len(hadrons), size=len(event), p=shares / shares.sum())
    parts = []
    for i, hadron in enumerate(hadrons):
        chosen = np.flatnonzero(species == i)
        if hadron.pdg == NEUTRAL_PION:  # either lepton of the photon may be the lost one
            charge[chosen] = rng.spawn(1)[0].choice(np.array([1, -1]), len(chosen))
        muon, probability, flight = _decay(card, hadron, y_cluster[chosen], rng)
        inside = accepted(muon, card.detector)
        kept = chosen[inside]
        mother = (hadron.pdg * charge[kept]).astype(np.int32)
        parts.append(
            (muon[:, inside], charge[kept], mother, probability[inside], event[kept], flight[inside])
        )
    p, sign, mother, weight, number, path = (
        np.concatenate([part[j] for part in parts], axis=-1) for j in range(6)
    )
    order = np.argsort(number, kind="stable")
    return DecayMuons(
        p=p[:, order],
        charge=sign[order].astype(np.int8),
        mother=mother[order],
        weight=weight[order],
        event=number[order],
        flight=path[order],
        n_events=n,
    )


def decay_muons(card: Card, n: int, rng: np.random.Generator) -> DecayMuons:
    """Generate accepted decay muons of `n` interactions, each weighted by its decay probability.

    Notes
    -----
    Clusters per interaction follow a negative binomial; each holds one positive and one negative hadron,
    close in rapidity, and a Poisson number of positive hadrons carries the charge of the beam. A hadron
    decays within L with probability BR (1 − exp(−L m/(p cτ))).
    """
    if n < N_BLOCKS:
        msg = f"decay_muons: n = {n!r} interactions; at least {N_BLOCKS} are needed"
        raise PhysicsError(msg)
    parts = [_chunk(card, min(CHUNK, n - start), rng) for start in range(0, n, CHUNK)]
    return DecayMuons(
        p=np.concatenate([part.p for part in parts], axis=1),
        charge=np.concatenate([part.charge for part in parts]),
        mother=np.concatenate([part.mother for part in parts]),
        weight=np.concatenate([part.weight for part in parts]),
        event=np.concatenate([part.event + i * CHUNK for i, part in enumerate(parts)]),
        flight=np.concatenate([part.flight for part in parts]),
        n_events=n,
    )


def decay_depth(p: FloatArray, flight: FloatArray, length: float, rng: np.random.Generator) -> FloatArray:
    """Draw how far behind the interaction hadrons decayed, along the beam [cm].

    Notes
    -----
    An exponential that ends at `length`: s = −λ ln(1 − u (1 − exp(−L/λ))).
    """
    safe = np.where(flight > 0, flight, 1.0)
    path = -safe * np.log1p(rng.random(len(flight)) * np.expm1(-length / safe))
    return np.where(flight > 0, 100.0 * path * p[2] / np.sqrt(np.sum(p**2, axis=0)), 0.0)


def in_flight(
    p: FloatArray, hadron: Hadron, length: float, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Let given hadrons decay to μν."""
    mass = constants.mass(hadron.pdg)
    size2 = np.sum(p**2, axis=0)
    flight = np.sqrt(size2) / mass * hadron.ctau
    probability = -hadron.branching * np.expm1(-length / flight)
    u = rng.random((2, p.shape[1]))
    parent = np.concatenate([p, [np.sqrt(size2 + mass**2)]])
    muon = daughter(parent, mass, M_MU, 0.0, 2.0 * u[0] - 1.0, 2.0 * np.pi * u[1])
    return muon, probability, flight


def photon_electrons(p: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, npt.NDArray[np.int32]]:
    """Return single electrons of photons of given neutral pions, shape (4, n), and ±111 with their sign.

    The partner is lost; the sign is drawn.
    """
    parent = np.concatenate([p, [np.sqrt(np.sum(p**2, axis=0) + M_PI0**2)]])
    sign = rng.choice(np.array([1, -1], dtype=np.int32), p.shape[1])
    return photon_leg(parent, rng), np.asarray(NEUTRAL_PION * sign, dtype=np.int32)
