"""Mass distributions of the vector mesons in their decays to lepton pairs."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.integrate import quad

from gammastar.core.constants import M_MU, M_PI_CHARGED, mass, width
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.physics.kroll_wada import lepton_factor

__all__ = [
    "RHO_MASS_MAX",
    "RHO_TEMPERATURE",
    "breit_wigner",
    "rho_mass_density",
    "rho_omega_phase",
    "rho_width",
]

RHO, OMEGA = 113, 223
RHO_MASS_MAX = 1.5  # GeV: upper end of the normalised ρ line shape
RHO_TEMPERATURE = 0.161  # GeV: effective temperature in In-In, NA60, arXiv:0902.2547; assumed for p-A


def breit_wigner(m: npt.ArrayLike, pole: float, gamma: float) -> FloatArray:
    """Return the relativistic Breit-Wigner dN/dm of constant width [GeV⁻¹].

    Parameters
    ----------
    m : array_like
        [GeV]
    pole, gamma : float
        Mass and total width [GeV].

    Notes
    -----
    dN/dm² = (1/π) MΓ / [(m² − M²)² + M²Γ²], which integrates to one over −∞ < m² < ∞.
    """
    m = np.asarray(m, dtype=np.float64)
    scale = pole * gamma
    return np.asarray(2.0 * m / np.pi * scale / ((m**2 - pole**2) ** 2 + scale**2), dtype=np.float64)


def rho_width(m: npt.ArrayLike) -> FloatArray:
    """Return the mass-dependent P-wave width Γ₀ (M_ρ/m)(q/q₀)³ of ρ → ππ [GeV]; 0 below 2 m_π."""
    m = np.asarray(m, dtype=np.float64)
    pole = mass(RHO)
    q0 = np.sqrt(pole**2 / 4.0 - M_PI_CHARGED**2)
    q = np.sqrt(np.clip(m**2 / 4.0 - M_PI_CHARGED**2, 0.0, None))
    return np.asarray(width(RHO) * pole / np.maximum(m, 1e-9) * (q / q0) ** 3, dtype=np.float64)


def rho_omega_phase(m: npt.ArrayLike) -> FloatArray:
    """Return cos of the phase between the propagators of ρ and ω, by which their interference goes.

    Parameters
    ----------
    m : array_like
        [GeV]

    Notes
    -----
    Phases of 1/(M² − m² − iMΓ), the width of the ρ running; amplitudes that are made in phase. At the ω both
    phases pass a right angle, and the interference is largest.

    Examples
    --------
    >>> [round(float(value), 2) for value in rho_omega_phase([0.76, 0.7827, 0.8])]
    [0.39, 1.0, 0.52]
    """
    s = np.asarray(m, dtype=np.float64) ** 2
    rho = mass(RHO) ** 2 - s - 1j * mass(RHO) * rho_width(np.sqrt(s))
    omega = mass(OMEGA) ** 2 - s - 1j * mass(OMEGA) * width(OMEGA)
    return np.asarray(np.cos(np.angle(omega) - np.angle(rho)), dtype=np.float64)


def _rho_shape(m: npt.ArrayLike, temperature: float, m_lepton: float) -> FloatArray:
    m = np.asarray(m, dtype=np.float64)
    pole = mass(RHO)
    pions = np.clip(1.0 - 4.0 * M_PI_CHARGED**2 / np.maximum(m, 1e-9) ** 2, 0.0, None) ** 1.5
    propagator = (m**2 - pole**2) ** 2 + pole**2 * rho_width(m) ** 2
    thermal = (np.clip(m, 0.0, None) * temperature) ** 1.5 * np.exp(-m / temperature)
    return np.asarray(lepton_factor(m**2, m_lepton) * pions / propagator * thermal, dtype=np.float64)


@cache
def _rho_norm(temperature: float, m_lepton: float) -> float:
    low = max(2.0 * M_PI_CHARGED, 2.0 * m_lepton)
    pole = mass(RHO)
    value, _ = quad(
        lambda m: float(_rho_shape(m, temperature, m_lepton)), low, RHO_MASS_MAX, points=[pole], limit=200
    )
    return float(value)


def rho_mass_density(m: npt.ArrayLike, temperature: float, *, m_lepton: float = M_MU) -> FloatArray:
    """Return dN/dm of ρ → l⁺l⁻, normalised to one between 2 m_π and 1.5 GeV [GeV⁻¹].

    Parameters
    ----------
    m : array_like
        [GeV]
    temperature : float
        Effective temperature of the Boltzmann factor [GeV].
    m_lepton : float
        [GeV]

    Raises
    ------
    PhysicsError
        If `temperature` is not positive.

    Notes
    -----
    Two-pion phase space, P-wave width, photon propagator and lepton threshold times (mT)^{3/2} e^{−m/T}, the
    form of the NA60 and ALICE low-mass dimuon analyses (e.g. NA60, Phys. Lett. B 677 (2009) 260).
    """
    if not temperature > 0:
        msg = f"rho_mass_density: temperature = {temperature!r} GeV must be positive"
        raise PhysicsError(msg)
    m = np.asarray(m, dtype=np.float64)
    inside = m <= RHO_MASS_MAX
    shape = _rho_shape(m, temperature, m_lepton) / _rho_norm(temperature, m_lepton)
    return np.where(inside, shape, 0.0)
