"""Spin state of a virtual photon and the angles of the pairs it decays to, for fermions of any mass."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray

__all__ = ["cosine", "lambda_theta", "longitudinal_fraction"]


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
