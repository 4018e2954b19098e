"""Splitting functions d²P/(dz dpT²) of p → p A' at unit mixing: the formulas of four conventions.

z is the momentum fraction of the dark photon, pT its transverse momentum, and
H = pT² + z² m_p² + (1 − z) m² the virtuality denominator. All functions broadcast and return GeV⁻².
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import ALPHA, M_PROTON
from gammastar.core.records import FloatArray

__all__ = ["dirac", "fww", "interference", "pauli", "polarisation_sum", "virtuality"]

_MP2 = M_PROTON**2


def virtuality(z: npt.ArrayLike, pt2: npt.ArrayLike, mass: npt.ArrayLike) -> FloatArray:
    """Return H = pT² + z² m_p² + (1 − z) m² [GeV²].

    Parameters
    ----------
    z, pt2, mass : array_like, broadcast against each other
        Momentum fraction, squared transverse momentum [GeV²], mass of the dark photon [GeV].
    """
    z = np.asarray(z, dtype=np.float64)
    return np.asarray(np.asarray(pt2) + z**2 * _MP2 + (1.0 - z) * np.square(mass), dtype=np.float64)


def dirac(z: npt.ArrayLike, pt2: npt.ArrayLike, mass: npt.ArrayLike) -> FloatArray:
    """Return w₁₁, the part ∝ |F1|² with the longitudinal polarisation e_L − q/m.

    Notes
    -----
    Quasi-real approximation, second version: arXiv:2409.09123. At m → 0 it is the photon splitting function
    (α/2π) [(1 + (1−z)²)/(zH) − 2z(1−z) m_p²/H²].
    """
    z, m2 = np.asarray(z, dtype=np.float64), np.square(mass)
    h = virtuality(z, pt2, mass)
    return np.asarray(
        ALPHA / (2 * np.pi * h) * ((1 + (1 - z) ** 2) / z - z * (1 - z) * (2 * _MP2 + m2) / h),
        dtype=np.float64,
    )


def pauli(z: npt.ArrayLike, pt2: npt.ArrayLike, mass: npt.ArrayLike) -> FloatArray:
    """Return w₂₂, the part ∝ |F2|² of the anomalous moment; arXiv:2409.09123."""
    z, m2 = np.asarray(z, dtype=np.float64), np.square(mass)
    h = virtuality(z, pt2, mass)
    extra = (1 - (1 - z) * (4 * _MP2 + m2) / h) * (1 / z - z / 4 * (4 * _MP2 - m2) / h)
    return np.asarray(dirac(z, pt2, mass) + ALPHA / (4 * np.pi * _MP2) * extra, dtype=np.float64)


def interference(z: npt.ArrayLike, pt2: npt.ArrayLike, mass: npt.ArrayLike) -> FloatArray:
    """Return w₁₂, the part ∝ Re(F1 F2*); arXiv:2409.09123."""
    z, m2 = np.asarray(z, dtype=np.float64), np.square(mass)
    h = virtuality(z, pt2, mass)
    return np.asarray(ALPHA / (2 * np.pi * h) * (2 * z - 3 * z * (1 - z) * m2 / h), dtype=np.float64)


def polarisation_sum(z: npt.ArrayLike, pt2: npt.ArrayLike, mass: npt.ArrayLike) -> FloatArray:
    """Return the plain sum over polarisations, ∝ |F1|².

    Notes
    -----
    Quasi-real approximation, first version: arXiv:2108.05900. It grows as 1/m² at small mass, because the
    current of the off-shell proton is not conserved.
    """
    z, m2 = np.asarray(z, dtype=np.float64), np.square(mass)
    h = virtuality(z, pt2, mass)
    bracket = z - z * (1 - z) * (2 * _MP2 + m2) / h + h / (2 * z * m2)
    return np.asarray(ALPHA / (2 * np.pi * h) * bracket, dtype=np.float64)


def fww(z: npt.ArrayLike, pt2: npt.ArrayLike, mass: npt.ArrayLike) -> FloatArray:
    """Return the splitting function of Blümlein and Brunner (Fermi-Weizsäcker-Williams).

    Notes
    -----
    arXiv:1311.3870, Eq. 5; the third term holds (1 + (1−z)²).
    """
    z, m2 = np.asarray(z, dtype=np.float64), np.square(mass)
    h = virtuality(z, pt2, mass)
    both = 1 + (1 - z) ** 2
    bracket = both / z - 2 * z * (1 - z) * ((2 * _MP2 + m2) / h - 2 * z**2 * _MP2**2 / h**2)
    bracket = bracket + 2 * z * (1 - z) * m2 * (both * _MP2 + (1 - z) * m2) / h**2
    return np.asarray(ALPHA / (2 * np.pi * h) * bracket, dtype=np.float64)
