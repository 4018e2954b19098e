"""Open charm: pairs of charmed hadrons that decay to leptons away from the interaction point."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from gammastar.core import constants
from gammastar.core.constants import LEPTON_MASS, M_PROTON
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.mock.card import Card, Charm, CharmHadron
from gammastar.mock.cocktail import Dimuons, beam_kinematics, momentum, rapidity_limit, sample_pt
from gammastar.mock.spectrometer import pair_kinematics
from gammastar.physics.kinematics import daughter
from gammastar.physics.polarisation import cosine

GRID = 801  # points of a tabulated q² spectrum
LONGITUDINAL = 0.53  # of D → V l ν
MICRON = 1e6  # µm per metre
MICRON_PER_CM = 1e4


@dataclass(frozen=True, slots=True, eq=False)
class CharmPairs:
    """Lepton pairs of open charm."""

    dimuons: Dimuons  # Leptons and the kinematics of their pair; no virtual photon is behind it
    # Transverse distance (x, y) of the lepton's track (plus, minus), drawn back to the z of the interaction,
    # from the interaction [µm], shape (2, 2, n)
    offset: FloatArray
    mother: npt.NDArray[np.int32]  # PDG numbers of the charmed hadrons, shape (2, n)
    decay_z: FloatArray  # Distance of the decays from the interaction along the beam [cm], shape (2, n)

    def __len__(self) -> int:
        return len(self.dimuons)


def _charm(card: Card) -> Charm:
    if card.charm is None:
        msg = f"card {card.name!r} has no section [charm]"
        raise PhysicsError(msg)
    return card.charm


def charm_rate(card: Card) -> float:
    """Return lepton pairs of open charm per inelastic interaction, in full phase space.

    Notes
    -----
    σ(cc̄ per nucleon) A^α/σ_inel × (Σ share × BR)²; both hadrons decay to a lepton of the card's kind.

    Raises
    ------
    PhysicsError
        If the card has no section ``[charm]``.
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
    hadron: FloatArray, species: CharmHadron, lepton: float, pole_mass: float, rng: np.random.Generator
) -> FloatArray:
    """Return leptons of semileptonic decays, shape (4, n) [GeV].

    Notes
    -----
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
    card: Card,
    hadrons: FloatArray,
    pdg: npt.NDArray[np.int32],
    weight: FloatArray,
    rng: np.random.Generator,
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
    dimuons = Dimuons(
        process=np.full(n, charm.process, dtype=np.int8),
        mass=mass_ll,
        pt=pt,
        energy=energy,
        plus=leptons[:, 0],
        minus=leptons[:, 1],
        weight=weight,
        kept=np.ones((2, n)),
    )
    return CharmPairs(dimuons, place[:2], pdg.astype(np.int32), place[2])


def generate_charm(card: Card, n: int, rng: np.random.Generator) -> CharmPairs:
    """Generate lepton pairs of open charm in full phase space.

    Parameters
    ----------
    n : int
        Number of pairs.

    Returns
    -------
    CharmPairs
        The sum of weights is the number of such pairs per proton on target.

    Raises
    ------
    PhysicsError
        If `n` is not positive or the card has no section ``[charm]``.

    Notes
    -----
    The two hadrons share azimuths (more often back to back than not) and nothing else: in Pythia the
    correlation of their rapidities is 0.05.
    """
    if n <= 0:
        msg = f"generate_charm: n = {n!r} must be positive"
        raise PhysicsError(msg)
    charm = _charm(card)
    species = list(charm.hadrons.values())
    share = np.array([h.share * h.branching for h in species])
    index = rng.choice(len(species), size=(2, n), p=share / share.sum())
    numbers = np.array([h.pdg for h in species], dtype=np.int32)[index]
    mass = np.array([constants.mass(h.pdg) for h in species])[index]
    sqrt_s, y_cm = beam_kinematics(card.beam.energy)
    u = rng.random((2, n))
    pt = np.minimum(sample_pt(charm.p0, charm.n, u), 0.3 * sqrt_s)
    limit = rapidity_limit(sqrt_s, mass, np.sqrt(mass**2 + pt**2), float(mass.min()) + 2.0 * M_PROTON)
    y = limit * (2.0 * rng.beta(charm.y_power + 1.0, charm.y_power + 1.0, (2, n)) - 1.0)
    first = rng.uniform(-np.pi, np.pi, n)
    phi = np.stack([first, first + np.pi + rng.vonmises(0.0, charm.back_to_back, n)])
    hadrons = momentum(mass, pt, y + y_cm, phi)
    sign = np.array([[1], [-1]], dtype=np.int32)
    weight = np.full(n, charm_rate(card) * card.target.interactions / n)
    return decay_charm(card, hadrons, numbers * sign, weight, rng)
