"""Squared electromagnetic transition form factors |F(q²)|², normalised to one at q² = 0."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import M_PI0
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray

__all__ = [
    "ETA_INVERSE_LAMBDA2",
    "ETA_INVERSE_LAMBDA2_ERROR",
    "OMEGA_INVERSE_LAMBDA2",
    "OMEGA_INVERSE_LAMBDA2_ERROR",
    "eta2",
    "eta_prime2",
    "omega2",
    "pi0_2",
    "pointlike",
]

ETA_INVERSE_LAMBDA2 = 1.934  # GeV⁻², NA60, arXiv:1608.07898
ETA_INVERSE_LAMBDA2_ERROR = math.hypot(0.067, 0.050)  # statistical and systematic, same paper
OMEGA_INVERSE_LAMBDA2 = 2.223  # GeV⁻², NA60, arXiv:1608.07898
OMEGA_INVERSE_LAMBDA2_ERROR = math.hypot(0.026, 0.037)  # statistical and systematic, same paper
ETA_PRIME_POLE = 0.764  # GeV; vector-dominance fit to the data compiled by Landsberg (1985)
ETA_PRIME_WIDTH = 0.102  # GeV; same fit
PI0_SLOPE = 0.0332  # ± 0.0029, in units of 1/m²(π⁰); PDG 2026, S009A


def _pole2(q2: npt.ArrayLike, inverse_lambda2: float) -> FloatArray:
    scaled = np.asarray(q2, dtype=np.float64) * inverse_lambda2
    if bool(np.any(scaled >= 1.0)):
        msg = (
            f"pole form factor: q² = {float(np.max(scaled)) / inverse_lambda2:.6g} GeV² reaches the pole at "
            f"{1.0 / inverse_lambda2:.6g} GeV²; the form holds below it only"
        )
        raise PhysicsError(msg)
    return np.asarray((1.0 - scaled) ** -2, dtype=np.float64)


def pointlike(q2: npt.ArrayLike) -> FloatArray:
    """Return 1 for every q² [GeV²]: no form factor."""
    return np.ones_like(np.asarray(q2, dtype=np.float64))


def eta2(q2: npt.ArrayLike, inverse_lambda2: float = ETA_INVERSE_LAMBDA2) -> FloatArray:
    """Return |F_η(q²)|² = (1 − q²/Λ²)⁻².

    Parameters
    ----------
    q2 : array_like
        [GeV²]
    inverse_lambda2 : float
        Λ⁻² [GeV⁻²].

    Raises
    ------
    PhysicsError
        If q² reaches the pole.

    Notes
    -----
    NA60, arXiv:1608.07898.
    """
    return _pole2(q2, inverse_lambda2)


def omega2(q2: npt.ArrayLike, inverse_lambda2: float = OMEGA_INVERSE_LAMBDA2) -> FloatArray:
    """Return |F_ω(q²)|² = (1 − q²/Λ²)⁻² of ω → π⁰γ*; arguments as `eta2`.

    Notes
    -----
    NA60, arXiv:1608.07898. Together with BR(ω → π⁰γ) it gives a branching fraction of ω → π⁰μ⁺μ⁻ 25 to 30 %
    below the measured one: choose one normalisation and say which.
    """
    return _pole2(q2, inverse_lambda2)


def eta_prime2(q2: npt.ArrayLike) -> FloatArray:
    """Return |F_η'(q²)|² = m⁴ / [(m² − q²)² + m²Γ²] with m = 0.764, Γ = 0.102 GeV; q² in GeV².

    Notes
    -----
    L. G. Landsberg, Phys. Rept. 128 (1985) 301; the width keeps the ρ pole, inside the η' range, finite.
    |F(0)|² lies (Γ/m)² = 1.8 % below one.
    """
    q2 = np.asarray(q2, dtype=np.float64)
    pole2 = ETA_PRIME_POLE**2
    return np.asarray(pole2**2 / ((pole2 - q2) ** 2 + pole2 * ETA_PRIME_WIDTH**2), dtype=np.float64)


def pi0_2(q2: npt.ArrayLike) -> FloatArray:
    """Return |F_π⁰(q²)|² = (1 + a q²/m²)² with the slope a = 0.0332 (PDG); q² in GeV²."""
    q2 = np.asarray(q2, dtype=np.float64)
    return np.asarray((1.0 + PI0_SLOPE * q2 / M_PI0**2) ** 2, dtype=np.float64)
