"""Displaced decays at a collider: events on a plane of mass and coupling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from gammastar.core.files import Pathlike, data_path
from gammastar.core.records import FloatArray
from gammastar.core.sampling import stream
from gammastar.semivisible.benchmarks import ColliderCard, sourced
from gammastar.semivisible.cascade import Cascade, decay
from gammastar.semivisible.decays import decay_table
from gammastar.semivisible.models import DarkSector
from gammastar.semivisible.production import monophoton_cross_section, sample_photons

__all__ = [
    "DisplacedSearch",
    "displaced_plane",
    "displaced_probability",
    "load_displaced",
]

CHUNK = 20_000


@dataclass(frozen=True, slots=True)
class DisplacedSearch(ColliderCard):
    """A search for a photon and a displaced lepton pair at generator level.

    Attributes
    ----------
    beam_minus, beam_plus : float
        Beam energies [GeV].
    cos_max : float
        Largest |cos θ*| of the photon.
    luminosity : float
        [1/fb]
    threshold : float
        Energy of each lepton [GeV].
    theta_min, theta_max : float
        Polar angles of the leptons in the laboratory [degrees].
    radius_min, radius_max : float
        Distances from the beam between which the decay counts [m].
    events : float
        Events that are excluded.
    sources : mapping of str to str
    """

    title: ClassVar[str] = "Belle II"
    beam_minus: float
    beam_plus: float
    cos_max: float
    luminosity: float
    threshold: float
    theta_min: float
    theta_max: float
    radius_min: float
    radius_max: float
    events: float
    sources: Mapping[str, str] | None = None


def load_displaced(path: Pathlike | None = None) -> DisplacedSearch:
    """Return the search of a card, by default the shipped one of Belle II.

    Raises
    ------
    SteeringError
        If a number of the card is missing or has no source.
    """
    path = None if path is None else Path(path)
    return sourced(data_path("semivisible/belle2.toml") if path is None else path, DisplacedSearch)


def displaced_probability(cascade: Cascade, card: DisplacedSearch, epsilon: npt.ArrayLike) -> FloatArray:
    """Return the probability of at least one visible displaced pair, shape (k,).

    Parameters
    ----------
    cascade : Cascade
        In the laboratory.
    card : DisplacedSearch
    epsilon : array_like, shape (k,)

    Notes
    -----
    e^(−r₁/λ) − e^(−r₂/λ) of each state from the dark photon itself, λ being its mean transverse flight; later
    steps of a cascade are left out, which underestimates the signal.
    """
    coupling = np.atleast_1d(np.asarray(epsilon, dtype=np.float64))
    low, high = np.cos(np.radians(card.theta_max)), np.cos(np.radians(card.theta_min))
    visible = cascade.filled & (cascade.source < 0)
    for p in (cascade.particle, cascade.antiparticle):
        momentum = np.sqrt((p[..., :3] ** 2).sum(axis=-1))
        inside = (p[..., 2] > low * momentum) & (p[..., 2] < high * momentum)
        visible &= inside & (p[..., 3] > card.threshold)
    flight = cascade.flight(1.0)  # βγ cτ, at ε = 1
    momentum = np.sqrt((cascade.parent[..., :3] ** 2).sum(axis=-1))
    transverse = np.hypot(cascade.parent[..., 0], cascade.parent[..., 1])
    slope = transverse / np.where(cascade.filled, momentum, 1.0)
    rate = np.where(visible, 1.0 / (np.maximum(slope, 1e-12) * np.where(visible, flight, 1.0)), 0.0)
    useful = visible.any(axis=1)
    rows, square = rate[useful], coupling**2
    total = np.zeros(len(coupling))
    for first in range(0, len(rows), CHUNK):
        x = rows[first : first + CHUNK, :, None] * square
        inside = np.exp(-card.radius_min * x) - np.exp(-card.radius_max * x)
        total += (1.0 - (1.0 - inside).prod(axis=1)).sum(axis=0)
    return np.asarray(total / len(cascade))


def displaced_plane(
    model: Callable[[float], DarkSector],
    mass: FloatArray,
    epsilon: FloatArray,
    *,
    card: DisplacedSearch | None = None,
    n: int = 20_000,
    seed: int = 1,
) -> FloatArray:
    """Return the expected events with a displaced pair on a grid, shape (masses, couplings).

    Parameters
    ----------
    model : callable
        Mass of the dark photon [GeV] -> DarkSector.
    mass, epsilon : NDArray, shapes (m,) and (k,)
        Masses of the dark photon [GeV] and its kinetic mixing.
    card : DisplacedSearch, optional
        By default the shipped one.
    n : int
        Events per mass.
    seed : int
    """
    search = load_displaced() if card is None else card
    found = np.zeros((len(mass), len(epsilon)))
    for index, m in enumerate(mass):
        if m >= search.sqrt_s:
            continue
        rng = stream(seed, "displaced", index)
        photons = sample_photons(float(m), search.sqrt_s, search.cos_max, n, rng)[1]
        events = decay(decay_table(model(float(m))), photons, rng, boost=search.boost)
        sigma = float(monophoton_cross_section(float(m), search.sqrt_s, search.cos_max))
        found[index] = search.luminosity * sigma * epsilon**2 * displaced_probability(events, search, epsilon)
    return found
