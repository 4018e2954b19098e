"""Freeze-out of dark states in the early universe: degrees of freedom, coannihilation, relic density.

Assumed: dark states in kinetic and chemical equilibrium with each other until freeze-out, no asymmetry,
standard expansion, heavier states decay to the lightest. The plasma is an ideal gas, with a smooth change
from pions to quarks at 150 MeV: 10 % in the degrees of freedom there, less elsewhere above 1 MeV.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.integrate import solve_ivp
from scipy.special import kve

from gammastar.core.constants import LEPTON_MASS, M_PI_CHARGED, M_TAU
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray

__all__ = ["OMEGA_DM", "degrees", "relic_density", "thermal_average"]

OMEGA_DM = 0.120  # Ω h² of cold dark matter, Planck 2018
PLANCK_MASS = 1.220890e19  # GeV
TODAY = 2.744e8  # Ω h² per GeV of mass and unit of n/s: 2891 cm⁻³ over 1.0537e-5 GeV cm⁻³
QCD, QCD_WIDTH = 0.150, 0.020  # GeV
# statistics (+1 fermions), degrees of freedom, mass [GeV]
ALWAYS = (
    *((-1, 2.0, 0.0), (1, 6.0, 0.0)),
    *((1, 4.0, LEPTON_MASS["e"]), (1, 4.0, LEPTON_MASS["mu"]), (1, 4.0, M_TAU)),
)
HADRONS = ((-1, 3.0, M_PI_CHARGED), (-1, 4.0, 0.4957), (-1, 9.0, 0.775), (-1, 3.0, 0.783))
QUARKS = ((-1, 16.0, 0.0), (1, 24.0, 0.005), (1, 12.0, 0.095), (1, 12.0, 1.27), (1, 12.0, 4.18))

CrossSection: TypeAlias = Callable[[FloatArray], FloatArray]


@cache
def _table() -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return ln T [GeV], h (entropy) and √g* on a grid."""
    log_t = np.linspace(np.log(1e-4), np.log(20.0), 240)
    t = np.exp(log_t)
    node, weight = np.polynomial.laguerre.laggauss(64)

    def gas(species: tuple[tuple[int, float, float], ...]) -> tuple[FloatArray, FloatArray]:
        energy, entropy = np.zeros_like(t), np.zeros_like(t)
        for sign, number, mass in species:
            ratio = (mass / t)[:, None]
            e = np.sqrt(node**2 + ratio**2)
            filled = np.exp(node - e) / (1.0 + sign * np.exp(-e)) * weight
            rho = number * (filled * node**2 * e).sum(axis=1)
            pressure = number * (filled * node**4 / (3.0 * e)).sum(axis=1)
            energy += 15.0 / np.pi**4 * rho
            entropy += 45.0 / (4.0 * np.pi**4) * (rho + pressure)
        return energy, entropy

    g, h = gas(ALWAYS)
    quark = 0.5 * (1.0 + np.tanh((t - QCD) / QCD_WIDTH))  # 1 above the change, 0 below
    for species, part in ((HADRONS, 1.0 - quark), (QUARKS, quark)):
        more_g, more_h = gas(species)
        g, h = g + part * more_g, h + part * more_h
    root = h / np.sqrt(g) * (1.0 + np.gradient(np.log(h), log_t) / 3.0)
    return log_t, h, root


