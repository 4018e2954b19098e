"""Backgrounds of a mock: muons of pions and kaons that decay in flight before the absorber, and open charm.

Hadrons come in charge-balanced clusters, so opposite-sign pairs are more frequent than twice the geometric
mean of the like-sign ones: R > 1, as charge conservation demands of every real event.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from gammastar.core import constants
from gammastar.core.constants import LEPTON_MASS, M_MU, M_PI0, M_PROTON
from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import FloatArray, IntArray, Rng
from gammastar.mock import cocktail
from gammastar.mock.card import Card, Charm, CharmHadron, Hadron
from gammastar.mock.spectrometer import accepted, efficiency, pair_kinematics, recorded_share
from gammastar.physics.mesons import beam_frame
from gammastar.physics.polarisation import cosine, daughter

Pairing: TypeAlias = Literal["same-event", "mixed"]
PAIRINGS: tuple[str, ...] = get_args(Pairing)

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
    def charge(self) -> IntArray:
        """Sum of the charges: +2, 0, −2."""
        charge = self.muons.charge.astype(np.int64)
        return charge[self.first] + charge[self.second]


def muon_pairs(muons: DecayMuons, rng: Rng, *, pairing: Pairing = "same-event") -> MuonPairs:
    """Pair decay muons."""
    require(str(pairing) in PAIRINGS, f"pairing = {pairing!r} is not one of {list(PAIRINGS)}")
    if pairing == "same-event":
        first, second = _same_event(muons.event)
        return MuonPairs(muons, first, second, muons.weight[first] * muons.weight[second] / muons.n_events)
    n = len(muons.event)
    first, second = np.tile(np.arange(n), 4), np.concatenate([rng.permutation(n) for _ in range(4)])
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
    of_charge = [charge == q for q in (0, 2, -2)]
    return np.stack([np.bincount(block[own], weight[own], minlength=N_BLOCKS) for own in of_charge])


def like_sign_ratio(sums: FloatArray) -> tuple[float, float]:
    """Return R = N(+−)/(2 √(N(++) N(−−))) and its error, the delete-one-block jackknife."""
    totals = sums.sum(axis=1, keepdims=True)
    os, pp, mm = np.concatenate([totals, totals - sums], axis=1)
    if bool(np.any(pp <= 0) | np.any(mm <= 0)):
        raise PhysicsError(f"R: too few like-sign pairs (++: {pp[0]:.3g}, --: {mm[0]:.3g}); use more")
    ratio = os / (2.0 * np.sqrt(pp * mm))
    blocks = sums.shape[1]
    error = np.sqrt((blocks - 1) * np.mean((ratio[1:] - ratio[1:].mean()) ** 2))
    return float(ratio[0]), float(error)


def measured_r(
    card: Card, n: int, rng: Rng, *, pairing: Pairing = "same-event", recorded: bool = True
) -> tuple[float, float]:
    """Return R = N(+−)/(2 √(N(++) N(−−))) of decay-muon pairs, and its statistical error.

    `recorded` weights accepted pairs with trigger and reconstruction efficiency.

    Raises
    ------
    PhysicsError
        If there are too few like-sign pairs; raise `n`.
    """
    pairs = muon_pairs(decay_muons(card, n, rng), rng, pairing=pairing)
    return like_sign_ratio(charge_sums(pairs, recorded_weight(card, pairs) if recorded else pairs.weight))


@dataclass(frozen=True, slots=True, eq=False)
class DecayMuons(cocktail.Columns):
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

    def ordered(self) -> DecayMuons:
        """Return the muons by interaction."""
        return self.take(np.argsort(self.event, kind="stable"))


def _hadrons(card: Card, n: int, rng: Rng) -> tuple[IntArray, IntArray, FloatArray]:
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
    card: Card, hadron: Hadron, y_cluster: FloatArray, rng: Rng
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return muons, shape (4, n), decay probabilities and mean flights [m] of hadrons of one species."""
    mass = constants.mass(hadron.pdg)
    sqrt_s, y_cm = beam_frame(card.beam.energy)
    n = len(y_cluster)
    u = rng.random((5, n))
    pt = np.minimum(cocktail.sample_pt(hadron.p0, hadron.n, u[0]), 0.4 * sqrt_s)
    limit = cocktail.rapidity_limit(sqrt_s, mass, np.sqrt(mass**2 + pt**2))
    scale = hadron.y_width / max(h.y_width for h in card.background.hadrons.values())
    centre = np.clip(y_cluster * scale, -limit, limit)
    width = card.background.cluster_y_width * scale
    y = centre + cocktail.truncated_normal(width, -limit - centre, limit - centre, u[1])
    p = cocktail.momentum(mass, pt, y + y_cm, 2.0 * np.pi * u[2])
    if hadron.pdg == NEUTRAL_PION:  # no decay in flight: the share of photons that leave one electron
        return cocktail.photon_leg(p, rng), np.full(n, hadron.branching), np.zeros(n)
    flight = np.sqrt(p[3] ** 2 - mass**2) / mass * hadron.ctau
    probability = -hadron.branching * np.expm1(-card.background.decay_length / flight)
    return daughter(p, mass, M_MU, 0.0, 2.0 * u[3] - 1.0, 2.0 * np.pi * u[4]), probability, flight


