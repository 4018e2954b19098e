"""Virtual photons to lepton pairs: the Kroll-Wada spectrum, their dark photons, radiation of the leptons."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import ALPHA
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray

__all__ = ["dark_photon_rate", "kappa", "lepton_factor", "pseudoscalar_dalitz", "radiated", "vector_dalitz"]

FormFactor2: TypeAlias = Callable[[FloatArray], FloatArray]


def lepton_factor(q2: npt.ArrayLike, m_lepton: float) -> FloatArray:
    """Return (1 + 2 m²/q²) √(1 − 4 m²/q²), the threshold factor of γ* → l⁺l⁻.

    Parameters
    ----------
    q2 : array_like
        Squared mass of the virtual photon [GeV²].
    m_lepton : float
        [GeV]

    Returns
    -------
    NDArray
        Shape of `q2`; exactly 0 at and below threshold.

    Notes
    -----
    N. M. Kroll and W. Wada, Phys. Rev. 98 (1955) 1355.
    """
    q2 = np.asarray(q2, dtype=np.float64)
    above = q2 > 4.0 * m_lepton**2
    ratio = np.divide(m_lepton**2, q2, out=np.zeros_like(q2), where=above)
    return np.where(above, (1.0 + 2.0 * ratio) * np.sqrt(np.clip(1.0 - 4.0 * ratio, 0.0, None)), 0.0)


def kappa(mass: npt.ArrayLike, m_lepton: float) -> FloatArray:
    """Return κ(m) = (α/3π) (1 + 2 mₗ²/m²) √(1 − 4 mₗ²/m²).

    A virtual photon of mass m gives lepton pairs with dN/dm² = κ(m)/m² times the rate of an on-shell
    vector of that mass and unit mixing.

    Parameters
    ----------
    mass : array_like
        [GeV]
    m_lepton : float
        [GeV]

    Notes
    -----
    Allison and Blinov (2025), denominator of Eq. 6.

    Examples
    --------
    >>> from gammastar.core.constants import M_MU
    >>> round(float(1 / kappa(0.5, M_MU)), 2)
    1308.22
    """
    return ALPHA / (3.0 * np.pi) * lepton_factor(np.square(mass), m_lepton)


def pseudoscalar_dalitz(
    q2: npt.ArrayLike, parent_mass: float, m_lepton: float, form_factor2: FormFactor2
) -> FloatArray:
    """Return dΓ(P → γ l⁺l⁻)/dq² divided by Γ(P → γγ) [GeV⁻²].

    Parameters
    ----------
    q2 : array_like
        [GeV²]
    parent_mass, m_lepton : float
        [GeV]
    form_factor2 : callable
        |F(q²)|², normalised to 1 at q² = 0 (see `gammastar.physics.form_factors`).

    Returns
    -------
    NDArray
        Shape of `q2`; 0 outside 4 mₗ² < q² < M².

    Notes
    -----
    (2α/3π)(1/q²)(1 − q²/M²)³ times the lepton factor; L. G. Landsberg, Phys. Rept. 128 (1985) 301, Eq. 2.8.
    """
    q2 = np.asarray(q2, dtype=np.float64)
    inside = (q2 > 4.0 * m_lepton**2) & (q2 < parent_mass**2)
    safe = np.where(inside, q2, 0.5 * (4.0 * m_lepton**2 + parent_mass**2))
    rate = (2.0 * ALPHA / (3.0 * np.pi)) / safe * (1.0 - safe / parent_mass**2) ** 3
    return np.where(inside, rate * lepton_factor(safe, m_lepton) * form_factor2(safe), 0.0)


def vector_dalitz(
    q2: npt.ArrayLike,
    parent_mass: float,
    daughter_mass: float,
    m_lepton: float,
    form_factor2: FormFactor2,
) -> FloatArray:
    """Return dΓ(V → P l⁺l⁻)/dq² divided by Γ(V → P γ) [GeV⁻²].

    Parameters
    ----------
    q2 : array_like
        [GeV²]
    parent_mass, daughter_mass, m_lepton : float
        [GeV]
    form_factor2 : callable
        |F(q²)|², normalised to 1 at q² = 0.

    Returns
    -------
    NDArray
        Shape of `q2`; 0 outside 4 mₗ² < q² < (M − m_P)².

    Notes
    -----
    L. G. Landsberg, Phys. Rept. 128 (1985) 301, Eq. 2.9; used for ω → π⁰ μ⁺μ⁻.
    """
    q2 = np.asarray(q2, dtype=np.float64)
    inside = (q2 > 4.0 * m_lepton**2) & (q2 < (parent_mass - daughter_mass) ** 2)
    safe = np.where(inside, q2, 0.5 * (4.0 * m_lepton**2 + (parent_mass - daughter_mass) ** 2))
    gap = parent_mass**2 - daughter_mass**2
    phase_space = (1.0 + safe / gap) ** 2 - 4.0 * parent_mass**2 * safe / gap**2
    rate = ALPHA / (3.0 * np.pi) / safe * np.clip(phase_space, 0.0, None) ** 1.5
    return np.where(inside, rate * lepton_factor(safe, m_lepton) * form_factor2(safe), 0.0)


def dark_photon_rate(dn_dm: npt.ArrayLike, mass: npt.ArrayLike, m_lepton: float) -> FloatArray:
    """Turn a lepton-pair mass spectrum into the rate of dark photons of that mass, per ε².

    Parameters
    ----------
    dn_dm : array_like
        dN(γ* → l⁺l⁻)/dm [per GeV and per whatever the rate is wanted for, e.g. proton on target].
    mass : array_like
        [GeV]; broadcast with `dn_dm`.
    m_lepton : float
        [GeV]

    Raises
    ------
    PhysicsError
        If a mass lies at or below the two-lepton threshold: lepton pairs say nothing there.

    Notes
    -----
    Allison and Blinov (2025), Eq. 6, with dN/dm² = (dN/dm)/2m: N_A'/ε² = (m/2)(dN/dm)/κ(m).
    """
    mass = np.asarray(mass, dtype=np.float64)
    if not bool(np.all(mass > 2.0 * m_lepton)):
        msg = (
            f"dark_photon_rate: mass {float(np.min(mass)):.6g} GeV is not above the threshold "
            f"{2.0 * m_lepton:.6g} GeV; remove these masses from the scan"
        )
        raise PhysicsError(msg)
    return 0.5 * mass * np.asarray(dn_dm, dtype=np.float64) / kappa(mass, m_lepton)


def radiated(mass: FloatArray, lepton: float, rng: np.random.Generator) -> FloatArray:
    """Draw the fraction of its momentum that each lepton keeps after final-state radiation, shape (2, n).

    Parameters
    ----------
    mass : NDArray, shape (n,)
        Of the virtual photon [GeV].
    lepton : float
        Mass of the lepton [GeV].
    rng : numpy.random.Generator

    Notes
    -----
    Leading logarithms, all orders in soft photons: D(z) = (β/2)(1 − z)^{β/2 − 1}(1 + z²)/2, normalised, with
    β = (2α/π)[ln(m²/m_l²) − 1] (E. A. Kuraev and V. S. Fadin, Sov. J. Nucl. Phys. 41 (1985) 466). Photons
    go along the lepton; a photon added to its lepton gives the lepton before radiation.
    """
    beta = 2.0 * ALPHA / np.pi * np.maximum(2.0 * np.log(mass / lepton) - 1.0, 0.0)
    beta = np.broadcast_to(np.maximum(beta, 1e-12), (2, len(mass)))
    kept = np.ones((2, len(mass)))
    open_ = np.ones((2, len(mass)), dtype=np.bool_)
    while open_.any():
        count = int(open_.sum())
        z = 1.0 - rng.random(count) ** (2.0 / beta[open_])
        good = rng.random(count) < 0.5 * (1.0 + z**2)
        where = np.flatnonzero(open_)
        kept.flat[where[good]] = z[good]
        open_.flat[where[good]] = False
    return kept
