"""Production of dark photons: e+e− → γ A' and ψψ, dark bremsstrahlung of electrons in a thick target.

Cross-sections of the Weizsaecker-Williams (WW) family differ from exact tree level by factors of up to 2.6,
depending on the largest x and t. Here x < 1 − m_e/E, t < M², divided by K = σ(WW)/σ(exact), shipped by beam
energy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.special import gammainc

from gammastar.core.constants import ALPHA, GEV2_MB, M_E, M_PROTON
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Rng
from gammastar.semivisible.models import DarkSector, mediator_widths

PB_PER_GEV2 = GEV2_MB * 1e9
SLOPE = 4.0 / 3.0  # b of the longitudinal straggling by bremsstrahlung
MU_PROTON = 2.79
NODES_T, NODES_ANGLE, NODES_X = 800, 48, 96
AVOGADRO = 6.02214076e23
PB_CM2 = 1e-36
ELECTRONS = 96
FB_PER_GEV2 = GEV2_MB * 1e12
COSINES = 2048


@dataclass(frozen=True, slots=True)
class Material:
    """A target: mass number, atomic number and radiation length [g/cm²]."""

    a: float
    z: float
    radiation_length: float


LEAD = Material(207.2, 82.0, 6.37)


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """K = σ(WW)/σ(exact tree level), linear in ln M and ln E, constant outside the table."""

    mass: FloatArray  # shape (n,) [GeV]
    energy: FloatArray  # shape (e,) [GeV]
    k: FloatArray  # shape (n, e)
    source: str

    def __post_init__(self) -> None:
        shape = (len(self.mass), len(self.energy))
        if self.k.shape != shape or (np.diff(self.mass) <= 0).any() or (np.diff(self.energy) <= 0).any():
            raise PhysicsError(f"K of shape {self.k.shape} needs increasing masses and energies, {shape}")

    def at(self, mass: float, energy: npt.ArrayLike) -> FloatArray:
        """Return K at one mass and any energies."""
        row = np.array([np.interp(np.log(mass), np.log(self.mass), column) for column in self.k.T])
        return np.asarray(np.interp(np.log(energy), np.log(self.energy), row), dtype=np.float64)


@cache
def legendre(n: int) -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights of Gauss and Legendre on (−1, 1)."""
    node, weight = np.polynomial.legendre.leggauss(n)
    return np.asarray(node), np.asarray(weight)


def form_factor(t: npt.ArrayLike, material: Material) -> FloatArray:
    """Return G₂(t), elastic and inelastic, t in GeV².

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

    WW as in arXiv:2101.12192, App. A:
    dσ/dx dcos θ = 2ε²α³ |k| E (1−x) χ u⁻² {2(2−2x+x²)/(1−x) + 4(M²+2m²)[ux + M²(1−x) + m²x²]/u²},
    u = −xE²θ² − M²(1−x)/x − m²x, t_min = (u/2E(1−x))². Not divided by K.
    """
    x = np.atleast_1d(np.asarray(x, dtype=np.float64))
    inside = (x > mass / energy) & (x < 1.0 - M_E / energy)
    v = np.where(inside, x, 0.5)[:, None]
    floor = mass**2 * (1.0 - v) / v + M_E**2 * v
    node, weight = legendre(NODES_ANGLE)
    top = np.log1p(v * energy**2 * (0.5 * np.pi) ** 2 / floor)  # ln of u over its value at θ = 0
    level = 0.5 * top * (node + 1.0)
    u = -floor * np.exp(level)
    t_min = (u / (2.0 * energy * (1.0 - v))) ** 2
    log_t, log_chi = _flux(mass, energy, material)
    chi = np.exp(np.interp(np.log(t_min), log_t, log_chi, left=log_chi[0], right=-700.0))
    angles = (u * v + mass**2 * (1.0 - v) + M_E**2 * v**2) / u**2
    bracket = 2.0 * (2.0 - 2.0 * v + v**2) / (1.0 - v) + 4.0 * (mass**2 + 2.0 * M_E**2) * angles
    momentum = np.sqrt(np.clip((v * energy) ** 2 - mass**2, 0.0, None))
    # dcos θ = θ dθ = du/(2 x E²) and du = |u| d(level)
    density = 2.0 * ALPHA**3 * momentum * energy * (1.0 - v) * chi / u**2 * bracket
    integral = (density * -u / (2.0 * v * energy**2) * 0.5 * top * weight).sum(axis=1)
    return np.asarray(np.where(inside, integral * PB_PER_GEV2, 0.0))


