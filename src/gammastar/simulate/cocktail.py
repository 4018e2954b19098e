"""The cocktail: mass spectra and rates of the meson decays to a virtual photon."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from gammastar.core import constants
from gammastar.core.constants import LEPTON_MASS, M_MU, M_PI0, M_PI_CHARGED
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.physics import form_factors
from gammastar.physics.kroll_wada import FormFactor2, pseudoscalar_dalitz, vector_dalitz
from gammastar.physics.line_shapes import RHO_MASS_MAX, breit_wigner, rho_mass_density
from gammastar.simulate.card import Card, Mode

__all__ = ["MASS_MAX", "mass_density", "mass_range", "mass_spectrum", "mode_rates", "sample_mass"]

MASS_MAX = 1.5  # GeV: upper end of the Breit-Wigner tails
SQRT_S = 27.43  # GeV: scale of the end of a continuum
GRID = 6001  # points of the tabulated mass spectra
FORM_FACTORS: Mapping[str, FormFactor2] = {
    "pointlike": form_factors.pointlike,
    "eta2": form_factors.eta2,
    "omega2": form_factors.omega2,
    "eta_prime2": form_factors.eta_prime2,
    "pi0_2": form_factors.pi0_2,
}


def mass_range(mode: Mode, pdg: int, lepton: float = M_MU) -> tuple[float, float]:
    """Return lowest and highest mass of the virtual photon [GeV]; `lepton` is the mass of the lepton."""
    if mode.continuum is not None:
        return mode.continuum.low, mode.continuum.high
    parent = constants.mass(pdg)
    if mode.kind == "pseudoscalar_dalitz":
        return 2.0 * lepton, parent
    if mode.kind == "vector_dalitz":
        return 2.0 * lepton, parent - M_PI0
    if mode.kind == "rho":
        return 2.0 * M_PI_CHARGED, RHO_MASS_MAX
    if mode.kind == "narrow":
        return parent, parent
    return 2.0 * lepton, MASS_MAX


def _raw_density(mode: Mode, pdg: int, mass: FloatArray, lepton: float) -> FloatArray:
    """Return dΓ/dm over the reference width for Dalitz decays, the line shape otherwise [GeV⁻¹]."""
    if mode.continuum is not None:
        return mass**-mode.continuum.power * (1.0 - mass / SQRT_S) ** mode.continuum.end
    parent = constants.mass(pdg)
    if mode.kind == "pseudoscalar_dalitz":
        return 2.0 * mass * pseudoscalar_dalitz(mass**2, parent, lepton, FORM_FACTORS[mode.form_factor])
    if mode.kind == "vector_dalitz":
        return 2.0 * mass * vector_dalitz(mass**2, parent, M_PI0, lepton, FORM_FACTORS[mode.form_factor])
    if mode.kind == "rho":
        return rho_mass_density(mass, float(mode.temperature or 0.0), m_lepton=lepton)
    return breit_wigner(mass, parent, constants.width(pdg))


def _breit_wigner_limits(mode: Mode, pdg: int, lepton: float) -> tuple[float, float, float]:
    """Return MΓ and the angles atan((m² − M²)/MΓ) at both ends of the range."""
    pole, (low, high) = constants.mass(pdg), mass_range(mode, pdg, lepton)
    scale = pole * constants.width(pdg)
    return scale, float(np.arctan((low**2 - pole**2) / scale)), float(np.arctan((high**2 - pole**2) / scale))


@lru_cache(maxsize=256)
def _table(mode: Mode, pdg: int, lepton: float) -> tuple[FloatArray, FloatArray, float]:
    """Return mass grid, cumulative distribution and integral of the spectrum of a mode."""
    low, high = mass_range(mode, pdg, lepton)
    # denser towards threshold, where the lepton factor rises as a square root, and 1/m for electrons
    power = 1.5 if lepton > 0.01 else 4.0
    grid = low + (high - low) * np.linspace(0.0, 1.0, GRID) ** power
    density = _raw_density(mode, pdg, grid, lepton)
    steps = 0.5 * (density[1:] + density[:-1]) * np.diff(grid)
    total = float(np.sum(steps))
    return grid, np.concatenate([[0.0], np.cumsum(steps)]) / total, total


def mass_density(mode: Mode, pdg: int, mass: npt.ArrayLike, lepton: float = M_MU) -> FloatArray:
    """Return the mass spectrum of one mode, normalised to one [GeV⁻¹].

    Raises
    ------
    PhysicsError
        For a mode of kind "narrow", which has no density.
    """
    if mode.kind == "narrow":
        msg = f"mass_density: the mode of {mode.meson!r} is a line without width; it has no density"
        raise PhysicsError(msg)
    m = np.asarray(mass, dtype=np.float64)
    low, high = mass_range(mode, pdg, lepton)
    inside = (m > low) & (m < high)
    safe = np.where(inside, m, 0.5 * (low + high))
    if mode.kind == "breit_wigner":
        _, first, last = _breit_wigner_limits(mode, pdg, lepton)
        norm = (last - first) / np.pi
    else:
        norm = _table(mode, pdg, lepton)[2]
    return np.where(inside, _raw_density(mode, pdg, safe, lepton) / norm, 0.0)


def sample_mass(mode: Mode, pdg: int, n: int, rng: np.random.Generator, lepton: float = M_MU) -> FloatArray:
    """Draw masses of the virtual photon by inversion, shape (n,) [GeV]."""
    if mode.kind == "narrow":
        return np.full(n, constants.mass(pdg))
    u = rng.random(n)
    if mode.kind == "breit_wigner":
        scale, first, last = _breit_wigner_limits(mode, pdg, lepton)
        square = constants.mass(pdg) ** 2 + scale * np.tan(first + u * (last - first))
        low, high = mass_range(mode, pdg, lepton)
        return np.asarray(np.sqrt(np.clip(square, low**2, high**2)), dtype=np.float64)
    grid, cumulative, _ = _table(mode, pdg, lepton)
    return np.interp(u, cumulative, grid)


def mode_rates(card: Card) -> dict[str, float]:
    """Return dimuons per inelastic interaction of every enabled mode, in full phase space.

    Notes
    -----
    multiplicity × A-factor × branching fraction (Allison and Blinov, Eq. 9, without efficiency). With
    ``normalisation = "form_factor"`` the branching fraction is that to real photons times the integral of
    the Dalitz spectrum.
    """
    rates = {}
    for key, mode in card.modes.items():
        if not mode.enabled:
            continue
        meson = card.mesons[mode.meson]
        branching = mode.branching
        if mode.normalisation == "form_factor":
            branching = (
                float(mode.branching_photon or 0.0) * _table(mode, meson.pdg, LEPTON_MASS[card.lepton])[2]
            )
        rates[key] = meson.multiplicity * meson.a_factor * branching
    return rates


def mass_spectrum(card: Card, mass: npt.ArrayLike) -> FloatArray:
    """Return dN(γ* → ll)/dm of the cocktail per proton on target, in full phase space [GeV⁻¹].

    Lines without width (kind "narrow") are left out.

    Parameters
    ----------
    card : Card
    mass : array_like
        [GeV]

    Notes
    -----
    The exact spectrum that `generate_pairs` samples: the oracle for closure tests.
    """
    m = np.asarray(mass, dtype=np.float64)
    total = np.zeros_like(m)
    for key, rate in mode_rates(card).items():
        mode = card.modes[key]
        if mode.kind != "narrow":
            pdg = card.mesons[mode.meson].pdg
            total += rate * mass_density(mode, pdg, m, LEPTON_MASS[card.lepton])
    return total * card.target.interactions
