"""Dark bremsstrahlung at exact tree level, K = σ(WW)/σ(exact), and the scale of NA64's limit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import ALPHA, M_E
from gammastar.core.records import FloatArray
from gammastar.semivisible.na64 import NA64, production
from gammastar.semivisible.production import (
    LEAD,
    PB_PER_GEV2,
    Correction,
    Material,
    energy_nodes,
    form_factor,
    legendre,
    ww_spectrum,
)

ANGLE, TRANSFER, AZIMUTH = 40, 64, 16  # nodes of exact tree level
LARGEST_T = 30.0  # GeV²; form factors leave nothing above
EVENTS_90 = 2.302585092994046  # excluded at 90 % CL when none is seen and none is expected


def squared_matrix_element(
    s: npt.ArrayLike, u: npt.ArrayLike, t: npt.ArrayLike, energies: tuple[float, float], mass: float
) -> FloatArray:
    """Return ½ Σ |M|² of e⁻ → e⁻ A' in a static field, without couplings and field.

    −½ Tr[(p̸' + m) Γ^μ (p̸ + m) Γ̄_μ] with Γ^μ = γ^μ (p̸' + k̸ + m) γ⁰/s + γ⁰ (p̸ − k̸ + m) γ^μ/u is
    2(s² + u²)/su + (4t/su)[2(E² + E'²) − s − u + t + 2M²] − 2(M² + 2m²)[t (1/s + 1/u)² + 4 (E/s + E'/u)²].
    """
    s, u, t = (np.asarray(x, dtype=np.float64) for x in (s, u, t))
    before, after = energies
    m2 = mass**2
    product = s * u
    first = 2.0 * (s**2 + u**2) / product
    second = 4.0 * t / product * (2.0 * (before**2 + after**2) - s - u + t + 2.0 * m2)
    mixed = (before * u + after * s) / product
    third = 2.0 * (m2 + 2.0 * M_E**2) * (t * ((s + u) / product) ** 2 + 4.0 * mixed**2)
    return np.asarray(first + second - third)


def exact_spectrum(
    x: npt.ArrayLike,
    mass: float,
    energy: float,
    material: Material = LEAD,
    *,
    nodes: tuple[int, int, int] = (ANGLE, TRANSFER, AZIMUTH),
) -> FloatArray:
    """Return dσ/dx per ε² [pb], x = E_A'/E, at exact tree level.

    dσ = ε² (4πα)³ ½Σ|M|² G₂(t)/t² · |k|/(8 (2π)⁵ W) · π dx dcos θ d|t| dφ, W = |p − k|, without recoil of
    the nucleus; G₂ with its inelastic part as in the Weizsaecker-Williams spectrum.
    """
    return np.array([_at(float(v), mass, energy, material, nodes) for v in np.atleast_1d(x)])


def _at(x: float, mass: float, energy: float, material: Material, nodes: tuple[int, int, int]) -> float:
    """Return dσ/dx at one x."""
    if not mass / energy < x < 1.0 - M_E / energy:
        return 0.0
    dark, after = x * energy, (1.0 - x) * energy
    p, k = np.sqrt(energy**2 - M_E**2), np.sqrt(dark**2 - mass**2)
    p_after = np.sqrt(after**2 - M_E**2)
    # −u = floor + 2pk(1 − cos θ), without the cancellation of Eω − pk
    floor = 2.0 * (energy**2 * mass**2 + M_E**2 * k**2) / (energy * dark + p * k) - mass**2
    node, weight = legendre(nodes[0])
    top = np.log1p(4.0 * p * k / floor)
    minus_u = floor * np.exp(0.5 * top * (node + 1.0))
    angle = 0.5 * top * weight * minus_u / (2.0 * p * k)  # dcos θ
    away = (minus_u - floor) / (2.0 * p * k)  # 1 − cos θ
    w = np.sqrt(p_after**2 + minus_u)
    node, weight = legendre(nodes[1])
    low = 2.0 * np.log(minus_u / (w + p_after))[:, None]
    high = np.log(np.minimum((w + p_after) ** 2, LARGEST_T))[:, None]
    size = np.exp(low + 0.5 * (high - low) * (node + 1.0))  # |t|
    transfer = 0.5 * np.clip(high - low, 0.0, None) * weight * size
    along = -(minus_u[:, None] + size) / (2.0 * w[:, None])
    across = np.sqrt(np.clip(size - along**2, 0.0, None))
    cosine = ((p - k * (1.0 - away)) / w)[:, None]
    sine = (k * np.sqrt(away * (2.0 - away)) / w)[:, None]
    total = np.zeros_like(size)
    for phi in np.pi * (np.arange(nodes[2]) + 0.5) / nodes[2]:
        s = -size - 2.0 * p * (along * cosine + across * sine * np.cos(phi))
        total += squared_matrix_element(s, -minus_u[:, None], -size, (energy, after), mass)
    total *= 2.0 * np.pi / nodes[2] * form_factor(size, material) / size**2 * transfer
    front = (4.0 * np.pi * ALPHA) ** 3 * k / (8.0 * (2.0 * np.pi) ** 5) * np.pi * PB_PER_GEV2
    return float(front * (total.sum(axis=1) * angle / w).sum())


def exact_cross_section(
    mass: float,
    energy: float,
    material: Material = LEAD,
    *,
    above: float = 0.0,
    nodes: tuple[int, int, int] = (ANGLE, TRANSFER, AZIMUTH),
) -> float:
    """Return σ per ε² for E_A' > above at exact tree level [pb]."""
    x, weight = energy_nodes(mass, energy, above)
    if not x.size:
        return 0.0
    return float((exact_spectrum(x, mass, energy, material, nodes=nodes) * weight).sum())


def ww_cross_section(
    mass: float,
    energy: float,
    *,
    material: Material = LEAD,
    above: float = 0.0,
    correction: Correction | None = None,
) -> float:
    """Return σ per ε² for E_A' > above [pb]."""
    x, weight = energy_nodes(mass, energy, above)
    if not x.size:
        return 0.0
    value = float((ww_spectrum(x, mass, energy, material) * weight).sum())
    return value / (1.0 if correction is None else float(correction.at(mass, energy)))


def annihilation_masses(card: NA64) -> tuple[float, float]:
    """Return the masses [GeV] that positrons of the shower make on resonance, e+e− → A'.

    E+ = M²/2m_e between the missing energy asked for and the beam energy. The resonance is not modelled: no
    agreement with dark bremsstrahlung is claimed there.
    """
    low, high = (float(np.sqrt(2.0 * M_E * e)) for e in (card.missing_energy, card.beam))
    return low, high


def invisible_limit(
    mass: float, card: NA64, *, efficiency: float = 1.0, k: Correction | None = None
) -> float:
    """Return the 90 % CL limit on ε of an invisible dark photon, without background."""
    signal = card.eot * efficiency * production(mass, card, k).per_electron
    return float(np.sqrt(EVENTS_90 / signal))


def implied_efficiency(mass: float, published: float, card: NA64, *, k: Correction | None = None) -> float:
    """Return the efficiency that a published limit on ε means for this production: a check of scale."""
    return float((invisible_limit(mass, card, k=k) / published) ** 2)
