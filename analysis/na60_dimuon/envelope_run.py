"""What the figures of `envelope.py` start from: spectrum, generator and theory of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gammastar import flow, predict, spectrum
from gammastar.core.constants import M_MU
from gammastar.core.records import Exposure, FloatArray, Spectrum
from gammastar.core.sampling import Sampler, stream
from gammastar.core.signal import Rate
from gammastar.core.sources import MEASUREMENT, POLARISATION, Source, Sources
from gammastar.physics.bremsstrahlung import preset
from gammastar.physics.mesons import MesonTable
from gammastar.physics.polarisation import cosine, daughter
from gammastar.predict.production import sources_of
from gammastar.predict.theory import (
    Bremsstrahlung,
    MesonChannel,
    PionDalitz,
    PseudoscalarDalitz,
    VectorDalitz,
    VectorMixing,
)
from gammastar.store.manifest import read_spectrum

RATE = r"$N_{A′}$ / POT / $\varepsilon^2$"
MIXED = "MOCK p-Pb dimuons, Eq. 6"
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
    rate: Rate
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
    values, rate_cov = predict.rate(mass, density, cov, M_MU, edges=edges)
    stored = (results / "flow.safetensors").is_file()
    sampler: Sampler = flow.load(results / "flow") if stored else spectrum.HistSampler(measured)
    shifts = {name: values * relative for name, relative in spectrum.relative_shifts(measured).items()}
    sources = sources_of(MEASUREMENT, values, rate_cov, measured.exposure.pot_sigma, shifts)
    if POLARISATION not in shifts:
        ends = polarisation(mass, values, sampler)
        sources += Sources((Source.ranged(POLARISATION, "spectrum", ends),))
    rate = Rate(mass, values, sources.total(), sources)
    name = MIXED if mock else "dimuons, Eq. 6"
    return Inputs(measured, measured.exposure, sampler, mass, edges, density, cov, rate, name, results)


def seen(photons: FloatArray, mass: FloatArray, rng: np.random.Generator, lam: float = 0.0) -> FloatArray:
    """Both muons between 35 and 120 mrad and above 3 GeV, the spectrometer of the mock; 1 + λ cos²θ."""
    n = photons.shape[1]
    cos_theta = cosine(lam, rng.uniform(size=n))
    first = daughter(photons, mass, M_MU, M_MU, cos_theta, rng.uniform(-np.pi, np.pi, n))
    good = np.ones(n, dtype=bool)
    for p in (first, photons - first):
        theta = np.arctan2(np.hypot(p[0], p[1]), p[2])
        good &= (theta > 0.035) & (theta < 0.120) & (p[3] > 3.0)
    return good


def momenta(pt: FloatArray, energy: FloatArray, mass: FloatArray, rng: np.random.Generator) -> FloatArray:
    phi = rng.uniform(-np.pi, np.pi, len(pt))
    pz = np.sqrt(np.clip(energy**2 - mass**2 - pt**2, 0, None))
    return np.stack([pt * np.cos(phi), pt * np.sin(phi), pz, energy])


def polarisation(mass: FloatArray, rate: FloatArray, sampler: Sampler, n: int = 20_000) -> FloatArray:
    """Rates for λ = ±1/√3 instead of 0: one standard deviation of a λ that may be anything from −1 to 1."""
    low, high = sampler.mass_range
    shares = np.ones((3, len(mass)))
    for i, m in enumerate(np.clip(mass, max(low, 2.0001 * M_MU), high)):
        rng = stream(1, "polarisation", i)
        masses = np.full(n, m)
        photons = momenta(*sampler.sample(masses, rng), masses, rng)
        for k, lam in enumerate((-(3**-0.5), 0.0, 3**-0.5)):
            shares[k, i] = max(seen(photons, masses, rng, lam).mean(), 1 / n)
    return rate * shares[1] / shares[::2]


def light_mesons(run: Inputs, table: MesonTable) -> list[MesonChannel]:
    """Dalitz decays to virtual photons lighter than two muons, which no dimuon shows."""
    common = (table, run.exposure.beam_energy, run.interaction, (0.0, 2 * M_MU))
    return [PionDalitz(*common), PseudoscalarDalitz(*common), VectorDalitz(*common)]


def inside(run: Inputs):
    return lambda m, pt, e: spectrum.in_domain(run.measured, m, pt, e)


def brem(run: Inputs, interaction: float) -> Bremsstrahlung:
    return Bremsstrahlung(preset("qra_v2"), run.exposure.beam_energy, interaction)


def sigma(run: Inputs) -> FloatArray:
    return run.rate.error()


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
