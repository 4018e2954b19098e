"""Rows of the topic `predict`: the rate at exact masses, for line shapes that are not those of the fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from scipy.special import ndtr

from gammastar.core.constants import M_MU, M_PI0, mass, width
from gammastar.core.files import data_path
from gammastar.core.records import FloatArray, Spectrum, filled, variable
from gammastar.core.sampling import stream
from gammastar.physics import hadrons
from gammastar.physics.detector import MassResolution
from gammastar.physics.mesons import MesonTable, dark_photon_branching
from gammastar.physics.qed import dark_photon_rate, pseudoscalar_dalitz, vector_dalitz
from gammastar.spectrum import MassShape, fit_mass_shape, mass_counts
from gammastar.spectrum.mass_shape import SCALE, WIDTH

Density = Callable[[FloatArray], FloatArray]
EDGES = np.linspace(0.2125, 1.1125, 37)  # the main job's
FINE = np.arange(0.2114, 1.45, 1e-4)
MASSES = np.unique(np.concatenate([np.linspace(0.2135, 1.1115, 75), np.linspace(0.76, 0.85, 31)]))
MASSES = np.unique(np.concatenate([MASSES, np.linspace(0.89, 0.91, 9), np.linspace(0.98, 1.05, 29)]))
SEEN = 0.25  # of the photons

# Line shapes of their own: nothing of the package's
MU, PI, ETA, RHO, GAMMA_RHO = 0.1056584, 0.1395704, 0.547862, 0.77526, 0.1474
OMEGA, GAMMA_OMEGA, PHI, GAMMA_PHI = 0.78266, 0.00868, 1.019461, 0.004249
PHOTONS = {"eta": 29_840, "omega dalitz": 14_134, "rho": 4_893, "omega": 7_805, "phi": 1_871, "eta'": 1_208}


def leptons(m: FloatArray) -> FloatArray:
    share = np.clip(4 * MU**2 / m**2, 0, 1)
    return np.sqrt(1 - share) * (1 + share / 2)


def momentum(m: FloatArray) -> FloatArray:
    return np.sqrt(np.clip(m**2 / 4 - PI**2, 0, None))


def running(m: FloatArray) -> FloatArray:
    """Return the inverse propagator of a ρ of running width."""
    gamma = GAMMA_RHO * RHO / m * (momentum(m) / np.sqrt(RHO**2 / 4 - PI**2)) ** 3
    return RHO**2 - m**2 - 1j * RHO * gamma


def gounaris_sakurai(m: FloatArray) -> FloatArray:
    """Return that with the dispersion of two pions, written by differences of h instead of its derivative."""
    x, step = np.maximum(m, 2 * PI + 1e-6), 1e-5

    def h(y: FloatArray) -> FloatArray:
        return 2 / np.pi * momentum(y) / y * np.log((y + 2 * momentum(y)) / (2 * PI))

    pole, q0 = np.array(RHO), float(np.sqrt(RHO**2 / 4 - PI**2))
    slope = (h(np.sqrt(pole**2 + step)) - h(np.sqrt(pole**2 - step))) / (2 * step)
    shift = momentum(x) ** 2 * (h(x) - h(pole)) + (pole**2 - x**2) * q0**2 * slope
    return running(x) + GAMMA_RHO * RHO**2 / q0**3 * shift


def rho(m: FloatArray, temperature: float = 0.161, inverse: Density = running) -> FloatArray:
    space = np.clip(1 - 4 * PI**2 / m**2, 0, None) ** 1.5 * (m * temperature) ** 1.5
    return space * np.exp(-m / temperature) / np.abs(inverse(m)) ** 2 * leptons(m)


def broad(m: FloatArray) -> FloatArray:
    """Return a ρ of constant width and 0.25 GeV."""
    inside = (m > 2 * MU + 0.05) & (m < 1.3)
    return np.where(inside, np.exp(-m / 0.25), 0.0) / ((m - RHO) ** 2 + GAMMA_RHO**2 / 4)


def relativistic(pole: float, gamma: float) -> Density:
    return lambda m: m / ((m**2 - pole**2) ** 2 + pole**2 * gamma**2)


def constant(pole: float, gamma: float) -> Density:
    return lambda m: np.where(np.abs(m - pole) < 0.25, 1 / ((m - pole) ** 2 + gamma**2 / 4), 0.0)


def dalitz(m: FloatArray) -> dict[str, FloatArray]:
    eta = np.clip(1 - m**2 / ETA**2, 0, None) ** 3 / (1 - np.minimum(m, ETA) ** 2 / 0.716**2) ** 2
    other = np.clip(1 - m**2 / 0.95778**2, 0, None) ** 3 / ((0.764**2 - m**2) ** 2 + (0.764 * 0.102) ** 2)
    gap, top = OMEGA**2 - 0.1349768**2, OMEGA - 0.1349768
    space = np.clip((1 + m**2 / gap) ** 2 - (2 * OMEGA * m / gap) ** 2, 0, None) ** 1.5
    omega = np.where(m < top, space / (1 - np.minimum(m, top) ** 2 / 0.67**2) ** 2, 0.0)
    return {
        "eta": eta * leptons(m) / m,
        "eta'": other * leptons(m) / m,
        "omega dalitz": omega * leptons(m) / m,
    }


def unit(shape: Density) -> Density:
    inside = FINE[(EDGES[0] < FINE) & (EDGES[-1] > FINE)]
    norm = float(np.trapezoid(shape(inside), inside))
    return lambda m: shape(m) / norm


def cocktail(
    rho_: Density = rho,
    lines: tuple[Density, Density] = (relativistic(OMEGA, GAMMA_OMEGA), relativistic(PHI, GAMMA_PHI)),
    *,
    phase: float | None = None,
    without: tuple[str, ...] = (),
) -> Density:
    """Return dN/dm of 60 000 dimuons; with a phase, ρ and ω are fully coherent."""
    shapes: dict[str, Density] = {name: lambda m, name=name: dalitz(m)[name] for name in dalitz(EDGES)}
    shapes |= {"rho": rho_, "omega": lines[0], "phi": lines[1]}
    shapes = {name: unit(shape) for name, shape in shapes.items() if name not in without}

    def density(m: FloatArray) -> FloatArray:
        parts = {name: PHOTONS[name] * shape(m) for name, shape in shapes.items()}
        total = sum(parts.values())
        if phase is not None:
            between = np.angle(running(np.maximum(m, 2 * PI + 1e-6)))
            between -= np.angle(OMEGA**2 - m**2 - 1j * OMEGA * GAMMA_OMEGA)
            total = total + 2 * np.sqrt(parts["rho"] * parts["omega"]) * np.cos(between + phase)
        return np.asarray(total)

    return density


def bump(m: FloatArray) -> FloatArray:
    return cocktail()(m) + 3600 * np.exp(-0.5 * ((m - 0.62) / 0.05) ** 2) / (0.05 * np.sqrt(2 * np.pi))


TRUTHS: dict[str, Density] = {
    "cocktail": cocktail(),
    "ρ of 0.12 GeV": cocktail(lambda m: rho(m, 0.12)),
    "ρ of 0.22 GeV": cocktail(lambda m: rho(m, 0.22)),
    "ρ of Gounaris and Sakurai": cocktail(lambda m: rho(m, 0.161, gounaris_sakurai)),
    "step down to 0.6 at 0.9 GeV": lambda m: cocktail()(m) * np.where(m > 0.9, 0.6, 1.0),
    "Drell-Yan from 1 GeV on": lambda m: cocktail()(m) + np.where(m > 1.0, 600 * m**-3.25, 0.0),
    **{f"ρ and ω coherent, {k}π/2": cocktail(phase=k * np.pi / 2) for k in (0, 1, 2, -1)},
    "constant widths": cocktail(broad, (constant(OMEGA, GAMMA_OMEGA), constant(PHI, GAMMA_PHI))),
    "no ω": cocktail(without=("omega", "omega dalitz")),
    "bump at 0.62 GeV, 6 %": bump,
}


def rows(*, quick: bool) -> Iterator[tuple]:
    yield from _shapes(4 if quick else 40)
    yield from _decays()


def contents(density: Density) -> FloatArray:
    grid = np.linspace(EDGES[:-1], EDGES[1:], 501, axis=1)
    return np.asarray(np.trapezoid(density(grid), grid, axis=1))


def spectrum(values: FloatArray) -> Spectrum:
    cov = np.diag(np.maximum(values, 1.0))
    axes = (variable("mass", EDGES.tolist()),)
    return Spectrum(filled(axes, values, np.diag(cov)), cov, "counts", None, np.ones(len(values), dtype=bool))


def resolution(m: FloatArray) -> FloatArray:
    return 0.012 + 0.022 * m


def _shapes(n: int) -> Iterator[tuple]:
    """Yield pulls of the rate at exact masses, fitted to reconstructed pairs and to bins of true mass.

    In each set of pairs the resolution is off by the error that the fit takes it to have. Normal pulls at
    some 36 independent masses of 40 sets exceed 3.5 with a probability of 0.5.
    """
    grid = np.linspace(0.2, 1.6, 200)
    known = replace(MassResolution.gaussian(grid, resolution(grid)), efficiency=np.full(200, SEEN))
    for name, density in TRUTHS.items():
        true, bins = density(MASSES), contents(density)

        def of_pairs(rng: np.random.Generator, density: Density = density) -> MassShape:
            width, scale = 1 + WIDTH * rng.standard_normal(), 1 + SCALE * rng.standard_normal()
            pulls = (EDGES - scale * FINE[:, None]) / (width * resolution(FINE)[:, None])
            folded = density(FINE)[:, None] * SEEN * np.diff(ndtr(pulls), axis=1)
            found = spectrum(rng.poisson(np.trapezoid(folded, FINE, axis=0)).astype(np.float64))
            return fit_mass_shape(found, m_lepton=M_MU, counts=mass_counts(found, known))

        def of_bins(rng: np.random.Generator, bins: FloatArray = bins) -> MassShape:
            return fit_mass_shape(spectrum(rng.poisson(bins).astype(np.float64)), m_lepton=M_MU)

        for what, fitted in (("pairs", of_pairs), ("bins of true mass", of_bins)):
            pulls, errors = [], []
            for i in range(n if what == "pairs" else max(n // 4, 4)):
                value, cov = fitted(stream(41, "lines", i)).density(MASSES)
                sigma = np.sqrt(np.diag(cov))
                pulls.append((value - true) / sigma)
                errors.append(sigma / value)
            found = np.array(pulls)
            source = f"{len(found)} sets fitted to {what}; median error {100 * np.median(errors):.1f} %"
            k = np.unravel_index(np.abs(found).argmax(), found.shape)
            where = f"{source}; at {MASSES[k[1]]:.3f} GeV"
            label, gate = f"largest pull at an exact mass, {name}, {what}", what == "pairs"
            yield label, float(abs(found[k])), 0.0, 3.5 if gate else np.nan, where
            rms = float(np.sqrt(np.mean(found**2)))
            yield f"rms pull at exact masses, {name}, {what}", rms, 1.0, 0.3 if gate else np.nan, source


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
