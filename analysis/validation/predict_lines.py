"""Rows of the topic `predict`: the rate at exact masses from bins of 25 MeV, on and beside ω and φ."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from gammastar import mock
from gammastar.core.axes import filled, variable
from gammastar.core.constants import M_MU, M_PI0, mass, width
from gammastar.core.files import data_path
from gammastar.core.records import FloatArray, Spectrum
from gammastar.core.sampling import stream
from gammastar.mock.cocktail import mass_spectrum
from gammastar.physics import hadrons
from gammastar.physics.mesons import MesonTable, dark_photon_branching
from gammastar.physics.qed import dark_photon_rate, lepton_factor, pseudoscalar_dalitz, vector_dalitz
from gammastar.spectrum import fit_mass_shape

Density = Callable[[FloatArray], FloatArray]
EDGES = np.linspace(0.2125, 1.1125, 37)  # the main job's
LINES = np.linspace(0.74, 1.06, 641)
ALL = np.linspace(0.215, 1.11, 400)
PROTONS = 1.6e10  # 60 000 dimuons
CARD = mock.load_card(data_path("cards/na60_mock.toml"))


def rows(*, quick: bool) -> Iterator[tuple]:
    yield from _exact()
    yield from _toys(40 if quick else 400)
    yield from _decays()


def cocktail(m: FloatArray) -> FloatArray:
    return PROTONS * mass_spectrum(CARD, m)


def colder(m: FloatArray) -> FloatArray:
    """Return the cocktail with a ρ of another temperature: 0.12 GeV."""
    modes = dict(CARD.modes)
    modes["rho"] = modes["rho"].model_copy(update={"temperature": 0.12})
    return PROTONS * mass_spectrum(CARD.model_copy(update={"modes": modes}), m)


def foreign(m: FloatArray) -> FloatArray:
    """Return shapes that are none of the fit's: a ρ of constant width, a pointlike η, 1/m³."""
    total = np.zeros_like(m)
    for pdg, n in ((113, 6e3), (223, 8e3), (333, 2e3)):
        pole, scale = mass(pdg), mass(pdg) * width(pdg)
        total += n * 2 * m / np.pi * scale / ((m**2 - pole**2) ** 2 + scale**2)
    eta = pseudoscalar_dalitz(m**2, mass(221), M_MU, hadrons.pointlike)
    omega = vector_dalitz(m**2, mass(223), M_PI0, M_MU, hadrons.omega2)
    return lepton_factor(m**2, M_MU) * (total + 50 / m**3) + 2 * m * (6e7 * eta + 1.7e7 * omega)


def contents(density: Density) -> FloatArray:
    grid = np.linspace(EDGES[:-1], EDGES[1:], 2001, axis=1)
    return np.asarray(np.trapezoid(density(grid), grid, axis=1))


def spectrum(values: FloatArray) -> Spectrum:
    cov = np.diag(np.maximum(values, 1.0))
    axes = (variable("mass", EDGES.tolist()),)
    return Spectrum(filled(axes, values, np.diag(cov)), cov, "counts", None, np.ones(len(values), dtype=bool))


def rms(found: FloatArray, truth: FloatArray) -> float:
    return float(np.sqrt(np.mean(np.log10(found / truth) ** 2)))


def _exact() -> Iterator[tuple]:
    centres = 0.5 * (EDGES[1:] + EDGES[:-1])
    for name, density in (
        ("MOCK cocktail", cocktail),
        ("ρ of 0.12 GeV", colder),
        ("foreign shapes", foreign),
    ):
        values, truth = contents(density), density(LINES)
        straight = rms(np.interp(LINES, centres, values / np.diff(EDGES)), truth)
        ours = rms(fit_mass_shape(spectrum(values), m_lepton=M_MU).density(LINES)[0], truth)
        label = f"rms log₁₀(rate/truth), 0.74 to 1.06 GeV, exact contents, {name}"
        yield label, ours, 0.0, 0.03, f"integrals of the spectrum; straight between bins: {straight:.2f}"


def _toys(n: int) -> Iterator[tuple]:
    truth, known = contents(cocktail), {"lines": cocktail(LINES), "all": cocktail(ALL)}
    pulls, distance, sigma = [], [], []
    for i in range(n):
        values = stream(41, "lines", i).poisson(truth).astype(np.float64)
        found = fit_mass_shape(spectrum(values), m_lepton=M_MU)
        density, cov = found.density(LINES)
        distance.append(np.mean(np.log10(density / known["lines"]) ** 2))
        sigma.append(np.mean((np.sqrt(np.diag(cov)) / density / np.log(10)) ** 2))
        density, cov = found.density(ALL)
        pulls.append((density - known["all"]) / np.sqrt(np.diag(cov)))
    source = f"{n} samples of 60 000 MOCK dimuons"
    widths = np.std(pulls, axis=0, ddof=1)
    yield "width of pulls at exact masses, mean over 0.215 to 1.11 GeV", widths.mean(), 1.0, 0.1, source
    worst = np.abs(np.mean(pulls, axis=0)).max()
    yield "largest mean pull at an exact mass", worst, 0.0, 0.5 + 3 / np.sqrt(n), f"{source}; Poisson errors"
    ratio = float(np.sqrt(np.mean(distance) / np.mean(sigma)))
    yield (
        "rms log₁₀(rate/truth) over its own error, 0.74 to 1.06 GeV",
        ratio,
        0.9,
        0.3,
        f"{source}; at most 1.2",
    )


def _decays() -> Iterator[tuple]:
    table = MesonTable.read(data_path("measurements/mesons_400gev.toml"))
    masses = np.array([0.213, 0.22, 0.25, 0.3, 0.4, 0.5])
    for name, kind in (("eta", "pseudoscalar_dalitz"), ("omega", "vector_dalitz")):
        decay = next(d for d in table.decays if d.parent == name and d.kind == kind)
        code = table.mesons[name].pdg

        def dimuons(
            m: FloatArray, name: str = name, code: int = code, share: float = decay.branching
        ) -> FloatArray:
            if name == "eta":
                shape = pseudoscalar_dalitz(m**2, mass(code), M_MU, hadrons.eta2)
            else:
                shape = vector_dalitz(m**2, mass(code), M_PI0, M_MU, hadrons.omega2)
            return 1e9 * share * 2 * m * shape

        expected = 1e9 * dark_photon_branching(decay, mass(code), width(code), masses)
        found = fit_mass_shape(spectrum(contents(dimuons)), m_lepton=M_MU).density(masses)[0]
        ratio = dark_photon_rate(found, masses, M_MU) / expected
        for m, value in zip(masses, ratio, strict=True):
            yield (
                f"{name} → A′ from bins of 25 MeV over its branching ratio, {m} GeV",
                value,
                1.0,
                1e-3,
                "closed form",
            )
