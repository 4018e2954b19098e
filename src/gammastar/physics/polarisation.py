"""Spin state of a virtual photon and the angles of the pairs it decays to, for fermions of any mass.

Four-momenta are px, py, pz, E [GeV], shape (4, n), in the laboratory, where the target nucleon is at rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import M_PROTON
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray

__all__ = [
    "FRAMES",
    "NO_SPIN",
    "TRANSVERSE",
    "UNPOLARISED",
    "Frame",
    "Spin",
    "SpinState",
    "axis_cosine",
    "cosine",
    "cosine_between",
    "lambda_theta",
    "longitudinal_fraction",
]

Frame: TypeAlias = Literal["laboratory", "helicity", "collins_soper"]
FRAMES: tuple[Frame, ...] = get_args(Frame)
UNPOLARISED, TRANSVERSE = 1.0 / 3.0, 0.0
"""Longitudinal shares: the average over spins; the photon of a Dalitz decay in its parent's rest frame."""


class Spin(Protocol):
    """The spin of vectors, as far as the angles of their two fermions go."""

    def weight(
        self, photon: FloatArray, mass: float, fermion: FloatArray, m_fermion: float, beam_energy: float
    ) -> FloatArray:
        """Return the angular density of a decay over that of isotropic ones, shape (n,)."""


@dataclass(frozen=True, slots=True)
class SpinState:
    """Share of helicity zero along a named axis; the rest is shared by both transverse helicities.

    Attributes
    ----------
    longitudinal : float
        1/3 is unpolarised, whatever the axis.
    frame : {"laboratory", "helicity", "collins_soper"}
        The axis: the flight in the laboratory; the flight in the nucleon-nucleon system; the bisector of beam
        and reversed target direction.

    Raises
    ------
    PhysicsError
        If the share lies outside 0 to 1, or the frame is not known.
    """

    longitudinal: float = UNPOLARISED
    frame: Frame = "laboratory"

    def __post_init__(self) -> None:
        if not 0 <= self.longitudinal <= 1 or self.frame not in FRAMES:
            msg = (
                f"spin state: longitudinal = {self.longitudinal!r} must lie between 0 and 1, and frame = "
                f"{self.frame!r} be one of {', '.join(FRAMES)}"
            )
            raise PhysicsError(msg)

    def weight(
        self, photon: FloatArray, mass: float, fermion: FloatArray, m_fermion: float, beam_energy: float
    ) -> FloatArray:
        """Return the angular density of a decay over that of isotropic ones, shape (n,).

        Parameters
        ----------
        photon, fermion : NDArray, shape (4, n)
            The vector and one of the two fermions [GeV].
        mass, m_fermion : float [GeV]
        beam_energy : float [GeV]

        Notes
        -----
        (1 + λ cos²θ)/(1 + λ/3), its mean over isotropic decays is one.
        """
        lam = float(lambda_theta(self.longitudinal, mass, m_fermion))
        if abs(lam) < 1e-12:
            return np.ones(photon.shape[1])
        along = axis_cosine(photon, mass, fermion, self.frame, beam_energy)
        return np.asarray((1.0 + lam * along**2) / (1.0 + lam / 3.0))


NO_SPIN = SpinState()
"""The average over spins."""


