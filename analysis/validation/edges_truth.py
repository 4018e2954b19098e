"""Expected events of dark photons by a Monte Carlo of its own: photons of Pythia fly, decay and are seen.

Nothing of the package's sampling, acceptance or geometry enters: photons at one mass, straight lines, decays
into lepton pairs even along z, isotropic leptons, planes with the numbers of the detectors' sources. Lifetime
and branching ratios of the model are the package's, as is the law of the target.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

M_LEPTON = {"ee": 0.51099895e-3, "mumu": 0.1056583755}
A_LEAD, ALPHA, ALPHA_INELASTIC, THIN = 207.2, 0.83, 0.71, 0.01


def _box(x0, half_x, half_y):
    return lambda x, y: (np.abs(x - x0) < half_x) & (np.abs(y) < half_y)


def _ring(inner, outer):
    return lambda x, y: (np.hypot(x, y) > inner) & (np.hypot(x, y) < outer)


def _ship(x, y, z):
    f = (z - 34.5) / 48.0
    return (np.abs(x) < 0.675 + 1.44 * f) & (np.abs(y) < 1.528 + 1.584 * f)


def _shadows(x, y, z):
    return (np.abs(x - 2.25) < 1.25) & (np.abs(y) < 1.25) & (z > 0)


def _any(x, y, z):
    return np.isfinite(x + y + z)


class Apparatus(NamedTuple):
    """A target and a detector: lengths in m, energies in GeV, the beam along z."""

    protons: float
    a: float  # of the target
    volume: tuple[float, float]  # z between which decays count
    walls: Callable[..., np.ndarray]  # whether a point lies in the volume
    planes: list[tuple]  # z, aperture, smallest distance of the leptons
    target: tuple[float, float] = (0.0, 0.0)  # y and z
    half: float = np.pi  # azimuths about x that reach the volume
    bend: tuple[float, float] = (np.inf, 0.0)  # z of the magnet, kick in x
    least: float = 0.0  # momentum of a lepton
    energies: tuple[float, float] = (0.0, np.inf)  # of both leptons together
    efficiency: dict[str, float] = {"ee": 1.0, "mumu": 1.0}  # noqa: RUF012


DETECTORS = {
    "ship_ecn3": Apparatus(
        *(6e20, 95.95, (34.5, 82.5), _ship),
        [(84.05, _box(0, 2.0, 3.0), 0.0), (93.6, _box(0, 2.0, 3.0), 0.0)],
        bend=(89.1, 0.195),
        least=1.0,
    ),
    "shadows_like": Apparatus(
        *(5e19, 63.55, (10.0, 30.0), _shadows),
        [(z, _box(2.25, 1.25, 1.25), d) for z, d in ((33.0, 0.0), (35.5, 0.0), (36.0, 0.1))],
        half=float(np.arctan(1.25)),
        bend=(34.25, 0.45),
        least=1.0,
        energies=(3.0, np.inf),
    ),
    "na62_dump": Apparatus(
        *(1.4e17, 63.55, (105.0, 180.0), _any),
        [
            (183.5, _ring(0.1, 1.0), 0.02),
            (218.9, _ring(0.1, 1.0), 0.0),
            (239.0, _ring(0.13, 1.21), 0.0),
            (
                241.5,
                lambda x, y: (
                    _box(0, 1.13, 1.13)(x, y) & (np.abs(x) + np.abs(y) < 1.598) & (np.hypot(x, y) > 0.15)
                ),
                0.2,
            ),
            (246.85, lambda x, y: _box(0, 1.32, 1.32)(x, y) & (np.hypot(x, y) > 0.11), 0.0),
        ],
        target=(0.0, 23.07),
        bend=(197.0, 0.27),
        least=10.0,
    ),
    "charm": Apparatus(
        *(2.4e18, 63.55, (480.0, 515.0), _any),
        [(515.0, _box(0, 1.5, 1.5), 0.0)],
        target=(-4.8, 0.0),
        energies=(5.0, 50.0),
        efficiency={"ee": 0.51, "mumu": 0.85},
    ),
}


def decay(p: np.ndarray, mass: float, lepton: float, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Return the momenta (3, n) and energies of two leptons of isotropic decays; p (3, n)."""
    n, energy = p.shape[1], np.sqrt(mass**2 + np.sum(p**2, axis=0))
    cosine, phi = rng.uniform(-1, 1, n), rng.uniform(0, 2 * np.pi, n)
    sine, momentum = np.sqrt(1 - cosine**2), np.sqrt(mass**2 / 4 - lepton**2)
    own = momentum * np.stack([sine * np.cos(phi), sine * np.sin(phi), cosine])
    pair = []
    for sign in (1, -1):
        along = np.sum(sign * own * p, axis=0)
        half = mass / 2
        boosted = sign * own + p * (along / (mass * (energy + mass)) + half / mass)
        pair += [boosted, (energy * half + along) / mass]
    return tuple(pair)


