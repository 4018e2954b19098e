"""Leptons in a magnetic spectrometer: what tracking, timing, calorimeter and muon detector measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.accept.decay import position_at
from gammastar.core.errors import PhysicsError
from gammastar.core.files import Pathlike, sourced_card
from gammastar.core.records import BoolArray, FloatArray
from gammastar.physics.detector import Detector, Plane

Species: TypeAlias = Literal["e", "mu", "pi"]

_HADRONIC = (2.0, 1.6)  # Beta of the visible energy of a hadronic shower over its momentum


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrometer:
    """Resolutions and efficiencies of a spectrometer with calorimeter and muon detector.

    Attributes
    ----------
    first_plane, last_plane : str
        Planes of the detector between which tracks are measured; a track needs both and those between.
    calorimeter, muon_detector : str
        Planes of these detectors.
    momentum : tuple of float
        (a, b [1/GeV]) of σ_p/p = a ⊕ b p.
    angle : tuple of float
        (c [rad], d [rad GeV]) of σ = c ⊕ d/p per projection.
    position : float
        Per projection at the first plane [m].
    beam_spot, depth : float
        Spread of the beam per projection and mean depth of production in the dump [m].
    time, coarse_time : float
        Of the fine and the coarse hodoscope [s].
    fine_efficiency : float
        Probability that a track has a time of the fine hodoscope.
    energy : tuple of float
        (stochastic [√GeV], noise [GeV], constant) of the calorimeter, σ_E/E = s/√E ⊕ n/E ⊕ c.
    minimum_ionising : float
        Energy that a muon leaves in the calorimeter [GeV].
    shower_fraction : float
        Probability that a charged pion showers in the calorimeter.
    muon_efficiency, punch_through : float
        Probability of a signal in the muon detector for a muon, and for a pion.
    """

    first_plane: str
    last_plane: str
    calorimeter: str
    muon_detector: str
    momentum: tuple[float, float]
    angle: tuple[float, float]
    position: float
    beam_spot: float
    depth: float
    time: float
    coarse_time: float
    fine_efficiency: float
    energy: tuple[float, float, float]
    minimum_ionising: float
    shower_fraction: float
    muon_efficiency: float
    punch_through: float
    sources: dict[str, str]

    def __post_init__(self) -> None:
        for name in ("fine_efficiency", "shower_fraction", "muon_efficiency", "punch_through"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise PhysicsError(f"spectrometer: {name} = {value!r} must lie between 0 and 1")
        lengths = (*self.momentum, *self.angle, *self.energy, self.position, self.beam_spot, self.depth)
        if not all(value >= 0 for value in (*lengths, self.time, self.coarse_time, self.minimum_ionising)):
            raise PhysicsError("spectrometer: resolutions must not be negative")


def load_spectrometer(path: Pathlike) -> Spectrometer:
    """Read a spectrometer card: TOML with the attributes of `Spectrometer`, each with a source.

    Raises
    ------
    InputFileError
        If the file is missing or is not TOML.
    SteeringError
        If a key is unknown, missing, wrong or without source.
    """
    path = Path(path)
    return sourced_card(Spectrometer, path, "spectrometer")


@dataclass(frozen=True, slots=True, eq=False)
class Tracks:
    """Measured tracks, one per entry.

    Attributes
    ----------
    p : NDArray, shape (n, 3) [GeV]
        Before the magnet.
    point : NDArray, shape (n, 3) [m]
        At the first plane.
    charge : NDArray of int8, shape (n,)
    energy : NDArray, shape (n,) [GeV]
        In the calorimeter; 0 outside of it.
    muon_hit : NDArray of bool, shape (n,)
        Signal in the muon detector.
    time : NDArray, shape (n,) [s]
        With respect to the trigger.
    """

    p: FloatArray
    point: FloatArray
    charge: npt.NDArray[np.int8]
    energy: FloatArray
    muon_hit: BoolArray
    time: FloatArray

    def __len__(self) -> int:
        return len(self.charge)

    def select(self, which: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Tracks:
        """Return some of the tracks, by mask or by index.

        Parameters
        ----------
        which : NDArray of bool or int
            Mask or places.
        """
        return Tracks(*(getattr(self, field.name)[which] for field in fields(self)))

    @staticmethod
    def concatenate(parts: Sequence[Tracks]) -> Tracks:
        """Return the tracks of all parts, in order.

        Parameters
        ----------
        parts : sequence of Tracks
            Joined in this order.
        """
        return Tracks(
            *(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Tracks))
        )

    @property
    def momentum(self) -> FloatArray:
        """Absolute momentum [GeV], shape (n,)."""
        return np.asarray(np.linalg.norm(self.p, axis=1), dtype=np.float64)


def inside(plane: Plane, x: FloatArray, y: FloatArray) -> BoolArray:
    """Return which points lie in the aperture of a plane; nan is outside."""
    dx, dy = np.abs(x - plane.x), np.abs(y - plane.y)
    r = np.hypot(dx, dy)
    box = (dx < plane.half_x) & (dy < plane.half_y) & (dx + dy < plane.octagon)
    return np.asarray(box & (r >= plane.r_min) & (r < plane.r_max), dtype=np.bool_)


def plane_of(detector: Detector, name: str) -> Plane:
    """Return a plane of a detector by its name."""
    for plane in detector.planes:
        if plane.name == name:
            return plane
    raise PhysicsError(
        f"detector {detector.name!r} has no plane {name!r}; it has {[p.name for p in detector.planes]}"
    )


def extrapolate(tracks: Tracks, plane: Plane, detector: Detector) -> tuple[FloatArray, FloatArray]:
    """Return x and y of measured tracks at a plane [m], bent by the magnet on the way."""
    step = plane.z - tracks.point[:, 2]
    slope = tracks.p[:, :2] / tracks.p[:, 2:]
    x, y = (tracks.point[:, i] + slope[:, i] * step for i in (0, 1))
    magnet = detector.magnet
    if magnet is not None and plane.z > magnet.z:
        x = x + tracks.charge * magnet.kick / tracks.p[:, 2] * (plane.z - magnet.z)
    return x, y


def _smeared(
    vertex: FloatArray, p: FloatArray, first: Plane, card: Spectrometer, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return measured momenta (n, 3) and points (n, 3) at the first plane."""
    n = p.shape[1]
    total = np.linalg.norm(p[:3], axis=0)
    spread = np.hypot(card.momentum[0], card.momentum[1] * total)
    measured = total * np.maximum(1 + spread * rng.standard_normal(n), 0.05)
    angle = np.hypot(card.angle[0], card.angle[1] / total)
    slope = p[:2] / p[2] + angle * rng.standard_normal((2, n))
    direction = np.vstack([slope, np.ones(n)])
    direction /= np.linalg.norm(direction, axis=0)
    x, y = position_at(first.z, vertex, p, 0, None)
    point = np.stack([x, y, np.full(n, first.z)], axis=1)
    point[:, :2] += card.position * rng.standard_normal((n, 2))
    return (measured * direction).T, point


