"""Two-body decays of moving particles, vectorised (four-momenta as px, py, pz, E in GeV)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import vector

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray

__all__ = [
    "daughter",
    "daughter_about",
    "isotropic",
    "lepton_cosine",
    "lorentz",
    "momentum_in_rest_frame",
    "two_body",
]


def momentum_in_rest_frame(parent_mass: npt.ArrayLike, m1: npt.ArrayLike, m2: npt.ArrayLike) -> FloatArray:
    """Return the momentum of either daughter in the rest frame of the parent [GeV].

    Raises
    ------
    PhysicsError
        If a parent is lighter than its daughters.
    """
    parent, a, b = (np.asarray(x, dtype=np.float64) for x in (parent_mass, m1, m2))
    total = a + b
    if bool(np.any(parent < total * (1.0 - 1e-9))):
        gap = np.broadcast_to(parent - total, np.broadcast_shapes(parent.shape, total.shape)).ravel()
        worst = int(np.argmin(gap))
        msg = (
            f"two-body decay {worst}: the parent is lighter than its daughters by {-gap[worst]:.6g} GeV; "
            "draw masses inside the phase space"
        )
        raise PhysicsError(msg)
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
    """Return the four-momentum of the first daughter; the second is parent − first.

    Parameters
    ----------
    parent : NDArray, shape (4, n)
        px, py, pz, E [GeV].
    parent_mass, m1, m2 : array_like, scalar or shape (n,)
        [GeV]; the parent's mass is given apart because E² − p² loses it to rounding at high energy.
    cos_theta, phi : array_like, shape (n,)
        Direction of the first daughter in the rest frame of the parent, with respect to the direction of
        flight of the parent (the z axis for a parent at rest).

    Returns
    -------
    NDArray, shape (4, n)
    """
    px, py, pz, energy = parent
    mass = np.asarray(parent_mass, dtype=np.float64)
    p_star = momentum_in_rest_frame(mass, m1, m2)
    e_star = np.sqrt(p_star**2 + np.square(m1))
    along = p_star * np.asarray(cos_theta, dtype=np.float64)
    across = p_star * np.sqrt(np.clip(1.0 - np.square(cos_theta), 0.0, None))
    pt = np.hypot(px, py)
    p = np.hypot(pt, pz)
    moving, tilted = p > 0, pt > 0
    cos_t = np.divide(pz, p, out=np.ones_like(p), where=moving)
    sin_t = np.divide(pt, p, out=np.zeros_like(p), where=moving)
    cos_p = np.divide(px, pt, out=np.ones_like(p), where=tilted)
    sin_p = np.divide(py, pt, out=np.zeros_like(p), where=tilted)
    longitudinal = (energy * along + p * e_star) / mass
    x, y = across * np.cos(phi), across * np.sin(phi)
    radial = cos_t * x + sin_t * longitudinal
    return np.stack(
        [
            cos_p * radial - sin_p * y,
            sin_p * radial + cos_p * y,
            cos_t * longitudinal - sin_t * x,
            (energy * e_star + p * along) / mass,
        ]
    )


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
    """Return one of two equal daughters, whose angles are about the momentum of a third particle.

    Parameters
    ----------
    parent : NDArray, shape (4, n)
        px, py, pz, E [GeV].
    parent_mass : NDArray, shape (n,) [GeV]
    m_daughter : float [GeV]
    about : NDArray, shape (4, n)
        Its momentum in the rest frame of the parent is the axis, e.g. that of the meson the parent came from.
    cos_theta, phi : NDArray, shape (n,)

    Returns
    -------
    NDArray, shape (4, n)
    """
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


def _as_vector(p: FloatArray) -> Any:
    return vector.array({"px": p[0], "py": p[1], "pz": p[2], "E": p[3]})


def two_body(
    parent: Any,
    m1: npt.ArrayLike,
    m2: npt.ArrayLike,
    cos_theta: npt.ArrayLike,
    phi: npt.ArrayLike,
) -> tuple[Any, Any]:
    """Decay each parent into two daughters.

    Parameters
    ----------
    parent : vector.MomentumNumpy4D, shape (n,)
    m1, m2 : array_like, scalar or shape (n,)
        [GeV]
    cos_theta, phi : array_like, shape (n,)
        Direction of the first daughter in the rest frame of the parent, with respect to the parent's
        direction of flight.

    Returns
    -------
    p1, p2 : vector.MomentumNumpy4D, shape (n,)
        They add up to the parent.

    Raises
    ------
    PhysicsError
        If a parent is lighter than its daughters.
    """
    p = np.stack([np.asarray(x, dtype=np.float64) for x in (parent.px, parent.py, parent.pz, parent.E)])
    first = daughter(p, np.asarray(parent.mass, dtype=np.float64), m1, m2, cos_theta, phi)
    return _as_vector(first), _as_vector(p - first)


def isotropic(parent: Any, m1: npt.ArrayLike, m2: npt.ArrayLike, rng: np.random.Generator) -> tuple[Any, Any]:
    """Decay each parent into two daughters, isotropically in its rest frame; arguments as `two_body`."""
    n = len(parent)
    return two_body(parent, m1, m2, rng.uniform(-1.0, 1.0, n), rng.uniform(-np.pi, np.pi, n))


def lepton_cosine(q2: npt.ArrayLike, m_lepton: float, uniform: npt.ArrayLike) -> FloatArray:
    """Return cos θ of the lepton in the frame of a transverse virtual photon, by inversion.

    Parameters
    ----------
    q2 : array_like, shape (n,)
        [GeV²], above 4 mₗ².
    m_lepton : float
        [GeV]
    uniform : array_like, shape (n,)
        Uniform numbers in [0, 1).

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