class Seen(NamedTuple):
    """Decays that a detector sees: photon, events at unit coupling per flight, γ, length of the flight."""

    photon: np.ndarray
    weight: np.ndarray
    gamma: np.ndarray
    length: np.ndarray

    def events(self, coupling: float, ctau: float) -> np.ndarray:
        """Return the events that each decay stands for at a coupling and its cτ [m]."""
        flight = self.gamma * ctau
        return coupling**2 * self.weight / flight * np.exp(-self.length / flight)


def seen(
    photons: tuple[np.ndarray, np.ndarray],
    mass: float,
    detector: str,
    branching: dict[str, float],
    rng: np.random.Generator,
) -> Seen:
    """Return one decay of every photon, where it is seen.

    Parameters
    ----------
    photons : (NDArray, NDArray), shapes (3, n), (n,)
        Momenta [GeV], and weights that sum to the dark photons per proton on the thin lead target and ε².
    branching : dict
        Branching ratios by final state.
    """
    it = DETECTORS[detector]
    (z0, z1), (bend, kick), (height, target) = it.volume, it.bend, it.target
    p, weight = photons
    turn = rng.uniform(-it.half, it.half, p.shape[1]) - np.arctan2(p[1], p[0])
    weight = weight * (it.half / np.pi)
    p = np.stack([p[0] * np.cos(turn) - p[1] * np.sin(turn), p[0] * np.sin(turn) + p[1] * np.cos(turn), p[2]])
    z = rng.uniform(z0, z1, p.shape[1])
    x, y = p[0] / p[2] * (z - target), p[1] / p[2] * (z - target) + height
    here = np.flatnonzero((p[2] > 0) & it.walls(x, y, z))
    p, weight, x, y, z = p[:, here], weight[here], x[here], y[here], z[here]
    chance = np.zeros(len(weight))
    for state, share in branching.items():
        if state not in M_LEPTON or share <= 0:
            continue
        plus, e_plus, minus, e_minus = decay(p, mass, M_LEPTON[state], rng)
        good = np.minimum(np.linalg.norm(plus, axis=0), np.linalg.norm(minus, axis=0)) > it.least
        good &= (e_plus + e_minus > it.energies[0]) & (e_plus + e_minus < it.energies[1])
        for at, inside, apart in it.planes:
            hits = []
            for charge, q in ((1, plus), (-1, minus)):
                hx, hy = x + q[0] / q[2] * (at - z), y + q[1] / q[2] * (at - z)
                if at > bend:
                    hx = hx + charge * kick / q[2] * (at - bend)
                good &= (q[2] > 0) & inside(hx, hy)
                hits.append((hx, hy))
            good &= np.hypot(hits[0][0] - hits[1][0], hits[0][1] - hits[1][1]) > apart
        chance += share * it.efficiency[state] * good
    gamma = np.linalg.norm(p, axis=0) / mass
    length = np.hypot(np.hypot(x, y - height), z - target)
    per_z = length / (z - target) * (z1 - z0)  # path within the volume, for points even in z
    law = it.protons / -np.expm1(-THIN) * (it.a / A_LEAD) ** (ALPHA - ALPHA_INELASTIC)
    kept = chance > 0
    return Seen(here[kept], *(a[kept] for a in (law * weight * chance * per_z, gamma, length)))


def events(
    photons: tuple[np.ndarray, np.ndarray],
    mass: float,
    detector: str,
    couplings: np.ndarray,
    model: tuple[Callable[[float, np.ndarray], np.ndarray], dict[str, float]],
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the expected events at some couplings; `model` gives cτ [m] of mass and couplings, branching."""
    found = seen(photons, mass, detector, model[1], rng)
    lifetimes = zip(couplings, model[0](mass, couplings), strict=True)
    return np.array([found.events(coupling, ctau).sum() for coupling, ctau in lifetimes])
