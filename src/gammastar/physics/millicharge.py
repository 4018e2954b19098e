"""Millicharged particles χ from virtual photons: Eq. 8, meson decays, and the bridge from dark photons.

Everything counts pairs χχ̄ and is per Q²; a detector that sees single particles sees two per pair.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import M_E
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.physics.qed import FormFactor2, kappa, lepton_factor, pseudoscalar_dalitz

__all__ = [
    "bin_factors",
    "from_dark_photons",
    "pair_factor",
    "pseudoscalar_branching",
    "vector_branching",
]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def pair_factor(mass: npt.ArrayLike, m_chi: float, m_lepton: float) -> FloatArray:
    """Return pairs χχ̄ over pairs l⁺l⁻ of the same virtual photon, per Q².

    Parameters
    ----------
    mass : array_like
        Of the virtual photon [GeV]; above 2 m_lepton.
    m_chi, m_lepton : float
        [GeV]

    Returns
    -------
    NDArray
        Zero at and below 2 m_chi; exactly one where m_chi = m_lepton.

    Raises
    ------
    PhysicsError
        If a mass lies at or below 2 m_lepton: lepton pairs say nothing there.

    Notes
    -----
    Allison and Blinov (2025), Eq. 8.
    """
    m = np.asarray(mass, dtype=np.float64)
    if not bool(np.all(m > 2 * m_lepton)):
        msg = (
            f"pair_factor: mass {float(np.min(m)):.6g} GeV is not above the threshold {2 * m_lepton:.6g} GeV "
            "of the measured leptons; add a theory channel for lighter virtual photons"
        )
        raise PhysicsError(msg)
    return lepton_factor(m**2, m_chi) / lepton_factor(m**2, m_lepton)


def bin_factors(edges: npt.ArrayLike, m_chi: npt.ArrayLike, m_lepton: float) -> FloatArray:
    """Return the mean of `pair_factor` over each bin of a measured mass spectrum.

    Parameters
    ----------
    edges : array_like, shape (n + 1,) [GeV]
    m_chi : array_like, shape (k,) [GeV]
    m_lepton : float [GeV]

    Returns
    -------
    NDArray, shape (k, n)
        Times the lepton pairs of the bins, summed: pairs χχ̄ per Q².

    Notes
    -----
    The lepton spectrum counts as flat in a bin, above 2 m_lepton. The part of a bin below 2 m_chi counts
    zero, so that a threshold inside a bin is no step.
    """
    edges = np.asarray(edges, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        msg = f"bin_factors: edges of shape {edges.shape} must increase"
        raise PhysicsError(msg)
    chi = np.atleast_1d(np.asarray(m_chi, dtype=np.float64))[:, None, None]
    low, high = np.maximum(edges[:-1], 2 * m_lepton), edges[1:]
    width = np.clip(high - low, 0.0, None)
    start = np.clip(np.maximum(low[None, :], 2 * chi[:, :, 0]), None, high)
    # Nodes quadratic in the distance from the lower end: the threshold is a square root.
    u = 0.5 * (_NODES + 1)
    m = start[..., None] + (high - start)[..., None] * u**2
    safe = np.maximum(m, 2 * m_lepton * (1 + 1e-12) + 1e-300)
    ratio_chi = np.square(chi / safe)
    ratio_l = np.square(m_lepton / safe)
    above = 1 - 4 * ratio_chi
    root = np.sqrt(np.clip(above, 0.0, None) / np.clip(1 - 4 * ratio_l, 1e-300, None))
    factor = np.where(above > 0, root * (1 + 2 * ratio_chi) / (1 + 2 * ratio_l), 0.0)
    factor = np.where(chi == m_lepton, 1.0, factor)
    mean = (factor * 2 * u) @ (0.5 * _WEIGHTS)
    share = np.divide(high - start, width, out=np.zeros_like(start), where=width > 0)
    return np.asarray(mean * share, dtype=np.float64)


def from_dark_photons(
    rate: Callable[[FloatArray], FloatArray],
    m_chi: npt.ArrayLike,
    mass_max: float,
    *,
    mass_min: float = 0.0,
    panels: int = 100,
) -> FloatArray:
    """Return pairs χχ̄ per Q² from any production of dark photons.

    Parameters
    ----------
    rate : callable
        Masses (n,) [GeV] -> dark photons per ε².
    m_chi : array_like, shape (k,) [GeV]
    mass_max, mass_min : float
        Range of virtual-photon masses in which the rate holds [GeV].
    panels : int
        Of the integral in ln m, of eight Gauss points each; 100 resolve the ω, the J/ψ needs its pole.

    Returns
    -------
    NDArray, shape (k,)

    Notes
    -----
    Eqs. 6 and 8 of Allison and Blinov (2025) together: dN_χχ/dm² = Q² (κ_χ(m)/m²) N_A'(m)/ε². It holds for
    each channel that emits a single virtual photon, bremsstrahlung included.
    """
    chi = np.atleast_1d(np.asarray(m_chi, dtype=np.float64))
    if not (chi > 0).all() or not mass_max > 0:
        msg = f"from_dark_photons: masses {chi.min():g} and {mass_max:g} GeV must be positive"
        raise PhysicsError(msg)
    x, weights = np.polynomial.legendre.leggauss(8)
    u = ((np.arange(panels)[:, None] + 0.5 * (x + 1)) / panels).ravel()
    w = np.tile(0.5 * weights / panels, panels)
    result = np.zeros(len(chi))
    for i, m in enumerate(chi):  # one curve of a few hundred nodes per m_chi
        low = max(2 * m, mass_min)
        if low >= mass_max:
            continue
        span = np.log(mass_max / low)
        masses = low * np.exp(span * u**2)
        integrand = 2 * kappa(masses, float(m)) * rate(masses)  # dm²/m² = 2 d ln m
        result[i] = float(np.sum(w * 2 * u * span * integrand))
    return result


def pseudoscalar_branching(
    m_chi: float, parent_mass: float, branching_gg: float, form_factor2: FormFactor2
) -> float:
    """Return BR(P → γχχ̄)/Q².

    Parameters
    ----------
    m_chi, parent_mass : float
        [GeV]
    branching_gg : float
        BR(P → γγ).
    form_factor2 : callable
        |F(q²)|².

    Notes
    -----
    The Kroll-Wada spectrum with m_l → m_χ; "I⁽³⁾" of arXiv:1806.03310 and 1812.03998, which count particles
    where this counts pairs.
    """
    low, high = 4 * m_chi**2, parent_mass**2
    if low >= high:
        return 0.0
    x, w = np.polynomial.legendre.leggauss(400)
    u = 0.5 * (x + 1)
    span = np.log(high / low)
    q2 = low * np.exp(span * u**2)  # dense at threshold
    density = pseudoscalar_dalitz(q2, parent_mass, m_chi, form_factor2)
    return branching_gg * float(np.sum(0.5 * w * 2 * u * span * q2 * density))


def vector_branching(m_chi: npt.ArrayLike, parent_mass: float, branching_ee: float) -> FloatArray:
    """Return BR(V → χχ̄)/Q² = BR(V → ee) (1 + 2r) √(1 − 4r), r = m_χ²/M², over the same for electrons.

    Notes
    -----
    arXiv:1812.03998.

    Examples
    --------
    >>> vector_branching([1.0], 3.0969, 0.05971).round(5)
    array([0.0551])
    """
    r = np.square(np.asarray(m_chi, dtype=np.float64) / parent_mass)
    open_ = np.sqrt(np.clip(1 - 4 * r, 0.0, None)) * (1 + 2 * r)
    electrons = lepton_factor(parent_mass**2, M_E)
    return np.asarray(branching_ee * open_ / electrons, dtype=np.float64)
