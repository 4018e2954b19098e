"""Kinematics: two-body decays of moving particles, vertices of tracks.

Four-momenta are px, py, pz, E in GeV, lengths in metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray


def momentum_in_rest_frame(parent_mass: npt.ArrayLike, m1: npt.ArrayLike, m2: npt.ArrayLike) -> FloatArray:
    """Return the momentum of either daughter in the rest frame of the parent [GeV]."""
    parent, a, b = (np.asarray(x, dtype=np.float64) for x in (parent_mass, m1, m2))
    total = a + b
    if bool(np.any(parent < total * (1.0 - 1e-9))):
        gap = np.broadcast_to(parent - total, np.broadcast_shapes(parent.shape, total.shape)).ravel()
        worst = int(np.argmin(gap))
        raise PhysicsError(
            f"two-body decay {worst}: the parent is lighter than its daughters by {-gap[worst]:.6g} GeV; "
            "draw masses inside the phase space"
        )
    square = (parent**2 - total**2) * (parent**2 - (a - b) ** 2)
    return np.asarray(np.sqrt(np.clip(square, 0.0, None)) / (2.0 * parent), dtype=np.float64)


def daughter(
    parent: FloatArray,
    parent_mass: npt.ArrayLike,
    m1: npt.ArrayLike,
    m2: npt.ArrayLike,
    cos_theta: npt.ArrayLike,
    phi: npt.ArrayLike,
) -> FloatArray:
    """Return the four-momentum of the first daughter; the second is parent − first."""
    px, py, pz, energy = parent
    mass, cosine = np.asarray(parent_mass, dtype=np.float64), np.asarray(cos_theta, dtype=np.float64)
    p_star = momentum_in_rest_frame(mass, m1, m2)
    e_star = np.sqrt(p_star**2 + np.square(m1))
    along, across = p_star * cosine, p_star * np.sqrt(np.maximum(1.0 - cosine**2, 0.0))
    square = px**2 + py**2
    pt, p = np.sqrt(square), np.sqrt(square + pz**2)
    (cos_t, sin_t), (cos_p, sin_p) = _direction(pz, pt, p), _direction(px, py, pt)
    longitudinal = (energy * along + p * e_star) / mass
    x, y = across * np.cos(phi), across * np.sin(phi)
    radial = cos_t * x + sin_t * longitudinal
    momentum = np.empty(np.broadcast_shapes(parent.shape, (4, *radial.shape)))
    momentum[0] = cos_p * radial - sin_p * y
    momentum[1] = sin_p * radial + cos_p * y
    momentum[2] = cos_t * longitudinal - sin_t * x
    momentum[3] = (energy * e_star + p * along) / mass
    return momentum


def _direction(x: FloatArray, y: FloatArray, size: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return cosine and sine of the angle of (x, y) of a known size; those of zero where it vanishes."""
    if size.all():
        inverse = 1.0 / size
        return x * inverse, y * inverse
    inverse = 1.0 / np.where(size > 0, size, 1.0)
    return np.where(size > 0, x * inverse, 1.0), y * inverse


def lorentz(p: FloatArray, frame: FloatArray, frame_mass: FloatArray) -> FloatArray:
    """Return four-momenta, shape (4, n), from the rest frame of `frame` in the frame where that moves."""
    along = frame[0] * p[0] + frame[1] * p[1] + frame[2] * p[2]
    factor = along / (frame_mass * (frame[3] + frame_mass)) + p[3] / frame_mass
    return np.concatenate([p[:3] + frame[:3] * factor, [(frame[3] * p[3] + along) / frame_mass]])


def daughter_about(
    parent: FloatArray,
    parent_mass: FloatArray,
    m_daughter: float,
    about: FloatArray,
    cos_theta: FloatArray,
    phi: FloatArray,
) -> FloatArray:
    """Return one of two equal daughters, whose angles are about the momentum of a third particle."""
    back = parent * np.array([[-1.0], [-1.0], [-1.0], [1.0]])
    z = lorentz(about, back, parent_mass)[:3]
    z = z / np.linalg.norm(z, axis=0)
    flat = np.eye(3)[np.abs(z).argmin(axis=0)].T  # the coordinate axis that is least along z
    x = np.cross(flat, z, axis=0)
    x = x / np.linalg.norm(x, axis=0)
    y = np.cross(z, x, axis=0)
    across = np.sqrt(np.clip(1.0 - cos_theta**2, 0.0, None))
    direction = x * (across * np.cos(phi)) + y * (across * np.sin(phi)) + z * cos_theta
    p = momentum_in_rest_frame(parent_mass, m_daughter, m_daughter)
    rest = np.concatenate([direction * p, [np.hypot(p, m_daughter)]])
    return lorentz(rest, parent, parent_mass)


def lepton_cosine(q2: npt.ArrayLike, m_lepton: float, uniform: npt.ArrayLike) -> FloatArray:
    """Return cos θ of the lepton in the frame of a transverse virtual photon, by inversion.

    Notes
    -----
    dN/dcos θ ∝ 1 + cos²θ + (4 mₗ²/q²)(1 − cos²θ) with respect to the photon's flight in the rest frame of
    its parent; exact for P → γγ* and unpolarised ω → π⁰γ*. The cumulative distribution A c + B c³ is
    inverted with Cardano's formula (one real root, as A > 0 and B ≥ 0).
    """
    ratio = np.minimum(4.0 * m_lepton**2 / np.asarray(q2, dtype=np.float64), 1.0)
    a = 1.0 + ratio
    b = np.maximum((1.0 - ratio) / 3.0, 1e-9)  # keeps the closed form finite at threshold
    target = (2.0 * np.asarray(uniform, dtype=np.float64) - 1.0) * (a + b)
    root = np.sqrt(a / (3.0 * b))
    cosine = 2.0 * root * np.sinh(np.arcsinh(1.5 * target / (a * root)) / 3.0)
    return np.asarray(np.clip(cosine, -1.0, 1.0), dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Vertices:
    """Vertices of pairs of straight tracks."""

    # Midpoint of the shortest segment between the two lines; nan for parallel tracks, shape (n, 3) [m]
    position: FloatArray
    distance: FloatArray  # Length of that segment, shape (n,) [m]


def _points(name: str, array: npt.ArrayLike) -> FloatArray:
    values = np.asarray(array, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != 3:
        raise PhysicsError(f"vertex: {name} has shape {values.shape}, expected (n, 3)")
    return values


def two_track_vertex(
    point1: npt.ArrayLike, direction1: npt.ArrayLike, point2: npt.ArrayLike, direction2: npt.ArrayLike
) -> Vertices:
    """Return the points of closest approach of two lines each."""
    a, b = _points("point1", point1), _points("point2", point2)
    u, v = _points("direction1", direction1), _points("direction2", direction2)
    u, v = (w / np.linalg.norm(w, axis=1, keepdims=True) for w in (u, v))
    between = a - b
    cosine = np.sum(u * v, axis=1)
    # 1 − cos² loses the small opening angles of a dump: the sine comes from the cross product
    sine2 = np.sum(np.cross(u, v) ** 2, axis=1)
    along1, along2 = np.sum(u * between, axis=1), np.sum(v * between, axis=1)
    safe = np.where(sine2 > 0, sine2, np.nan)
    t1 = (cosine * along2 - along1) / safe
    t2 = (along2 - cosine * along1) / safe
    first, second = a + t1[:, None] * u, b + t2[:, None] * v
    return Vertices(0.5 * (first + second), np.linalg.norm(first - second, axis=1))
