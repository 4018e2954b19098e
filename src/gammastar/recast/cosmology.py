"""Lines of cosmology: the kinetic mixing that gives the relic density, and the one that the CMB allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gammastar.core.constants import GEV2_MB, LEPTON_MASS
from gammastar.core.data import data_path
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.physics.dark_sector import DarkSector, mediator_widths
from gammastar.physics.early_universe import relic_density, thermal_average
from gammastar.physics.monophoton import s_channel_cross_section
from gammastar.physics.widths import RTable
from gammastar.recast.cards import sourced

__all__ = ["Cosmology", "cmb_limit", "load_cosmology", "omega", "relic_target"]

FB_PER_GEV2 = GEV2_MB * 1e12
CM3_PER_S = 1.16733e-17  # of 1 GeV⁻²
NODES = 400
PERTURBATIVE = ((0.0, 2.2), (3.73, 3.67), (10.56, 4.03))  # R from an energy [GeV] on: 3 Σ Q² and 10 %
STEPS, TOLERANCE = 12, 2e-3  # of the search for the coupling
SLOW = 1e-3  # momentum over mass at which the annihilation at recombination is taken


@dataclass(frozen=True, slots=True)
class Cosmology:
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
    sources : mapping of str to str
    """

    omega: float
    annihilation: float
    efficiency: float
    equilibrium: float
    sources: Mapping[str, str] | None = None

    @property
    def unverified(self) -> tuple[str, ...]:
        """Inputs that were not confirmed in their source."""
        notes = self.sources or {}
        return tuple(f"cosmology {key}: {text}" for key, text in notes.items() if "published" not in text)


def load_cosmology(path: Path | None = None) -> Cosmology:
    """Return the inputs of a card, by default the shipped one.

    Raises
    ------
    SteeringError
        If a number of the card is missing or has no source.
    """
    return sourced(data_path("semivisible/cosmology.toml") if path is None else path, Cosmology)


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
    sector : DarkSector
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
    card : Cosmology, optional
    r_table : RTable, optional
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
    card : Cosmology, optional

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
    if not m > 0:
        msg = f"{sector.name}: the lightest state is massless"
        raise PhysicsError(msg)
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
