"""What the figures of `envelope.py` start from: spectrum, generator and theory of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gammastar import flow, predict, spectrum
from gammastar.core.constants import M_MU
from gammastar.core.records import Exposure, FloatArray, Spectrum
from gammastar.core.sampler import Sampler
from gammastar.physics.bremsstrahlung import preset
from gammastar.physics.mesons import MesonTable
from gammastar.predict.channels import (
    Bremsstrahlung,
    PionDalitz,
    PseudoscalarDalitz,
    VectorDalitz,
    VectorMixing,
)
from gammastar.predict.uncertainty import Budget, budget
from gammastar.store.records import read_spectrum

RATE = r"$N_{A′}$ / POT / $\varepsilon^2$"
MIXED = "MOCK p-Pb dimuons, Eq. 6"
RESOLUTION = 0.030  # GeV at the ω, Allison and Blinov (2025); taken constant
MESONS = "meson decays and mixing, p-Pb"
BREMSSTRAHLUNG = r"bremsstrahlung, $\Lambda$ = 0.75 – 3 GeV"


@dataclass(frozen=True)
class Inputs:
    """What a run left behind."""

    measured: Spectrum
    exposure: Exposure
    sampler: Sampler
    mass: FloatArray
    edges: FloatArray
    density: FloatArray
    cov: FloatArray
    rate: Budget
    name: str
    folder: Path

    @property
    def interaction(self) -> float:
        """Probability that a proton interacts in the target."""
        return float(-np.expm1(-self.exposure.thickness))


def load(results: Path, *, mock: bool) -> Inputs:
    measured = read_spectrum(results / "spectrum.json")
    if measured.exposure is None:
        message = f"{results / 'spectrum.json'}: no beam and target; run with [spectrum]"
        raise SystemExit(message)
    mass, density, cov = spectrum.mass_density(measured)
    edges = np.asarray(measured.hist.axes["mass"].edges)
    values, rate_cov = predict.rate(mass, density, cov, M_MU)
    rate = budget(values, measured=rate_cov, pot=measured.exposure.pot_sigma)
    stored = (results / "flow.safetensors").is_file()
    sampler: Sampler = flow.load(results / "flow") if stored else spectrum.HistSampler(measured)
    name = MIXED if mock else "dimuons, Eq. 6"
    return Inputs(measured, measured.exposure, sampler, mass, edges, density, cov, rate, name, results)


def inside(run: Inputs):
    return lambda m, pt, e: spectrum.in_domain(run.measured, m, pt, e)


def brem(run: Inputs, interaction: float) -> Bremsstrahlung:
    return Bremsstrahlung(preset("qra_v2"), run.exposure.beam_energy, interaction)


def sigma(run: Inputs) -> FloatArray:
    return np.sqrt(np.diag(run.rate.total))


def mesons(
    run: Inputs, table: MesonTable, interaction: float, mass: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Sum of the meson channels and its standard deviation."""
    leaves = (PionDalitz, PseudoscalarDalitz, VectorDalitz, VectorMixing)
    channels = [leaf(table, run.exposure.beam_energy, interaction) for leaf in leaves]
    predict.check_exclusive([*channels, brem(run, interaction)])
    found = [channel.rate(mass) for channel in channels]
    variance = sum(np.diag(cov) for _, cov in found)
    return sum(rate for rate, _ in found), np.sqrt(variance)
