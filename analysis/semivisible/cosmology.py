"""Lines of cosmology: the kinetic mixing that gives the relic density, and the one that the CMB allows.

Assumed: dark states in kinetic and chemical equilibrium with each other until freeze-out, no asymmetry,
standard expansion, heavier states decay to the lightest. The plasma is an ideal gas, with a smooth change
from pions to quarks at 150 MeV: 10 % in the degrees of freedom there, less elsewhere above 1 MeV.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.integrate import solve_ivp
from scipy.special import kve

from gammastar.core.constants import GEV2_MB, LEPTON_MASS, M_PI_CHARGED, M_TAU
from gammastar.core.errors import require
from gammastar.core.files import Pathlike
from gammastar.core.records import FloatArray
from gammastar.physics.qed import RTable
from gammastar.semivisible.benchmarks import Card
from gammastar.semivisible.models import DarkSector, mediator_widths
from gammastar.semivisible.production import s_channel_cross_section

FB_PER_GEV2 = GEV2_MB * 1e12
CM3_PER_S = 1.16733e-17  # of 1 GeV⁻²
NODES = 400
PERTURBATIVE = ((0.0, 2.2), (3.73, 3.67), (10.56, 4.03))  # R from an energy [GeV] on: 3 Σ Q² and 10 %
STEPS, TOLERANCE = 12, 2e-3  # of the search for the coupling
SLOW = 1e-3  # momentum over mass at which the annihilation at recombination is taken
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


@dataclass(frozen=True, slots=True)
class Cosmology(Card):
    """Inputs of the two lines.

    Attributes
    ----------
    omega : float
        Ω h² that the lightest state has to make.
    annihilation : float
        Largest f_eff ⟨σv⟩/m of self-conjugate dark matter at recombination [cm³/s/GeV].
    efficiency : float
        f_eff
    equilibrium : float
        1: chemical equilibrium among the dark states until freeze-out; nothing else is modelled.
    """

    title: ClassVar[str] = "cosmology"
    shipped: ClassVar[str] = "semivisible/cosmology.toml"
    omega: float
    annihilation: float
    efficiency: float
    equilibrium: float
    sources: Mapping[str, str] | None = None


def load_cosmology(path: Pathlike | None = None) -> Cosmology:
    """Return the inputs of a card, by default the shipped one.

    Raises
    ------
    SteeringError
        If a number of the card is missing or has no source.
    """
    return Cosmology.load(path)


def _standard_model(energy: FloatArray, r_table: RTable | None) -> FloatArray:
    """Return the width of a virtual photon into everything over the one into massless electrons."""
    ratio = np.zeros_like(energy)
    muons = np.zeros_like(energy)
    for lepton, mass in LEPTON_MASS.items():
        x = (mass / energy) ** 2
        part = np.sqrt(np.clip(1.0 - 4.0 * x, 0.0, None)) * (1.0 + 2.0 * x)
        muons = part if lepton == "mu" else muons
        ratio = ratio + part
    if r_table is not None:
        end = float(r_table.mass[-1])
        starts, values = np.array(PERTURBATIVE).T
        quarks = values[np.searchsorted(starts, energy, side="right") - 1]
        ratio = ratio + muons * np.where(energy < end, r_table.at(np.minimum(energy, end)), quarks)
    return ratio


def _rate(sector: DarkSector, r_table: RTable | None) -> tuple[float, Callable[[FloatArray], FloatArray]]:
    """Return the threshold and √s -> Σ g_a g_b p² σ per ε², by detailed balance with e+e− → ψψ: 2 s σ(ee)."""
    i, j = np.triu_indices(len(sector.masses))
    coupled = sector.strengths()[0][i, j] > 1e-12
    threshold = float((sector.masses[i] + sector.masses[j])[coupled].min())
    table = threshold * (1.0 + np.geomspace(1e-7, 30.0, NODES))
    sigma = np.array([s_channel_cross_section(sector, float(e)).sum() for e in table]) / FB_PER_GEV2
    values = 2.0 * table**2 * sigma * _standard_model(table, r_table)

    def rate(energy: FloatArray) -> FloatArray:
        return np.asarray(np.interp(energy, table, values, left=0.0), dtype=np.float64)

    return threshold, rate


def _numbers(sector: DarkSector) -> FloatArray:
    per_field = {"majorana": 2.0, "dirac": 4.0, "scalar": 1.0}[sector.field]
    return np.full(len(sector.masses), per_field)


def omega(sector: DarkSector, epsilon: float, *, r_table: RTable | None = None) -> float:
    """Return Ω h² of the lightest state from coannihilation ψ_i ψ_j → A'* → standard model.

    Parameters
    ----------
    epsilon : float
        Kinetic mixing.
    r_table : RTable, optional
        Adds hadrons; above its last mass R is that of quarks.

    Notes
    -----
    The width of the dark photon is in the propagator. Accurate to 5 % in Ω where the plasma is an ideal gas,
    so 2.5 % in ε; chemical equilibrium among the dark states is assumed, not shown.
    """
    return _omega(sector, _average(sector, r_table), epsilon)


def _average(sector: DarkSector, r_table: RTable | None) -> tuple[FloatArray, FloatArray]:
    """Return ln x and ln ⟨σ_eff v⟩ per ε² [GeV⁻²]."""
    threshold, rate = _rate(sector, r_table)
    x = np.geomspace(4.9, 1010.0, 120)
    average = thermal_average(sector.masses, _numbers(sector), rate, threshold, x)
    return np.log(x), np.log(np.maximum(average, 1e-300))


def _omega(sector: DarkSector, average: tuple[FloatArray, FloatArray], epsilon: float) -> float:
    log_x, log_average = average
    shifted = log_average + 2.0 * float(np.log(epsilon))
    return relic_density(
        sector.masses, _numbers(sector), lambda x: np.exp(np.interp(np.log(x), log_x, shifted))
    )


def relic_target(
    model: Callable[[float], DarkSector],
    mass: FloatArray,
    *,
    card: Cosmology | None = None,
    r_table: RTable | None = None,
) -> FloatArray:
    """Return the kinetic mixing that makes the lightest state all dark matter, shape (m,).

    Smaller couplings leave too much of it.

    Parameters
    ----------
    model : callable
        Mass of the dark photon [GeV] -> DarkSector.
    mass : NDArray, shape (m,) [GeV]
    """
    wanted = (load_cosmology() if card is None else card).omega
    found = np.empty(len(mass))
    for index, m in enumerate(mass):
        sector = model(float(m))
        average = _average(sector, r_table)
        epsilon = 1e-2 * float(m)
        for _ in range(STEPS):
            ratio = _omega(sector, average, epsilon) / wanted
            epsilon *= float(
                ratio**0.62
            )  # Ω goes as ε to between −2 and −1.3: rare partners freeze out early
            if abs(ratio - 1.0) < TOLERANCE:
                break
        found[index] = epsilon
    return found


def cmb_limit(sector: DarkSector, *, card: Cosmology | None = None) -> float:
    """Return the largest kinetic mixing that annihilation at recombination allows; inf without s-wave.

    Parameters
    ----------
    sector : DarkSector
        Its lightest state is taken as all dark matter.

    Raises
    ------
    PhysicsError
        If the lightest state is massless.

    Notes
    -----
    ε² f_eff ⟨σv⟩/m below the bound, with ⟨σv⟩ of ψ₁ψ₁ → e+e−, μ+μ−. Particle and antiparticle of a Dirac
    state meet half as often.
    """
    inputs = load_cosmology() if card is None else card
    m = float(sector.masses[0])
    require(m > 0, f"{sector.name}: the lightest state is massless")
    momentum = SLOW * m
    energy = 2.0 * float(np.hypot(m, momentum))
    pairs, _ = mediator_widths(replace(sector, mediator=energy))
    own = (pairs == 0).all(axis=1)
    sigma_ee = float(s_channel_cross_section(sector, energy)[own].sum()) / FB_PER_GEV2
    leptons = float(_standard_model(np.array([energy]), None)[0])
    identical = sector.field != "dirac"
    sigma = sigma_ee * leptons * 0.25 * energy**2 / momentum**2 * (2.0 if identical else 1.0)
    rate = sigma * 2.0 * momentum / (0.5 * energy) * CM3_PER_S * (1.0 if identical else 0.5)
    slow = rate * inputs.efficiency / m
    if sector.field != "dirac" or slow <= 0:
        return float("inf")  # a Majorana vertex is axial, p-wave up to m_e²/m²; real scalars have none
    return float(np.sqrt(inputs.annihilation / slow))


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
    """Return the degrees of freedom of the entropy, h, and √g* = (h/√g)(1 + ⅓ dln h/dln T)."""
    log_t, h, root = _table()
    x = np.log(temperature)
    return np.asarray(np.interp(x, log_t, h)), np.asarray(np.interp(x, log_t, root))


def thermal_average(
    masses: FloatArray, numbers: FloatArray, rate: CrossSection, threshold: float, x: FloatArray
) -> FloatArray:
    """Return ⟨σ_eff v⟩ of coannihilating species [GeV⁻²], shape of x.

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
    log_strength, log_nodes = np.log(np.maximum(strength, 1e-300)), np.log(x)

    def slope(log_x: float, y: FloatArray) -> FloatArray:
        at = np.exp(log_x)
        equilibrium = np.interp(at, x, log_equilibrium)
        k = np.exp(np.interp(log_x, log_nodes, log_strength)) * at
        up, down = np.minimum(2.0 * equilibrium - y, 200.0), np.minimum(y, 200.0)  # trial steps of the solver
        return np.asarray(k * (np.exp(up) - np.exp(down)))

    start = np.array([log_equilibrium[0]])
    solution = solve_ivp(slope, log_nodes[[0, -1]], start, method="Radau", rtol=1e-6, atol=1e-8)
    require(solution.success, f"relic density of {m:g} GeV: {solution.message}")
    return float(TODAY * m * np.exp(solution.y[0, -1]))