def _visible_energy(
    species: Species, momentum: FloatArray, card: Spectrometer, rng: np.random.Generator
) -> FloatArray:
    n = len(momentum)
    deposit = card.minimum_ionising * np.maximum(1 + 0.25 * rng.standard_normal(n), 0.2)
    if species == "pi":
        shower = momentum * rng.beta(*_HADRONIC, n)
        deposit = np.where(rng.uniform(size=n) < card.shower_fraction, shower, deposit)
    elif species == "e":
        deposit = momentum
    stochastic, noise, constant = card.energy
    sigma = np.sqrt(stochastic**2 / deposit + (noise / deposit) ** 2 + constant**2)
    return np.asarray(np.maximum(deposit * (1 + sigma * rng.standard_normal(n)), 0.0), dtype=np.float64)


def measure(
    vertex: FloatArray,
    p: FloatArray,
    charge: int,
    species: Species,
    detector: Detector,
    card: Spectrometer,
    rng: np.random.Generator,
) -> tuple[Tracks, BoolArray]:
    """Measure charged particles of one kind.

    Parameters
    ----------
    vertex : NDArray, shape (n, 3) [m]
    p : NDArray, shape (4, n)
        px, py, pz, E at the vertex [GeV].
    species : {"e", "mu", "pi"}

    Returns
    -------
    tracks : Tracks
        All particles; meaningless where not found.
    found : NDArray of bool, shape (n,)
        Inside the apertures of all planes of the spectrometer.

    Notes
    -----
    Gaussian resolutions; radiation of electrons before the magnet and scattering tails are not simulated.
    """
    first, last = plane_of(detector, card.first_plane), plane_of(detector, card.last_plane)
    found = np.ones(p.shape[1], dtype=np.bool_)
    for plane in detector.planes:
        if first.z <= plane.z <= last.z:
            found &= inside(plane, *position_at(plane.z, vertex, p, charge, detector.magnet))
    momentum = np.linalg.norm(p[:3], axis=0)
    measured, point = _smeared(vertex, p, first, card, rng)
    calorimeter, muons = plane_of(detector, card.calorimeter), plane_of(detector, card.muon_detector)
    hit = inside(calorimeter, *position_at(calorimeter.z, vertex, p, charge, detector.magnet))
    energy = np.where(hit, _visible_energy(species, momentum, card, rng), 0.0)
    reaches = {"e": 0.0, "mu": card.muon_efficiency, "pi": card.punch_through}[species]
    hit = inside(muons, *position_at(muons.z, vertex, p, charge, detector.magnet))
    n = len(momentum)
    muon_hit = hit & (rng.uniform(size=n) < reaches)
    fine = rng.uniform(size=n) < card.fine_efficiency
    time = np.where(fine, card.time, card.coarse_time) * rng.standard_normal(n)
    return Tracks(measured, point, np.full(n, charge, dtype=np.int8), energy, muon_hit, time), found
