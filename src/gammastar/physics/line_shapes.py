"""Mass distributions of lepton pairs: line shapes of the vector mesons, Dalitz decays, what is smooth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.integrate import quad

from gammastar.core.constants import M_MU, M_PI0, M_PI_CHARGED, mass, width
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.physics.form_factors import eta2, eta_prime2, omega2, pi0_2
from gammastar.physics.qed import lepton_factor, pseudoscalar_dalitz, vector_dalitz

__all__ = [
    "RHO_MASS_MAX",
    "RHO_TEMPERATURE",
    "Component",
    "breit_wigner",
    "cocktail_components",
    "rho_mass_density",
    "rho_omega_phase",
    "rho_width",
]

PI0, ETA, ETA_PRIME, RHO, OMEGA, PHI = 111, 221, 331, 113, 223, 333
RHO_MASS_MAX = 1.5  # GeV: upper end of the normalised ρ line shape
RHO_TEMPERATURE = 0.161  # GeV: effective temperature in In-In, NA60, arXiv:0902.2547; assumed for p-A
POINTS = 401  # per cell of an integral: a 10 MeV cell resolves the 4 MeV of the φ by a hundred points


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


@dataclass(frozen=True, slots=True)
class Component:
    """A line shape of true mass.

    Attributes
    ----------
    name : str
    density : function of mass [GeV] → dN/dm [GeV⁻¹]
        Any normalisation: the fit multiplies it.
    """

    name: str
    density: Callable[[FloatArray], FloatArray]

    def times(self, m: FloatArray, factor: FloatArray) -> Component:
        """Return the component times a factor that is interpolated between masses, e.g. a fiducial part."""
        return Component(self.name, partial(_interpolated, shape=self.density, grid=m, factor=factor))

    def cells(self, edges: FloatArray) -> FloatArray:
        """Return the integral over each cell of the edges [GeV]."""
        grid = np.linspace(edges[:-1], edges[1:], POINTS, axis=1)
        return np.asarray(np.trapezoid(self.density(grid), grid, axis=1))


def _bernstein(m: FloatArray, k: int, degree: int, ends: tuple[float, float], m_lepton: float) -> FloatArray:
    low, high = ends
    x = np.clip((m - low) / (high - low), 0, 1)
    inside = (m >= low) & (m <= high)
    basis = comb(degree, k) * x**k * (1 - x) ** (degree - k)
    return np.where(inside, basis * lepton_factor(m**2, m_lepton), 0.0)


def _interpolated(
    m: FloatArray, shape: Callable[[FloatArray], FloatArray], grid: FloatArray, factor: FloatArray
) -> FloatArray:
    return np.asarray(shape(m) * np.interp(m, grid, factor))


def _scaled(m: FloatArray, shape: Callable[[FloatArray], FloatArray], norm: float) -> FloatArray:
    return np.asarray(shape(m) / norm)


def cocktail_components(
    mass_range: tuple[float, float],
    *,
    temperature: float = RHO_TEMPERATURE,
    smooth: int = 2,
    m_lepton: float = M_MU,
) -> tuple[Component, ...]:
    """Return the line shapes of a low-mass dilepton spectrum.

    η, η′ and ω Dalitz decays, for electrons that of the π⁰ too; ρ, ω and φ; and for what is smooth a positive
    basis of polynomials times the threshold factor of the leptons.

    Parameters
    ----------
    mass_range : (float, float) [GeV]
        Where the smooth part lives.
    temperature : float
        Of the ρ's Boltzmann factor [GeV].
    smooth : int
        Bernstein polynomials of degree ``smooth − 1``; 0 leaves them out.
    m_lepton : float
        [GeV]

    Notes
    -----
    Dalitz decays: Landsberg, Phys. Rept. 128 (1985) 301; ρ: NA60, Phys. Lett. B 677 (2009) 260; ω and φ:
    relativistic Breit-Wigner. All but the polynomials are normalised to one.
    """

    def dalitz(m: FloatArray, parent: int, daughter: float | None, form: Any) -> FloatArray:
        if daughter is None:
            return 2 * m * pseudoscalar_dalitz(m**2, mass(parent), m_lepton, form)
        return 2 * m * vector_dalitz(m**2, mass(parent), daughter, m_lepton, form)

    result = []
    for name, parent, daughter, form in (
        ("pi0_dalitz", PI0, None, pi0_2),
        ("eta_dalitz", ETA, None, eta2),
        ("eta_prime_dalitz", ETA_PRIME, None, eta_prime2),
        ("omega_dalitz", OMEGA, M_PI0, omega2),
    ):
        if mass(parent) <= 2 * m_lepton:
            continue
        shape = partial(dalitz, parent=parent, daughter=daughter, form=form)
        top = mass(parent) - (daughter or 0.0)
        grid = 2 * m_lepton + (top - 2 * m_lepton) * np.linspace(0, 1, 6001) ** 1.5
        norm = float(np.trapezoid(shape(grid), grid))
        result.append(Component(name, partial(_scaled, shape=shape, norm=norm)))
    result.append(Component("rho", partial(rho_mass_density, temperature=temperature, m_lepton=m_lepton)))
    for name, pdg in (("omega", OMEGA), ("phi", PHI)):
        result.append(Component(name, partial(breit_wigner, pole=mass(pdg), gamma=width(pdg))))
    result += [
        Component(
            f"smooth_{k}", partial(_bernstein, k=k, degree=smooth - 1, ends=mass_range, m_lepton=m_lepton)
        )
        for k in range(smooth)
    ]
    return tuple(result)