def cosine_between(photon: FloatArray, mass: float, first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the cosine of the angle between two momenta in the rest frame of a vector, shape (n,).

    Parameters
    ----------
    photon, first, second : NDArray, shape (4, n)
    mass : float
        Of the vector [GeV].

    Notes
    -----
    From invariants: E* = p·q/m, and first·second = E₁*E₂* − |p₁*||p₂*| cos θ. nan where one of them is at
    rest.
    """
    one, two = (_product(photon, q) / mass for q in (first, second))
    sizes = [np.sqrt(np.clip(e**2 - _product(q, q), 0.0, None)) for e, q in ((one, first), (two, second))]
    size = sizes[0] * sizes[1]
    angle = np.divide(
        one * two - _product(first, second), size, out=np.full_like(size, np.nan), where=size > 0
    )
    return np.asarray(np.clip(angle, -1.0, 1.0), dtype=np.float64)


def axis_cosine(
    photon: FloatArray, mass: float, fermion: FloatArray, frame: Frame, beam_energy: float
) -> FloatArray:
    """Return cos θ of a fermion about the axis of a frame, in the rest frame of its vector, shape (n,).

    Parameters
    ----------
    photon, fermion : NDArray, shape (4, n)
    mass : float
        Of the vector [GeV].
    frame : {"laboratory", "helicity", "collins_soper"}
    beam_energy : float
        Of the proton [GeV].
    """
    momentum = float(np.sqrt(beam_energy**2 - M_PROTON**2))
    n = photon.shape[1]
    beam = np.broadcast_to(np.array([[0.0], [0.0], [momentum], [beam_energy]]), (4, n))
    target = np.broadcast_to(np.array([[0.0], [0.0], [0.0], [M_PROTON]]), (4, n))
    if frame == "collins_soper":  # unit vectors along the beam and against the target
        one, two = (cosine_between(photon, mass, fermion, q) for q in (beam, target))
        between = cosine_between(photon, mass, beam, target)
        return np.asarray((one - two) / np.sqrt(2.0 - 2.0 * between))
    back = target if frame == "laboratory" else beam + target  # flies against the vector's own flight there
    return -cosine_between(photon, mass, fermion, back)


def _product(p: FloatArray, q: FloatArray) -> FloatArray:
    return np.asarray(p[3] * q[3] - np.sum(p[:3] * q[:3], axis=0), dtype=np.float64)


def lambda_theta(longitudinal: npt.ArrayLike, mass: npt.ArrayLike, m_fermion: float) -> FloatArray:
    """Return λ of dN/dcos θ ∝ 1 + λ cos²θ for a vector with a given longitudinal fraction.

    Parameters
    ----------
    longitudinal : array_like
        Share f of helicity zero along the axis of θ; 1/3 is unpolarised, 0 transverse.
    mass : array_like
        Of the vector [GeV].
    m_fermion : float
        [GeV]

    Raises
    ------
    PhysicsError
        If the fraction lies outside 0 to 1, or the mass at or below threshold.

    Notes
    -----
    Transverse: 1 + cos²θ + r sin²θ; longitudinal: 2 (sin²θ + r cos²θ), r = 4 m_f²/m². Both integrate to the
    same, so λ = (1 − r)(1 − 3f)/[(1 + r) + f (1 − r)].

    Examples
    --------
    >>> lambda_theta([0.0, 1 / 3, 1.0], 1.0, 0.0).round(3)
    array([ 1.,  0., -1.])
    """
    f, m = np.asarray(longitudinal, dtype=np.float64), np.asarray(mass, dtype=np.float64)
    if not ((f >= 0) & (f <= 1)).all():
        msg = f"longitudinal fraction {f.min():g} to {f.max():g} must lie between 0 and 1"
        raise PhysicsError(msg)
    _check_threshold(m, m_fermion)
    r = np.square(2 * m_fermion / m)
    return np.asarray((1 - r) * (1 - 3 * f) / ((1 + r) + f * (1 - r)), dtype=np.float64)


def longitudinal_fraction(lambda_: npt.ArrayLike, mass: npt.ArrayLike, m_fermion: float) -> FloatArray:
    """Return the longitudinal fraction from λ as it was measured with fermions of one mass.

    With it and `lambda_theta`, λ of dimuons gives λ of electrons or of millicharged particles.

    Raises
    ------
    PhysicsError
        If λ is none that a vector can give: outside −(1 − r) to (1 − r)/(1 + r), r = 4 m_f²/m².
    """
    value, m = np.asarray(lambda_, dtype=np.float64), np.asarray(mass, dtype=np.float64)
    _check_threshold(m, m_fermion)
    r = np.square(2 * m_fermion / m)
    f = (1 - r - value * (1 + r)) / ((1 - r) * (3 + value))
    if not ((f >= -1e-9) & (f <= 1 + 1e-9)).all():
        msg = (
            f"λ = {value.min():g} to {value.max():g} cannot come from a vector of this mass: "
            f"allowed are {float(np.max(r - 1)):g} to {float(np.min((1 - r) / (1 + r))):g}"
        )
        raise PhysicsError(msg)
    return np.asarray(np.clip(f, 0.0, 1.0), dtype=np.float64)


def cosine(lambda_: npt.ArrayLike, uniform: npt.ArrayLike) -> FloatArray:
    """Return cos θ of dN/dcos θ ∝ 1 + λ cos²θ by inversion.

    Parameters
    ----------
    lambda_ : array_like
        From −1 to 1.
    uniform : array_like
        Uniform numbers in [0, 1), broadcast with `lambda_`.

    Notes
    -----
    The root of c + λ c³/3 = (2u − 1)(1 + λ/3) inside −1 to 1: hyperbolic for λ > 0, trigonometric for λ < 0.
    """
    lam, u = np.broadcast_arrays(np.asarray(lambda_, dtype=np.float64), np.asarray(uniform, dtype=np.float64))
    if not (np.abs(lam) <= 1 + 1e-12).all():
        msg = f"λ = {lam.min():g} to {lam.max():g} must lie between -1 and 1"
        raise PhysicsError(msg)
    target = (2 * u - 1) * (1 + lam / 3)
    size = np.maximum(np.abs(lam), 1e-9)
    scale = 2 / np.sqrt(size)
    argument = 1.5 * target * np.sqrt(size)
    positive = scale * np.sinh(np.arcsinh(argument) / 3)
    negative = scale * np.sin(np.arcsin(np.clip(argument, -1.0, 1.0)) / 3)
    return np.asarray(np.clip(np.where(lam >= 0, positive, negative), -1.0, 1.0), dtype=np.float64)


def _check_threshold(mass: FloatArray, m_fermion: float) -> None:
    if not (mass > 2 * m_fermion).all():
        msg = f"mass {mass.min():g} GeV is not above the threshold {2 * m_fermion:g} GeV"
        raise PhysicsError(msg)