def _chunk(card: Card, n: int, rng: Rng) -> DecayMuons:
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
        seen = np.flatnonzero(accepted(muon, card.detector))
        sign, number = charge[chosen[seen]].astype(np.int8), event[chosen[seen]]
        mother = (hadron.pdg * sign.astype(np.int32)).astype(np.int32)
        parts.append(DecayMuons(muon[:, seen], sign, mother, probability[seen], number, flight[seen], n))
    return DecayMuons.concatenate(parts, n_events=n).ordered()


def decay_muons(card: Card, n: int, rng: Rng) -> DecayMuons:
    """Generate accepted decay muons of `n` interactions, each weighted by its decay probability.

    Clusters per interaction follow a negative binomial; each holds one positive and one negative hadron,
    close in rapidity, and a Poisson number of positive hadrons carries the charge of the beam. A hadron
    decays within L with probability BR (1 − exp(−L m/(p cτ))).
    """
    require(n >= N_BLOCKS, f"decay_muons: n = {n!r} interactions; at least {N_BLOCKS} are needed")
    parts = [_chunk(card, min(CHUNK, n - start), rng) for start in range(0, n, CHUNK)]
    parts = [replace(part, event=part.event + i * CHUNK) for i, part in enumerate(parts)]
    return DecayMuons.concatenate(parts, n_events=n)


def decay_depth(p: FloatArray, flight: FloatArray, length: float, rng: Rng) -> FloatArray:
    """Draw how far behind the interaction hadrons decayed, along the beam [cm].

    An exponential that ends at `length`: s = −λ ln(1 − u (1 − exp(−L/λ))).
    """
    safe = np.where(flight > 0, flight, 1.0)
    path = -safe * np.log1p(rng.random(len(flight)) * np.expm1(-length / safe))
    return np.where(flight > 0, 100.0 * path * p[2] / np.sqrt(np.sum(p**2, axis=0)), 0.0)


