"""Dark bremsstrahlung e− Z → e− Z A' in a thick target: Weizsaecker-Williams with a tabulated correction.

Cross-sections of the Weizsaecker-Williams (WW) family differ from exact tree level by factors of up to 2.6,
depending on the largest x and t. Here x < 1 − m_e/E, t < M², divided by a correction K to exact tree level.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.special import gammainc

from gammastar.core.constants import ALPHA, GEV2_MB, M_E, M_PROTON
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray

__all__ = [
    "LEAD",
    "Correction",
    "Material",
    "energy_nodes",
    "form_factor",
    "total",
    "track_length",
    "ww_spectrum",
]

PB_PER_GEV2 = GEV2_MB * 1e9
SLOPE = 4.0 / 3.0  # b of the longitudinal straggling by bremsstrahlung
MU_PROTON = 2.79
NODES_T, NODES_ANGLE, NODES_X = 800, 48, 96


@dataclass(frozen=True, slots=True)
class Material:
    """A target: mass number, atomic number and radiation length [g/cm²]."""

    a: float
    z: float
    radiation_length: float


LEAD = Material(207.2, 82.0, 6.37)


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """K = σ(WW)/σ(exact tree level), linear in ln M and ln E, constant outside the table.

    Attributes
    ----------
    mass : NDArray, shape (n,) [GeV]
    energy : NDArray, shape (e,) [GeV]
    k : NDArray, shape (n, e)
    source : str
    """

    mass: FloatArray
    energy: FloatArray
    k: FloatArray
    source: str

    def __post_init__(self) -> None:
        shape = (len(self.mass), len(self.energy))
        if self.k.shape != shape or (np.diff(self.mass) <= 0).any() or (np.diff(self.energy) <= 0).any():
            msg = f"K of shape {self.k.shape} needs increasing masses and energies, {shape}"
            raise PhysicsError(msg)

    def at(self, mass: float, energy: npt.ArrayLike) -> FloatArray:
        """Return K at one mass and any energies."""
        row = np.array([np.interp(np.log(mass), np.log(self.mass), column) for column in self.k.T])
        return np.asarray(np.interp(np.log(energy), np.log(self.energy), row), dtype=np.float64)

    @classmethod
    def from_exact(
        cls,
        mass: FloatArray,
        energy: FloatArray,
        exact: FloatArray,
        source: str,
        material: Material | None = None,
    ) -> Correction:
        """Return K from exact tree-level cross-sections per ε² [pb], shape (n, e)."""
        target = LEAD if material is None else material
        ww = np.array([[total(float(m), float(e), material=target) for e in energy] for m in mass])
        return cls(mass, energy, ww / exact, source)


@cache
def _legendre(n: int) -> tuple[FloatArray, FloatArray]:
    node, weight = np.polynomial.legendre.leggauss(n)
    return np.asarray(node), np.asarray(weight)


def form_factor(t: npt.ArrayLike, material: Material) -> FloatArray:
    """Return G₂(t), elastic and inelastic, t in GeV².

    Notes
    -----
    G₂ = Z² (a²t/(1 + a²t))² (1 + t/d)⁻² + Z (a'²t/(1 + a'²t))² (1 + t(μ_p² − 1)/4m_p²)/(1 + t/0.71)⁴ with
    a = 111 Z^(−1/3)/m_e, a' = 773 Z^(−2/3)/m_e, d = 0.164 A^(−2/3). The factor with μ_p stands squared in
    older papers; for lead the difference stays below 1 %.
    """
    t = np.asarray(t, dtype=np.float64)
    z = material.z
    a2t = (111.0 * z ** (-1 / 3) / M_E) ** 2 * t
    b2t = (773.0 * z ** (-2 / 3) / M_E) ** 2 * t
    d = 0.164 * material.a ** (-2 / 3)
    elastic = (z * a2t / (1.0 + a2t) / (1.0 + t / d)) ** 2
    moment = 1.0 + t * (MU_PROTON**2 - 1.0) / (4.0 * M_PROTON**2)
    return np.asarray(elastic + z * (b2t / (1.0 + b2t)) ** 2 * moment / (1.0 + t / 0.71) ** 4)


def _flux(mass: float, energy: float, material: Material) -> tuple[FloatArray, FloatArray]:
    """Return ln t_min and ln χ(t_min) with t_max = M²."""
    lowest = 1e-3 * min(M_E**2, (mass**2 / (2.0 * energy)) ** 2)
    x = np.linspace(np.log(lowest), 2.0 * np.log(mass), NODES_T)
    t = np.exp(x)
    g = form_factor(t, material)

    def above(integrand: FloatArray) -> FloatArray:
        step = 0.5 * np.diff(x) * (integrand[1:] + integrand[:-1])
        return np.concatenate([np.cumsum(step[::-1])[::-1], [0.0]])

    chi = above(g) - t * above(g / t)
    return x[:-1], np.log(np.maximum(chi[:-1], 1e-300))


def ww_spectrum(x: npt.ArrayLike, mass: float, energy: float, material: Material = LEAD) -> FloatArray:
    """Return dσ/dx per ε² [pb], x = E_A'/E, integrated over the angle.

    Parameters
    ----------
    x : array_like, shape (n,)
        Zero outside M/E < x < 1 − m_e/E.
    mass, energy : float [GeV]
    material : Material

    Notes
    -----
    WW as in arXiv:2101.12192, App. A:
    dσ/dx dcos θ = 2ε²α³ |k| E (1−x) χ u⁻² {2(2−2x+x²)/(1−x) + 4(M²+2m²)[ux + M²(1−x) + m²x²]/u²},
    u = −xE²θ² − M²(1−x)/x − m²x, t_min = (u/2E(1−x))². Not divided by K.
    """
    x = np.atleast_1d(np.asarray(x, dtype=np.float64))
    inside = (x > mass / energy) & (x < 1.0 - M_E / energy)
    v = np.where(inside, x, 0.5)[:, None]
    floor = mass**2 * (1.0 - v) / v + M_E**2 * v
    node, weight = _legendre(NODES_ANGLE)
    top = np.log1p(v * energy**2 * (0.5 * np.pi) ** 2 / floor)  # ln of u over its value at θ = 0
    level = 0.5 * top * (node + 1.0)
    u = -floor * np.exp(level)
    t_min = (u / (2.0 * energy * (1.0 - v))) ** 2
    log_t, log_chi = _flux(mass, energy, material)
    chi = np.exp(np.interp(np.log(t_min), log_t, log_chi, left=log_chi[0], right=-700.0))
    bracket = (
        2.0 * (2.0 - 2.0 * v + v**2) / (1.0 - v)
        + 4.0 * (mass**2 + 2.0 * M_E**2) * (u * v + mass**2 * (1.0 - v) + M_E**2 * v**2) / u**2
    )
    momentum = np.sqrt(np.clip((v * energy) ** 2 - mass**2, 0.0, None))
    # dcos θ = θ dθ = du/(2 x E²) and du = |u| d(level)
    density = 2.0 * ALPHA**3 * momentum * energy * (1.0 - v) * chi / u**2 * bracket
    integral = (density * -u / (2.0 * v * energy**2) * 0.5 * top * weight).sum(axis=1)
    return np.asarray(np.where(inside, integral * PB_PER_GEV2, 0.0))


def total(
    mass: float,
    energy: float,
    *,
    material: Material = LEAD,
    above: float = 0.0,
    correction: Correction | None = None,
) -> float:
    """Return σ per ε² for E_A' > above [pb].

    Parameters
    ----------
    mass, energy, above : float [GeV]
    material : Material
    correction : Correction, optional
        Divide by K(M); without it plain WW.
    """
    x, weight = energy_nodes(mass, energy, above)
    if not x.size:
        return 0.0
    value = float((ww_spectrum(x, mass, energy, material) * weight).sum())
    return value / (1.0 if correction is None else float(correction.at(mass, energy)))


def energy_nodes(mass: float, energy: float, above: float) -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights in x from max(above, M)/E to 1 − m_e/E, even in ln(1 − x)."""
    low = max(above, mass * (1.0 + 1e-12)) / energy
    high = 1.0 - M_E / energy
    if low >= high:
        return np.empty(0), np.empty(0)
    node, weight = _legendre(NODES_X)
    first, last = np.log(1.0 - low), np.log(1.0 - high)
    y = first + 0.5 * (last - first) * (node + 1.0)
    return 1.0 - np.exp(y), 0.5 * (first - last) * weight * np.exp(y)


def track_length(energy: npt.ArrayLike, beam: float) -> FloatArray:
    """Return the path of the primary electron above an energy in a thick target [radiation lengths].

    Parameters
    ----------
    energy : array_like [GeV]
        Up to the beam energy.
    beam : float [GeV]

    Notes
    -----
    ∫ T dE over (E, E_beam) for T(E) = ∫ dt (1/E_beam) [ln(E_beam/E)]^(bt−1)/Γ(bt) in closed form,
    (1/b) ∫₀^∞ da P(a, ln E_beam/E) with b = 4/3 and P the regularised incomplete gamma function. T itself is
    singular at the beam energy: its integral is what should be tabulated. First generation only.

    Examples
    --------
    >>> round(float(track_length(50.0, 100.0)), 3)
    0.87
    """
    u = np.log(beam / np.asarray(energy, dtype=np.float64))
    node, weight = _legendre(200)
    a = np.tan(0.25 * np.pi * (node + 1.0)) ** 2  # maps (0, ∞); P falls faster than any power of a
    jacobian = 0.5 * np.pi * np.sqrt(a) * (1.0 + a)
    values = gammainc(a, np.asarray(u)[..., None])
    return np.asarray((values * jacobian * weight).sum(axis=-1) / SLOPE)
