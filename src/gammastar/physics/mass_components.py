"""What a low-mass dilepton spectrum is made of: Dalitz decays, ρ, ω and φ, and what is smooth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import comb
from typing import Any

import numpy as np

from gammastar.core.constants import M_MU, M_PI0, mass, width
from gammastar.core.records import FloatArray
from gammastar.physics.form_factors import eta2, eta_prime2, omega2, pi0_2
from gammastar.physics.kroll_wada import lepton_factor, pseudoscalar_dalitz, vector_dalitz
from gammastar.physics.line_shapes import RHO_TEMPERATURE, breit_wigner, rho_mass_density

__all__ = ["Component", "cocktail_components"]

PI0, ETA, ETA_PRIME, OMEGA, PHI = 111, 221, 331, 223, 333
POINTS = 401  # per cell of an integral: a 10 MeV cell resolves the 4 MeV of the φ by a hundred points


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
