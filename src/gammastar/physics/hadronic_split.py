"""R(m) up to the φ split into the parts that couple like ρ, ω and φ: vector-meson dominance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import ALPHA, M_PI0, M_PI_CHARGED, branching, mass, width
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.physics.line_shapes import RHO, rho_width

__all__ = ["SPLIT_MAX", "MesonName", "meson_parts", "meson_ratio"]

MesonName = Literal["rho", "omega", "phi"]
SPLIT_MAX = 1.03  # GeV; beyond, kaon pairs of the ρ and ω and excited mesons are no longer small
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)
_K_CHARGED, _K_NEUTRAL, _ETA = 321, 311, 221


@dataclass(frozen=True, slots=True)
class _Resonance:
    """PDG code, branching fraction to e⁺e⁻, and those to hadrons."""

    pdg: int
    electrons: float
    hadrons: tuple[tuple[str, float], ...]


def _resonance(name: MesonName, pdg: int, **hadrons: str) -> _Resonance:
    """Return a meson with the fractions of its decays in `core.constants.BRANCHING`."""
    listed = tuple((channel, branching(f"{name} -> {decay}")) for channel, decay in hadrons.items())
    return _Resonance(pdg, branching(f"{name} -> e e"), listed)


_MESONS: dict[MesonName, _Resonance] = {
    "rho": _Resonance(RHO, branching("rho -> e e"), (("two_pions", 1.0),)),
    "omega": _resonance("omega", 223, three_pions="pi pi pi0", pion_photon="pi0 gamma"),
    "phi": _resonance(
        "phi",
        333,
        charged_kaons="K+ K-",
        neutral_kaons="KL KS",
        three_pions="pi pi pi0",
        eta_photon="eta gamma",
    ),
}


def _three_pions(m: float) -> float:
    """Return Γ(V → πππ) of mass m up to a constant, through ρπ in the three charge states.

    Notes
    -----
    Γ ∝ m⁻³ ∫∫ ds₁₂ ds₂₃ (s₁₂ s₂₃ s₃₁ − m_π²(m² − m_π²)²) |Σ 1/D_ρ(sᵢⱼ)|² over the Dalitz plot, the square of
    the antisymmetric amplitude; pions of equal mass.
    """
    pion2, s = M_PI_CHARGED**2, m * m
    low, high = 4 * pion2, (m - M_PI_CHARGED) ** 2
    if high <= low:
        return 0.0
    s12 = (0.5 * (high - low) * (_NODES + 1) + low)[:, None]
    reach = np.sqrt(np.clip((s12 - 4 * pion2) * ((s - s12 - pion2) ** 2 - 4 * s12 * pion2) / s12, 0.0, None))
    s23 = 0.5 * (s + 3 * pion2 - s12) + 0.5 * reach * _NODES[None, :]
    s31 = s + 3 * pion2 - s12 - s23
    kibble = np.clip(s12 * s23 * s31 - pion2 * (s - pion2) ** 2, 0.0, None)
    pole2 = mass(RHO) ** 2
    amplitude = sum(1 / (pole2 - x - 1j * np.sqrt(x) * rho_width(np.sqrt(x))) for x in (s12, s23, s31))
    inner = (kibble * np.abs(amplitude) ** 2 * (0.5 * reach)) @ _WEIGHTS
    return float(0.5 * (high - low) * inner @ _WEIGHTS / m**3)


def _two_bodies(m: FloatArray, light: float) -> FloatArray:
    """Return the P-wave width to a pair of equal masses, up to a constant."""
    return np.asarray(np.clip(m**2 / 4 - light**2, 0.0, None) ** 1.5 / m**2, dtype=np.float64)


def _photon(m: FloatArray, light: float) -> FloatArray:
    """Return the width to a pseudoscalar and a photon, up to a constant."""
    return np.asarray((np.clip(m**2 - light**2, 0.0, None) / m) ** 3, dtype=np.float64)


@cache
def _three_pion_table() -> tuple[FloatArray, FloatArray]:
    masses = np.linspace(3 * M_PI_CHARGED, 1.3, 240)
    return masses, np.array([_three_pions(float(m)) for m in masses])


def _channel(name: str, m: FloatArray) -> FloatArray:
    if name == "three_pions":
        return np.asarray(np.interp(m, *_three_pion_table(), left=0.0), dtype=np.float64)
    if name in ("pion_photon", "eta_photon"):
        return _photon(m, M_PI0 if name == "pion_photon" else mass(_ETA))
    light = {
        "two_pions": M_PI_CHARGED,
        "charged_kaons": mass(_K_CHARGED),
        "neutral_kaons": mass(_K_NEUTRAL),
    }
    return _two_bodies(m, light[name])


def meson_ratio(name: MesonName, m: npt.ArrayLike) -> FloatArray:
    """Return R of one vector meson, σ(e⁺e⁻ → V → hadrons) over 4πα²/3s.

    Parameters
    ----------
    name : {"rho", "omega", "phi"}
    m : array_like, any shape [GeV]

    Notes
    -----
    R = (9 m²/α²) Γ_ee(m) Γ_h(m)/[(M² − m²)² + m²Γ_h(m)²] with Γ_ee(m) = Γ_ee (M/m)³, a photon of constant
    coupling, and Γ_h(m) the width of a meson of mass m: 2π, 3π through ρπ, KK, π⁰γ and ηγ. The peak
    is that of the Breit-Wigner formula, (9/α²) BR(ee) BR(h). Masses and branching fractions: PDG. The
    interference of ω and φ in three pions and that of ρ and ω in two are left out.

    Examples
    --------
    >>> [round(float(meson_ratio("omega", m)), 2) for m in (0.7, 0.9)]
    [0.01, 0.07]
    """
    x = np.asarray(m, dtype=np.float64)
    meson = _MESONS[name]
    pole = mass(meson.pdg)
    at_pole, gamma = np.array(pole), width(meson.pdg)
    listed = sum(fraction for _, fraction in meson.hadrons)
    partial = np.sum(
        [f * gamma * _channel(c, x) / _channel(c, at_pole) for c, f in meson.hadrons], axis=0
    )  # GeV
    total = partial / listed
    electrons = meson.electrons * gamma * (pole / x) ** 3
    propagator = (pole**2 - x**2) ** 2 + x**2 * total**2
    return np.asarray(9 * x**2 / ALPHA**2 * electrons * partial / propagator, dtype=np.float64)


def meson_parts(m: npt.ArrayLike, measured: npt.ArrayLike) -> dict[MesonName, FloatArray]:
    """Return measured R as a sum of what couples like ρ, ω and φ.

    Parameters
    ----------
    m : array_like, any shape [GeV]
        From 2 m_π to `SPLIT_MAX`.
    measured : array_like, shape of `m`
        R over a massless muon pair.

    Raises
    ------
    PhysicsError
        At masses outside this range.

    Notes
    -----
    ω and φ are `meson_ratio`; the rest, pion pairs above all and four pions through ωπ⁰, is isovector, zero
    where a coarse table falls below ω and φ. The idea of splitting R by meson: arXiv:1801.04847.
    """
    x = np.asarray(m, dtype=np.float64)
    bad = ~((x > 2 * M_PI_CHARGED) & (x <= SPLIT_MAX))
    if bad.any():
        msg = (
            f"R is split into ρ, ω and φ between {2 * M_PI_CHARGED:.4f} and {SPLIT_MAX} GeV; "
            f"{x[bad].flat[0]:g} GeV asked: choose lower masses, or a model with its own hadronic widths"
        )
        raise PhysicsError(msg)
    omega, phi = meson_ratio("omega", x), meson_ratio("phi", x)
    rest = np.clip(np.asarray(measured, dtype=np.float64) - omega - phi, 0.0, None)
    return {"rho": np.asarray(rest, dtype=np.float64), "omega": omega, "phi": phi}