def in_flight(
    p: FloatArray, hadron: Hadron, length: float, rng: Rng
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Let given hadrons decay to μν."""
    mass = constants.mass(hadron.pdg)
    flight = np.sqrt(np.sum(p**2, axis=0)) / mass * hadron.ctau
    probability = -hadron.branching * np.expm1(-length / flight)
    u = rng.random((2, p.shape[1]))
    muon = daughter(cocktail.with_energy(p, mass), mass, M_MU, 0.0, 2.0 * u[0] - 1.0, 2.0 * np.pi * u[1])
    return muon, probability, flight


def photon_electrons(p: FloatArray, rng: Rng) -> tuple[FloatArray, npt.NDArray[np.int32]]:
    """Return single electrons of photons of given neutral pions, (4, n), and ±111 with their drawn sign."""
    sign = rng.choice(np.array([1, -1], dtype=np.int32), p.shape[1])
    electrons = cocktail.photon_leg(cocktail.with_energy(p, M_PI0), rng)
    return electrons, np.asarray(NEUTRAL_PION * sign, dtype=np.int32)


GRID = 801  # points of a tabulated q² spectrum
LONGITUDINAL = 0.53  # of D → V l ν
MICRON = 1e6  # µm per metre
MICRON_PER_CM = 1e4


@dataclass(frozen=True, slots=True, eq=False)
class CharmPairs:
    """Lepton pairs of open charm."""

    dimuons: cocktail.Dimuons  # Leptons and the kinematics of their pair; no virtual photon is behind it
    # Transverse distance (x, y) of the lepton's track (plus, minus), drawn back to the z of the interaction,
    # from the interaction [µm], shape (2, 2, n)
    offset: FloatArray
    mother: npt.NDArray[np.int32]  # PDG numbers of the charmed hadrons, shape (2, n)
    decay_z: FloatArray  # Distance of the decays from the interaction along the beam [cm], shape (2, n)

    def __len__(self) -> int:
        return len(self.dimuons)


def _charm(card: Card) -> Charm:
    if card.charm is None:
        raise PhysicsError(f"card {card.name!r} has no section [charm]")
    return card.charm


def charm_rate(card: Card) -> float:
    """Return lepton pairs of open charm per inelastic interaction, in full phase space.

    Notes
    -----
    σ(cc̄ per nucleon) A^α/σ_inel × (Σ share × BR)²; both hadrons decay to a lepton of the card's kind.
    """
    charm = _charm(card)
    shares = sum(h.share for h in charm.hadrons.values())
    lepton = sum(h.share * h.branching for h in charm.hadrons.values()) / shares
    per_interaction = charm.cross_section * card.target.a**charm.a_power / card.target.sigma_inel
    return float(per_interaction * lepton**2)


@lru_cache(maxsize=64)
def _q2_table(mass: float, recoil: float, lepton: float, pole: float, vector: bool) -> tuple[FloatArray, ...]:
    """Return q² and cumulative distribution of a semileptonic decay."""
    q2 = np.linspace(lepton**2, (mass - recoil) ** 2, GRID)
    square = (mass**2 - (recoil + np.sqrt(q2)) ** 2) * (mass**2 - (recoil - np.sqrt(q2)) ** 2)
    p = np.sqrt(np.clip(square, 0.0, None)) / (2.0 * mass)
    threshold = (1.0 - lepton**2 / q2) ** 2
    density = (p if vector else p**3) * threshold / (1.0 - q2 / pole**2) ** 2
    steps = 0.5 * (density[1:] + density[:-1]) * np.diff(q2)
    return q2, np.concatenate([[0.0], np.cumsum(steps)]) / np.sum(steps)


def semileptonic(
    hadron: FloatArray, species: CharmHadron, lepton: float, pole_mass: float, rng: Rng
) -> FloatArray:
    """Return leptons of semileptonic decays, shape (4, n) [GeV].

    D → K l ν with a light lepton: dΓ/dq² ∝ p_K³ f₊(q²)² and dN/dcos θ ∝ sin²θ of the lepton in the frame of
    lν about its flight, f₊ = 1/(1 − q²/M²). Decays to a vector take p_V f² and the mean of their helicity
    states, an isotropic lepton.
    """
    n = hadron.shape[1]
    mass = constants.mass(species.pdg)
    heavy = np.asarray(rng.random(n) < species.heavy_share)
    u = rng.random((5, n))
    q2 = np.empty(n)
    for vector, recoil in ((False, species.recoil), (True, species.heavy_recoil)):
        mine = np.flatnonzero(heavy == vector)
        if len(mine) > 0:
            grid, cumulative = _q2_table(mass, recoil, lepton, pole_mass, vector)
            q2[mine] = np.interp(u[0, mine], cumulative, grid)
    q = np.sqrt(q2)
    recoils = np.where(heavy, species.heavy_recoil, species.recoil)
    weak = daughter(hadron, mass, q, recoils, 2.0 * u[1] - 1.0, 2.0 * np.pi * u[2])
    transverse = heavy & (rng.random(n) > LONGITUDINAL)
    cos_theta = np.where(transverse, 1.0 - 2.0 * np.cbrt(1.0 - u[3]), cosine(-1.0, u[3]))
    return daughter(weak, q, lepton, 0.0, cos_theta, 2.0 * np.pi * u[4])


def _offset(hadron: FloatArray, mass: float, ctau: float, lepton: FloatArray, u: FloatArray) -> FloatArray:
    """Return x and y of the lepton's track at the z of the interaction [µm], and z of the decay [cm]."""
    path = -np.log1p(-u) * ctau / mass * MICRON  # µm per GeV of momentum
    x, y, z = hadron[:3] * path
    slope = lepton[:2] / np.where(np.abs(lepton[2]) > 1e-9, lepton[2], 1e-9)
    return np.concatenate([np.stack([x, y]) - slope * z, [z / MICRON_PER_CM]])


def decay_charm(
    card: Card, hadrons: FloatArray, pdg: npt.NDArray[np.int32], weight: FloatArray, rng: Rng
) -> CharmPairs:
    """Let charmed hadrons decay to leptons."""
    charm = _charm(card)
    n = hadrons.shape[2]
    mass_l = LEPTON_MASS[card.lepton]
    leptons, place = np.zeros((4, 2, n)), np.zeros((3, 2, n))
    for side in (0, 1):
        for species in charm.hadrons.values():
            mine = np.flatnonzero(np.abs(pdg[side]) == species.pdg)
            if len(mine) == 0:
                continue
            p = hadrons[:, side, mine]
            lepton = semileptonic(p, species, mass_l, charm.pole_mass, rng)
            leptons[:, side, mine] = lepton
            mass = constants.mass(species.pdg)
            place[:, side, mine] = _offset(p, mass, species.ctau, lepton, rng.random(len(mine)))
    mass_ll, pt, energy = pair_kinematics(leptons[:, 0], leptons[:, 1])
    process, both = np.full(n, charm.process, dtype=np.int8), (leptons[:, 0], leptons[:, 1])
    dimuons = cocktail.Dimuons(process, mass_ll, pt, energy, *both, weight, np.ones((2, n)))
    return CharmPairs(dimuons, place[:2], pdg.astype(np.int32), place[2])


def generate_charm(card: Card, n: int, rng: Rng) -> CharmPairs:
    """Generate `n` lepton pairs of open charm in full phase space.

    Notes
    -----
    The sum of weights is the number of such pairs per proton on target. The two hadrons share azimuths (more
    often back to back than not) and nothing else: in Pythia the correlation of their rapidities is 0.05.
    """
    require(n > 0, f"generate_charm: n = {n!r} must be positive")
    charm = _charm(card)
    species = list(charm.hadrons.values())
    share = np.array([h.share * h.branching for h in species])
    index = rng.choice(len(species), size=(2, n), p=share / share.sum())
    numbers = np.array([h.pdg for h in species], dtype=np.int32)[index]
    mass = np.array([constants.mass(h.pdg) for h in species])[index]
    sqrt_s, y_cm = beam_frame(card.beam.energy)
    u = rng.random((2, n))
    pt = np.minimum(cocktail.sample_pt(charm.p0, charm.n, u), 0.3 * sqrt_s)
    mt, recoil = np.sqrt(mass**2 + pt**2), float(mass.min()) + 2.0 * M_PROTON
    limit = cocktail.rapidity_limit(sqrt_s, mass, mt, recoil)
    y = limit * (2.0 * rng.beta(charm.y_power + 1.0, charm.y_power + 1.0, (2, n)) - 1.0)
    first = rng.uniform(-np.pi, np.pi, n)
    phi = np.stack([first, first + np.pi + rng.vonmises(0.0, charm.back_to_back, n)])
    hadrons = cocktail.momentum(mass, pt, y + y_cm, phi)
    sign = np.array([[1], [-1]], dtype=np.int32)
    weight = np.full(n, charm_rate(card) * card.target.interactions / n)
    return decay_charm(card, hadrons, numbers * sign, weight, rng)