def energy_nodes(mass: float, energy: float, above: float) -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights in x from max(above, M)/E to 1 − m_e/E, even in ln(1 − x)."""
    low = max(above, mass * (1.0 + 1e-12)) / energy
    high = 1.0 - M_E / energy
    if low >= high:
        return np.empty(0), np.empty(0)
    node, weight = legendre(NODES_X)
    first, last = np.log(1.0 - low), np.log(1.0 - high)
    y = first + 0.5 * (last - first) * (node + 1.0)
    return 1.0 - np.exp(y), 0.5 * (first - last) * weight * np.exp(y)


def track_length(energy: npt.ArrayLike, beam: float) -> FloatArray:
    """Return the path of the primary electron above an energy in a thick target [radiation lengths].

    ∫ T dE over (E, E_beam) for T(E) = ∫ dt (1/E_beam) [ln(E_beam/E)]^(bt−1)/Γ(bt) in closed form,
    (1/b) ∫₀^∞ da P(a, ln E_beam/E) with b = 4/3 and P the regularised incomplete gamma function. T itself is
    singular at the beam energy: its integral is what should be tabulated. First generation only.
    """
    u = np.log(beam / np.asarray(energy, dtype=np.float64))
    node, weight = legendre(200)
    a = np.tan(0.25 * np.pi * (node + 1.0)) ** 2  # maps (0, ∞); P falls faster than any power of a
    jacobian = 0.5 * np.pi * np.sqrt(a) * (1.0 + a)
    values = gammainc(a, np.asarray(u)[..., None])
    return np.asarray((values * jacobian * weight).sum(axis=-1) / SLOPE)


@dataclass(frozen=True, slots=True, eq=False)
class ThickTarget:
    """Production of dark photons of one mass by electrons that lose energy in a target."""

    # [GeV]; only dark photons above the threshold are counted
    mass: float
    beam: float
    threshold: float
    per_electron: float  # Dark photons per electron on target and ε²
    # Cumulative distribution of the energy of the dark photon [GeV], shape (k,)
    cumulative: FloatArray
    energy: FloatArray

    def sample(self, n: int, rng: Rng) -> FloatArray:
        """Draw dark photons along z, (n, 4): an angle of order M/E moves nothing between calorimeters."""
        energy = np.interp(rng.random(n), self.cumulative, self.energy)
        photons = np.zeros((n, 4))
        photons[:, 2] = np.sqrt(energy**2 - self.mass**2)
        photons[:, 3] = energy
        return photons


def thick_target(
    mass: float,
    *,
    beam: float,
    threshold: float,
    material: Material = LEAD,
    correction: Correction | None = None,
) -> ThickTarget:
    """Return yield and energies of dark photons from an electron beam in a thick target.

    N = (N_A X₀/A) ∫ dE T(E) ∫_{xE > threshold} dx dσ/dx, the integral of T over slices of E
    being in closed form.
    """
    lowest = max(threshold, mass)
    if lowest >= beam:
        what = f"dark photon of {mass:g} GeV above {threshold:g} GeV"
        raise PhysicsError(f"{what} from a beam of {beam:g} GeV: not possible")
    # Slices that shrink towards the beam energy, where most of the path lies.
    edges = beam - (beam - lowest) * np.linspace(0.0, 1.0, ELECTRONS + 1) ** 2
    path = np.diff(track_length(edges, beam))
    # Each slice has a peak at x → 1 that only its own nodes resolve: they are what is drawn from.
    energies, weights = [], []
    for electron, length in zip(0.5 * (edges[1:] + edges[:-1]), path, strict=True):
        k = 1.0 if correction is None else float(correction.at(mass, electron))
        x, weight = energy_nodes(mass, float(electron), threshold)
        energies.append(x * electron)
        weights.append(ww_spectrum(x, mass, float(electron), material) * weight * length / k)
    every, weight = np.concatenate(energies), np.concatenate(weights)
    order = np.argsort(every)
    every, weight = every[order], weight[order]
    yields = float(weight.sum())
    middle = (np.cumsum(weight) - 0.5 * weight) / yields
    per_area = AVOGADRO * material.radiation_length / material.a * PB_CM2
    return ThickTarget(
        mass=mass,
        beam=beam,
        threshold=threshold,
        per_electron=yields * per_area,
        cumulative=np.concatenate([[0.0], middle, [1.0]]),
        energy=np.concatenate([[lowest], every, [beam - M_E]]),
    )


def _shape(mass: npt.ArrayLike, s: float) -> FloatArray:
    m2 = np.square(np.asarray(mass, dtype=np.float64))
    if not (m2 < s).all():
        heaviest = float(np.sqrt(m2.max()))
        raise PhysicsError(f"dark photon of {heaviest:g} GeV cannot be made at {np.sqrt(s):g} GeV")
    return np.asarray(4.0 * m2 * s / (s - m2) ** 2)


def monophoton_cross_section(mass: npt.ArrayLike, sqrt_s: float, cos_max: float) -> FloatArray:
    """Return σ(e+e− → γ A') per ε² for |cos θ*| < cos_max [fb].

    dσ/dc = (2πα²ε²/s)(1 − M²/s)(1 + c² + k)/(1 − c²), k = 4M²s/(s − M²)²; electron mass neglected.
    """
    s = sqrt_s**2
    k = _shape(mass, s)
    factor = 2.0 * np.pi * ALPHA**2 / s * (1.0 - np.square(mass) / s) * FB_PER_GEV2
    return np.asarray(factor * 2.0 * ((2.0 + k) * np.arctanh(cos_max) - cos_max))


def photon_cosine(uniform: FloatArray, mass: float, sqrt_s: float, cos_max: float) -> FloatArray:
    """Return cos θ* of photons from uniform numbers, by inversion; arguments as in `sample_photons`."""
    k = float(_shape(mass, sqrt_s**2))
    # In x = atanh c the density is 1 + k + tanh² x: smooth, so a table of its integral is exact to 1e-6.
    x = np.linspace(-1.0, 1.0, COSINES) * np.arctanh(cos_max)
    cumulative = (2.0 + k) * x - np.tanh(x)
    at = cumulative[0] + (cumulative[-1] - cumulative[0]) * uniform
    return np.asarray(np.tanh(np.interp(at, cumulative, x)))


def sample_photons(
    mass: float, sqrt_s: float, cos_max: float, n: int, rng: Rng
) -> tuple[FloatArray, FloatArray]:
    """Draw photons and the dark photons that recoil against them."""
    cosine = photon_cosine(rng.random(n), mass, sqrt_s, cos_max)
    phi = rng.uniform(-np.pi, np.pi, n)
    energy = (sqrt_s**2 - mass**2) / (2.0 * sqrt_s)
    sine = np.sqrt(1.0 - cosine**2)
    photon = energy * np.column_stack([sine * np.cos(phi), sine * np.sin(phi), cosine, np.ones(n)])
    dark = -photon
    dark[:, 3] = np.hypot(energy, mass)
    return photon, dark


def s_channel_cross_section(sector: DarkSector, sqrt_s: float) -> FloatArray:
    """Return σ(e+e− → A'* → ψ_i ψ_j) per ε² [fb], in the order of `mediator_widths` at √s.

    σ = 4πα ε² √s Γ(√s)/((s − M²)² + M²Γ²), Γ(√s) being the partial width of a dark photon of mass √s; the
    total width in the propagator is the one at M.
    """
    s, m2 = sqrt_s**2, sector.mediator**2
    partial = mediator_widths(replace(sector, mediator=sqrt_s))[1]
    total = mediator_widths(sector)[1].sum()
    propagator = (s - m2) ** 2 + m2 * total**2
    return np.asarray(4.0 * np.pi * ALPHA * sqrt_s * partial / propagator * FB_PER_GEV2)