def degrees(temperature: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return the degrees of freedom of the entropy, h, and √g* = (h/√g)(1 + ⅓ dln h/dln T).

    Parameters
    ----------
    temperature : array_like [GeV]
        Above 1e-4; neutrinos keep the temperature of the photons, which holds above 1 MeV.

    Examples
    --------
    >>> round(float(degrees(5e-3)[0]), 2)
    10.75
    """
    log_t, h, root = _table()
    x = np.log(temperature)
    return np.asarray(np.interp(x, log_t, h)), np.asarray(np.interp(x, log_t, root))


def thermal_average(
    masses: FloatArray, numbers: FloatArray, rate: CrossSection, threshold: float, x: FloatArray
) -> FloatArray:
    """Return ⟨σ_eff v⟩ of coannihilating species [GeV⁻²], shape of x.

    Parameters
    ----------
    masses, numbers : NDArray, shape (n,)
        Masses [GeV], the lightest first, and degrees of freedom of each.
    rate : callable
        √s [GeV] -> Σ g_a g_b p_ab² σ_ab over ordered pairs (dimensionless).
    threshold : float
        Smallest √s at which a pair annihilates [GeV].
    x : NDArray
        Lightest mass over temperature.

    Notes
    -----
    ⟨σ_eff v⟩ = ½ ∫ ds Σ g_a g_b p_ab² σ_ab √s K₁(√s/T) / (T [Σ g_a m_a² K₂(m_a/T)]²), hep-ph/9704361.
    """
    m = float(masses[0])
    t = m / np.asarray(x, dtype=np.float64)[:, None]
    node, weight = np.polynomial.legendre.leggauss(200)
    u = 0.5 * (node + 1.0)
    energy = threshold + 45.0 * t * u**3  # K₁ has fallen by e⁻⁴⁵ at the end
    step = 45.0 * t * 3.0 * u**2 * 0.5 * weight
    # exponentially scaled Bessel functions; the common factor exp(-2m/T) cancels
    k1 = kve(1, energy / t) * np.exp(-(energy - 2.0 * m) / t)
    top = (rate(energy) * energy**2 * k1 * step).sum(axis=1)
    k2 = (numbers * masses**2 * kve(2, masses / t) * np.exp(-(masses - m) / t)).sum(axis=1)
    return np.asarray(top / (t[:, 0] * k2**2))


def relic_density(
    masses: FloatArray, numbers: FloatArray, average: Callable[[FloatArray], FloatArray]
) -> float:
    """Return Ω h² of species that freeze out together and end as the lightest.

    Parameters
    ----------
    masses, numbers : NDArray, shape (n,)
        Masses [GeV], the lightest first, and degrees of freedom.
    average : callable
        x = m/T -> ⟨σ_eff v⟩ [GeV⁻²].

    Raises
    ------
    PhysicsError
        If the equation cannot be solved.

    Notes
    -----
    dY/dx = −√(π/45) M_P m √g* x⁻² ⟨σ_eff v⟩ (Y² − Y_eq²), integrated for ln Y from x = 5 to 1000.
    """
    m = float(masses[0])
    x = np.geomspace(5.0, 1000.0, 300)
    h, root = degrees(np.maximum(m / x, 1.1e-4))
    ratio = masses / m
    weighted = (numbers * ratio**2 * kve(2, np.outer(x, ratio)) * np.exp(-np.outer(x, ratio - 1.0))).sum(
        axis=1
    )
    log_equilibrium = np.log(45.0 / (4.0 * np.pi**4) * x**2 * weighted / h) - x
    strength = np.sqrt(np.pi / 45.0) * PLANCK_MASS * m * root * average(x) / x**2
    log_strength = np.log(np.maximum(strength, 1e-300))

    def slope(log_x: float, y: FloatArray) -> FloatArray:
        at = np.exp(log_x)
        equilibrium = np.interp(at, x, log_equilibrium)
        k = np.exp(np.interp(log_x, np.log(x), log_strength)) * at
        up, down = np.minimum(2.0 * equilibrium - y, 200.0), np.minimum(y, 200.0)  # trial steps of the solver
        return np.asarray(k * (np.exp(up) - np.exp(down)))

    start = np.array([log_equilibrium[0]])
    solution = solve_ivp(slope, np.log(x[[0, -1]]), start, method="Radau", rtol=1e-6, atol=1e-8)
    if not solution.success:
        msg = f"relic density of {m:g} GeV: {solution.message}"
        raise PhysicsError(msg)
    return float(TODAY * m * np.exp(solution.y[0, -1]))
