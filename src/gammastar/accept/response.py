"""Decays to two leptons, and whether a detector sees both: straight tracks, one thin magnet, planes, cuts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from gammastar.core.records import BoolArray, FloatArray
from gammastar.physics.detector import Detector, Magnet, Plane
from gammastar.physics.kinematics import daughter
from gammastar.physics.polarisation import TRANSVERSE, Spin, cosine_between, lambda_theta

__all__ = ["angular_weights", "lepton_pair", "position_at", "seen"]

Pair: TypeAlias = tuple[FloatArray, FloatArray]


def lepton_pair(parent: FloatArray, mass: float, m_lepton: float, rng: np.random.Generator) -> Pair:
    """Decay parents into two leptons, isotropically.

    Parameters
    ----------
    parent : NDArray, shape (4, n)
        px, py, pz, E [GeV].
    mass, m_lepton : float [GeV]
    rng : numpy.random.Generator

    Returns
    -------
    p1, p2 : NDArray, shape (4, n)
        Positive and negative lepton.

    Raises
    ------
    PhysicsError
        If the parents are below threshold.
    """
    n = parent.shape[1]
    cos_theta: FloatArray = rng.uniform(-1, 1, size=(n,))
    phi = rng.uniform(-np.pi, np.pi, n)
    first = daughter(parent, mass, m_lepton, m_lepton, cos_theta, phi)
    return first, parent - first


def angular_weights(
    p: FloatArray,
    mass: float,
    lepton: FloatArray,
    m_lepton: float,
    spins: Sequence[Spin],
    *,
    beam_energy: float,
    meson: FloatArray | None = None,
) -> FloatArray:
    """Return the density of lepton angles over that of isotropic decays, shape (s, n).

    Parameters
    ----------
    p, lepton : NDArray, shape (4, n)
        The vector and one of its leptons, px, py, pz, E [GeV].
    mass, m_lepton : float [GeV]
    spins : sequence of Spin
        For vectors whose parent is not known, one row each.
    beam_energy : float [GeV]
    meson : NDArray, shape (n, 4), optional
        The meson that decayed to the vector: it is transverse along its flight in the meson's rest frame in
        every row. nan where there is none.

    Notes
    -----
    1 + cos²θ + (4 m²/M²) sin²θ about that flight is exact for P → γA′ and for an unpolarised V → PA′.
    """
    rows = np.stack([spin.weight(p, mass, lepton, m_lepton, beam_energy) for spin in spins])
    if meson is None:
        return rows
    known = np.flatnonzero(~np.isnan(meson[:, 0]))
    # against the meson's momentum in the vector's rest frame; the sign does not matter
    along = cosine_between(p[:, known], mass, lepton[:, known], meson[known].T)
    lam = float(lambda_theta(TRANSVERSE, mass, m_lepton))
    rows[:, known] = np.where(np.isnan(along), 1.0, (1.0 + lam * along**2) / (1.0 + lam / 3.0))
    return rows


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
