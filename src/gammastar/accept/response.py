"""Whether a detector sees both leptons of a decay: straight tracks, one thin magnet, planes, cuts."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from gammastar.core.errors import PhysicsError
from gammastar.core.records import BoolArray, FloatArray
from gammastar.physics.decays import daughter
from gammastar.physics.detector import Detector, Magnet, Plane

__all__ = ["lepton_pair", "position_at", "seen"]

Pair: TypeAlias = tuple[FloatArray, FloatArray]


def lepton_pair(
    parent: FloatArray, mass: float, m_lepton: float, rng: np.random.Generator, *, polarisation: float = 0.0
) -> Pair:
    """Decay parents into two leptons.

    Parameters
    ----------
    parent : NDArray, shape (4, n)
        px, py, pz, E [GeV].
    mass, m_lepton : float [GeV]
    rng : numpy.random.Generator
    polarisation : float
        λ in dN/dcos θ ∝ 1 + λ cos²θ with respect to the flight, from −1 to 1; 0 is the average over spins.

    Returns
    -------
    p1, p2 : NDArray, shape (4, n)
        Positive and negative lepton.

    Raises
    ------
    PhysicsError
        If `polarisation` lies outside −1 to 1, or the parents are below threshold.
    """
    if not -1 <= polarisation <= 1:
        msg = f"polarisation = {polarisation!r} must lie between -1 and 1"
        raise PhysicsError(msg)
    n = parent.shape[1]
    cos_theta: FloatArray = rng.uniform(-1, 1, size=(n,))
    phi = rng.uniform(-np.pi, np.pi, n)
    if polarisation != 0:  # a mixture of a flat density with cos² or with 1 − cos²
        third = abs(polarisation) / 3
        share = third / (1 + third) if polarisation > 0 else 2 * third / (1 - third)
        other = np.cbrt(cos_theta) if polarisation > 0 else 2 * rng.beta(2, 2, n) - 1
        cos_theta = np.where(rng.uniform(size=n) < share, other, cos_theta)
    first = daughter(parent, mass, m_lepton, m_lepton, cos_theta, phi)
    return first, parent - first


def position_at(
    z: float, vertex: FloatArray, p: FloatArray, charge: int, magnet: Magnet | None
) -> tuple[FloatArray, FloatArray]:
    """Return x and y of tracks at a plane [m], nan for tracks that do not reach it.

    Parameters
    ----------
    z : float [m]
    vertex : NDArray, shape (n, 3) [m]
    p : NDArray, shape (4, n)
        px, py, pz, E at the vertex [GeV].
    charge : int
    magnet : Magnet or None
        Acts on tracks that start before it, at its centre: Δp_x = charge × kick.
    """
    px, py, pz, _ = p
    reach = (pz > 0) & (vertex[:, 2] < z)
    safe = np.where(reach, pz, 1.0)
    step = z - vertex[:, 2]
    x, y = vertex[:, 0] + px / safe * step, vertex[:, 1] + py / safe * step
    if magnet is not None and z > magnet.z:
        bent = vertex[:, 2] < magnet.z
        x = x + np.where(bent, charge * magnet.kick / safe * (z - magnet.z), 0.0)
    return np.where(reach, x, np.nan), np.where(reach, y, np.nan)


def _inside(plane: Plane, x: FloatArray, y: FloatArray) -> BoolArray:
    dx, dy = np.abs(x - plane.x), np.abs(y - plane.y)
    r = np.hypot(dx, dy)
    box = (dx < plane.half_x) & (dy < plane.half_y) & (dx + dy < plane.octagon)
    return box & (r >= plane.r_min) & (r < plane.r_max)  # nan is outside


def seen(vertex: FloatArray, pair: Pair, detector: Detector) -> BoolArray:
    """Return which decays pass the momentum cuts and every plane.

    Parameters
    ----------
    vertex : NDArray, shape (n, 3) [m]
    pair : two arrays, shape (4, n)
        Positive and negative lepton, px, py, pz, E [GeV].
    detector : Detector

    Returns
    -------
    NDArray of bool, shape (n,)
    """
    cuts = detector.cuts
    momenta = [np.linalg.norm(p[:3], axis=0) for p in pair]
    accepted: BoolArray = np.min(momenta, axis=0) >= cuts.min_momentum
    energy = pair[0][3] + pair[1][3]
    accepted &= (energy >= cuts.min_energy_sum) & (energy <= cuts.max_energy_sum)
    for plane in detector.planes:
        x1, y1 = position_at(plane.z, vertex, pair[0], 1, detector.magnet)
        x2, y2 = position_at(plane.z, vertex, pair[1], -1, detector.magnet)
        accepted &= _inside(plane, x1, y1) & _inside(plane, x2, y2)
        if plane.min_separation > 0:
            accepted &= np.hypot(x1 - x2, y1 - y2) > plane.min_separation
    return accepted
