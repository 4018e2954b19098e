"""Numbered events of a flow: masses, kinematics and decays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.core.sampling import Transport
from gammastar.physics.polarisation import daughter

BLOCK = 8192  # events that are always computed together, so that matrix products keep their shape
WORDS = 8  # uniform numbers of each event; a multiple of the four of one Philox counter
MassSource: TypeAlias = float | FloatArray | tuple[FloatArray, FloatArray]
"""One mass [GeV], one mass per event, or bin edges and contents of a mass spectrum."""


@dataclass(frozen=True, slots=True, eq=False)
class GeneratedEvents:
    """Virtual photons with their numbers."""

    number: npt.NDArray[np.int64]  # shape (n,)
    # shape (n,) [GeV]
    mass: FloatArray
    pt: FloatArray
    energy: FloatArray
    azimuth: FloatArray  # shape (n,) [rad]
    # Numbers in (0, 1) that belong to the events and are not used yet: for decays and vertices, shape (n, 4)
    uniform: FloatArray

    def __len__(self) -> int:
        return len(self.mass)

    @property
    def p4(self) -> FloatArray:
        """px, py, pz, E, shape (4, n) [GeV]; the beam is along z."""
        pz = np.sqrt(np.maximum((self.energy - self.mass) * (self.energy + self.mass) - self.pt**2, 0.0))
        return np.stack([self.pt * np.cos(self.azimuth), self.pt * np.sin(self.azimuth), pz, self.energy])


def event_uniform(seed: int, first: int, n: int) -> FloatArray:
    """Return uniform numbers in (0, 1) of the events `first` to `first` + n − 1, shape (n, 8).

    Notes
    -----
    Counter-based: Philox 4x64 (Salmon et al., SC 2011), two counter values per event.
    """
    key = int.from_bytes(hashlib.sha256(f"gammastar events {seed}".encode()).digest()[:16], "little")
    bits = np.random.Philox(key=key, counter=first * (WORDS // 4))
    # + 2⁻⁵⁴: never zero, where the normal quantile is infinite
    return np.asarray(np.random.Generator(bits).random((n, WORDS)) + 2.0**-54, dtype=np.float64)


def draw_events(source: Transport, n: int, *, seed: int, mass: MassSource, first: int = 0) -> GeneratedEvents:
    """Draw the events `first` to `first` + n − 1.

    Parameters
    ----------
    mass : float, NDArray of shape (n,), or (edges, contents)
        One mass, one for each of these events, or a spectrum (piecewise constant; contents not negative)
        whose masses are drawn, e.g. above 2 m_χ for millicharged particles [GeV].
    first : int
        Number of the first event.

    Returns
    -------
    GeneratedEvents

    Raises
    ------
    PhysicsError
        If a mass lies outside the range of `source`, or the spectrum is empty or negative.
    """
    if n < 0 or first < 0:
        msg = f"draw_events: n = {n} and first = {first} must not be negative"
        raise PhysicsError(msg)
    start = first // BLOCK * BLOCK
    stop = -((first + n) // -BLOCK) * BLOCK
    uniform = event_uniform(seed, start, stop - start)
    inner = slice(first - start, first - start + n)
    masses = _masses(mass, uniform[:, 2], inner, source.mass_range)
    pt, energy = np.empty_like(masses), np.empty_like(masses)
    normal = ndtri(uniform[:, :2])
    for low in range(0, len(masses), BLOCK):
        part = slice(low, low + BLOCK)
        pt[part], energy[part] = source.transform(masses[part], normal[part])
    return GeneratedEvents(
        number=np.arange(first, first + n),
        mass=masses[inner],
        pt=pt[inner],
        energy=energy[inner],
        azimuth=np.pi * (2.0 * uniform[inner, 3] - 1.0),
        uniform=uniform[inner, 4:],
    )


def _masses(mass: MassSource, uniform: FloatArray, inner: slice, limits: tuple[float, float]) -> FloatArray:
    """Return a mass for every event of the blocks; those outside `inner` only fill the blocks."""
    low, high = limits
    if isinstance(mass, tuple):
        edges, contents = (np.asarray(a, dtype=np.float64) for a in mass)
        if edges.shape != (len(contents) + 1,) or (contents < 0).any() or not contents.sum() > 0:
            msg = (
                f"mass spectrum: {edges.shape} edges and {contents.shape} contents; contents must be one "
                "fewer than edges, not negative and not all zero"
            )
            raise PhysicsError(msg)
        filled = np.flatnonzero(contents > 0)
        _inside(edges[[filled[0], filled[-1] + 1]], low, high)
        cumulative = np.concatenate([[0.0], np.cumsum(contents)]) / contents.sum()
        drawn = np.interp(uniform, cumulative, edges)
        return np.clip(drawn, edges[filled[0]], edges[filled[-1] + 1])
    given = np.asarray(mass, dtype=np.float64)
    if given.ndim and given.shape != (inner.stop - inner.start,):
        msg = f"draw_events: mass has shape {given.shape}, expected ({inner.stop - inner.start},)"
        raise PhysicsError(msg)
    _inside(given, low, high)
    result = np.full(len(uniform), given if given.ndim == 0 else (given[0] if given.size else low))
    result[inner] = given
    return result


def _inside(mass: FloatArray, low: float, high: float) -> None:
    bad = ~((mass >= low) & (mass <= high))
    if bad.any():
        worst = float(np.atleast_1d(mass)[np.atleast_1d(bad)][0])
        msg = f"mass {worst:.6g} GeV lies outside the range of the flow, [{low:.6g}, {high:.6g}] GeV"
        raise PhysicsError(msg)


def two_leptons(events: GeneratedEvents, m_lepton: float) -> tuple[FloatArray, FloatArray]:
    """Decay every particle to two leptons, isotropically in its rest frame (no polarisation)."""
    parent = events.p4
    cosine, phi = 2.0 * events.uniform[:, 0] - 1.0, np.pi * (2.0 * events.uniform[:, 1] - 1.0)
    minus = daughter(parent, events.mass, m_lepton, m_lepton, cosine, phi)
    return minus, parent - minus


def decay_vertices(events: GeneratedEvents, ctau: float, origin: FloatArray | None = None) -> FloatArray:
    """Return where the particles decay, shape (3, n) [m]; no detector's volume is imposed."""
    if not ctau >= 0:
        msg = f"decay_vertices: ctau = {ctau!r} m must not be negative"
        raise PhysicsError(msg)
    flight: FloatArray = -ctau * np.log(events.uniform[:, 2]) * events.p4[:3] / events.mass
    return flight if origin is None else flight + origin
