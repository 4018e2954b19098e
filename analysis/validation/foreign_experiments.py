"""Four simulated experiments that use no line of the package: numpy and uproot alone.

``dump``: 120 GeV protons on iron, muon pairs from 2 to 5 GeV, a row per pair, few of them.
``electrons``: 24 GeV protons on beryllium, e⁺e⁻ with bremsstrahlung, lists of p_T, η, φ per event.
``sparse``: 158 GeV protons on tungsten, 1500 muon pairs over a charge-dependent background, MeV, wrong prior.
``slopes``: 400 GeV protons on copper, 30 000 muon pairs of small angles; prior of other p_T and y.
Kinematics: Kaplan's form of p_T and a rapidity plateau with Fermi edges (no exponentials of m_T, no Gaussian,
no power of x_F); decays isotropic; every number below is made up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

Array = NDArray[np.float64]
PROTON = 0.938272
MASS = {"mu": 0.1056583755, "e": 0.00051099895}


@dataclass(frozen=True)
class Origin:
    """Virtual photons of one origin: a density in mass, p_T scale p0 and power n of (1 + (p_T/p0)²)^−n."""

    number: float  # per interaction
    density: Callable[[Array], Array]
    p0: float
    power: float
    plateau: float  # half width in rapidity
    edge: float = 0.35  # of the Fermi function at its end


@dataclass(frozen=True)
class Experiment:
    """A beam, a target, a spectrometer, and its simulation."""

    lepton: str
    beam: float
    target: tuple[float, float, float]  # A, Z, interaction lengths
    grid: tuple[float, float]  # masses
    truth: tuple[Origin, ...]
    prior: tuple[Origin, ...]
    interactions: float
    simulated: float  # photons over those of the data
    angle: tuple[float, float]
    threshold: float  # momentum at which a lepton is seen half the time
    resolution: tuple[float, float]  # of p: constant term, term in GeV over p; of angles below
    scattering: float  # rad GeV
    brems: float  # mean share of momentum lost before it is measured
    singles: tuple[float, float, float]  # background leptons per event, + and −, and their p scale
    events: int  # with background
    efficiency: tuple[float, float] = (0.95, 0.95)
    bend: float = 0.0  # charge × θ_x below −bend is lost
    spread: float = 0.35  # p_x of the background
    unit: float = 1.0
    layout: str = "cartesian"  # "angles", "rows"


def lorentz(centre: float, width: float) -> Callable[[Array], Array]:
    """Return a relativistic Breit–Wigner in m with a constant width."""
    return lambda m: m * centre * width / ((m**2 - centre**2) ** 2 + (centre * width) ** 2)


def step(m: Array, lepton: str) -> Array:
    """Return the phase space of two leptons."""
    share = 4 * MASS[lepton] ** 2 / m**2
    return np.sqrt(np.clip(1 - share, 0, None)) * (1 + share / 2)


def masses(it: Experiment, origin: Origin) -> tuple[Array, Array]:
    """Return a grid and the photons per GeV and interaction on it."""
    grid = np.arange(max(it.grid[0], 2 * MASS[it.lepton] + 1e-6), it.grid[1], 2e-4)
    shape = origin.density(grid)
    return grid, origin.number * shape / (shape.sum() * 2e-4)


def photons(rng: np.random.Generator, it: Experiment, origins: tuple[Origin, ...], n: int) -> Array:
    """Return n photons as rows (m, E, px, py, pz) in the laboratory, in random order."""
    share = np.array([o.number for o in origins])
    parts = []
    s = 2 * PROTON * (it.beam + PROTON)
    boost = np.arccosh((it.beam + PROTON) / np.sqrt(s))
    for origin, k in zip(origins, rng.multinomial(n, share / share.sum()), strict=True):
        grid, density = masses(it, origin)
        m = np.interp(rng.random(k), np.cumsum(density) / density.sum(), grid)
        pt = origin.p0 * np.sqrt(rng.random(k) ** (-1 / (origin.power - 1)) - 1)
        y = np.linspace(-5, 5, 4001)
        weight = 1 / (1 + np.exp((np.abs(y) - origin.plateau) / origin.edge))
        rapidity = np.interp(rng.random(k), np.cumsum(weight) / weight.sum(), y)
        mt = np.hypot(m, pt)
        ok = mt * np.cosh(rapidity) < 0.45 * np.sqrt(s)
        phi = rng.uniform(0, 2 * np.pi, k)
        lab = rapidity + boost
        rows = [m, mt * np.cosh(lab), pt * np.cos(phi), pt * np.sin(phi), mt * np.sinh(lab)]
        parts.append(np.stack(rows, axis=1)[ok])
    found = np.concatenate(parts)
    return found[rng.permutation(len(found))]


def decays(rng: np.random.Generator, photon: Array, mass: float) -> tuple[Array, Array]:
    """Return momenta of ℓ⁺ and ℓ⁻, isotropic in the photon's rest frame."""
    m, energy, p = photon[:, 0], photon[:, 1], photon[:, 2:]
    k = np.sqrt(np.clip(m**2 / 4 - mass**2, 0, None))
    cosine, phi = rng.uniform(-1, 1, len(m)), rng.uniform(0, 2 * np.pi, len(m))
    sine = np.sqrt(1 - cosine**2)
    q = k[:, None] * np.stack([sine * np.cos(phi), sine * np.sin(phi), cosine], axis=1)
    dot = (p * q).sum(axis=1)
    return tuple(sign * q + p * ((m / 2 + sign * dot / (energy + m)) / m)[:, None] for sign in (1, -1))  # type: ignore[return-value]


def detect(
    rng: np.random.Generator, it: Experiment, p: Array, charge: Array
) -> tuple[NDArray[np.bool_], Array]:
    """Return which leptons are seen, and all measured momenta."""
    size = np.linalg.norm(p, axis=1)
    tx, ty = p[:, 0] / p[:, 2], p[:, 1] / p[:, 2]
    angle = np.hypot(tx, ty)
    chance = np.where(charge > 0, *it.efficiency) / (
        1 + np.exp(-(size - it.threshold) / (0.15 * it.threshold))
    )
    inside = (p[:, 2] > 0) & (angle > it.angle[0]) & (angle < it.angle[1])
    if it.bend:
        inside &= charge * tx > -it.bend
    seen = inside & (rng.random(len(p)) < chance)
    a, b = it.resolution
    measured = size * (1 + np.hypot(a, b / size) * rng.normal(size=len(p)))
    if it.brems:
        measured *= 1 - rng.beta(0.25, 0.25 * (1 / it.brems - 1), len(p))
    kick = it.scattering / size
    tx, ty = tx + kick * rng.normal(size=len(p)), ty + kick * rng.normal(size=len(p))
    pz = np.abs(measured) / np.sqrt(1 + tx**2 + ty**2)
    return seen, np.stack([tx * pz, ty * pz, pz], axis=1)


def tracks(
    rng: np.random.Generator, it: Experiment, photon: Array, event: NDArray[np.int64]
) -> tuple[tuple[NDArray[np.int64], Array, Array], NDArray[np.bool_]]:
    """Return event, charge and momentum of the seen leptons of photons; and which photons have both."""
    found, both = [], np.ones(len(photon), dtype=bool)
    for p, charge in zip(decays(rng, photon, MASS[it.lepton]), (1.0, -1.0), strict=True):
        q = np.full(len(p), charge)
        seen, measured = detect(rng, it, p, q)
        both &= seen
        found.append((event[seen], q[seen], measured[seen]))
    return tuple(np.concatenate(part) for part in zip(*found, strict=True)), both  # type: ignore[return-value]


def pair_rows(
    event: NDArray[np.int64],
    charge: NDArray[np.int32],
    p: Array,
    counts: NDArray[np.int64],
    more: dict[str, Array],
) -> dict[str, NDArray]:
    """Return a row per pair; of a simulation a row per photon, with nan where its pair is not seen."""
    first = np.cumsum(counts) - counts
    if more:
        owner, a = np.arange(len(counts)), np.where(counts == 2, first, 0)
        b = a + (counts == 2)
        p = np.concatenate([p, np.full((1, 3), np.nan)])
        lost = counts != 2
        charge = np.concatenate([charge, np.ones(1, dtype=np.int32)])
        order = charge[a] > 0
        a, b = (
            np.where(lost, len(p) - 1, np.where(order, a, b)),
            np.where(lost, len(p) - 1, np.where(order, b, a)),
        )
    else:
        found = [
            (first[counts == k] + i, first[counts == k] + j)
            for k in range(2, counts.max() + 1)
            for i in range(k)
            for j in range(i + 1, k)
        ]
        a, b = (np.concatenate(column) for column in zip(*found, strict=True))
        a, b = (column[np.argsort(event[a], kind="stable")] for column in (a, b))
        owner = event[a]
    rows = {"spill": owner // 1000, "evt": owner % 1000}
    rows |= {f"{x}{leg}": p[k, i] for leg, k in ((1, a), (2, b)) for i, x in enumerate(("px", "py", "pz"))}
    signs = (
        (np.ones(len(a), dtype=np.int32), -np.ones(len(a), dtype=np.int32))
        if more
        else (charge[a], charge[b])
    )
    return rows | {"q1": signs[0], "q2": signs[1], **more}


def write(it: Experiment, name: str, found: tuple, n: int, path: Path, more: dict[str, Array]) -> None:
    """Write events or pairs as a ROOT tree."""
    event, charge, p = found
    order = np.argsort(event, kind="stable")
    event, charge, p = event[order], charge[order].astype(np.int32), p[order] / it.unit
    counts = np.bincount(event, minlength=n)
    if it.layout == "rows":
        rows = pair_rows(event, charge, p, counts, more)
    elif it.layout == "angles":
        pt = np.hypot(p[:, 0], p[:, 1])
        lists = {
            "pt": pt,
            "eta": np.arcsinh(p[:, 2] / pt),
            "phi": np.arctan2(p[:, 1], p[:, 0]),
            "charge": charge,
        }
        rows = {"run": np.full(n, 7), "event": np.arange(n), **more}
        rows |= {f"el_{key}": ak.unflatten(column, counts) for key, column in lists.items()}
    else:
        lists = {"px": p[:, 0], "py": p[:, 1], "pz": p[:, 2], "q": charge}
        rows = {"run": np.full(n, 7), "event": np.arange(n), **more}
        rows |= {f"muons_{key}": ak.unflatten(column, counts) for key, column in lists.items()}
    with uproot.recreate(path) as file:
        file[name] = rows


def measured_leptons(
    rng: np.random.Generator, it: Experiment
) -> tuple[int, int, tuple[NDArray[np.int64], Array, Array]]:
    """Return the numbers of events and photons; event, charge and momentum of all leptons that are seen."""
    per_interaction = sum(o.number for o in it.truth)
    photon = photons(rng, it, it.truth, int(rng.poisson(it.interactions * per_interaction)))
    parts = [tracks(rng, it, photon, it.events + np.arange(len(photon)))[0]]
    for mean, charge in zip(it.singles[:2], (1.0, -1.0), strict=True):
        owner = np.repeat(np.arange(it.events), rng.poisson(mean, it.events))
        k = len(owner)
        p = np.stack(
            [*rng.normal(0, it.spread, (2, k)), 0.5 * it.threshold + rng.gamma(2.0, it.singles[2] / 2, k)],
            axis=1,
        )
        q = np.full(k, charge)
        seen, measured = detect(rng, it, p, q)
        parts.append((owner[seen], q[seen], measured[seen]))
    found = tuple(np.concatenate(part) for part in zip(*parts, strict=True))
    return it.events + len(photon), len(photon), found  # type: ignore[return-value]


def make(it: Experiment, seed: int, folder: Path) -> dict[str, Array]:
    """Write data and simulation; return photons of the truth with which are seen, and protons on target."""
    data, mc, sample = (np.random.default_rng([seed, k]) for k in range(3))
    folder.mkdir(parents=True, exist_ok=True)
    per_interaction = sum(o.number for o in it.truth)
    n, n_photons, found = measured_leptons(data, it)
    shuffled = data.permutation(n)
    write(it, "tree", (shuffled[found[0]], *found[1:]), n, folder / "data.root", {})
    simulated = photons(mc, it, it.prior, int(it.simulated * n_photons))
    found, _ = tracks(mc, it, simulated, np.arange(len(simulated)))
    generated = {
        "gen_mass": simulated[:, 0] / it.unit,
        "gen_pt": np.hypot(simulated[:, 2], simulated[:, 3]) / it.unit,
        "gen_e": simulated[:, 1] / it.unit,
    }
    write(it, "tree", found, len(simulated), folder / "simulation.root", generated)
    true = photons(sample, it, it.truth, 1_500_000)
    _, seen = tracks(sample, it, true, np.arange(len(true)))
    protons = it.interactions / -np.expm1(-it.target[2])
    return {
        "mass": true[:, 0],
        "pt": np.hypot(true[:, 2], true[:, 3]),
        "energy": true[:, 1],
        "seen": seen,
        "protons": protons,
        "photons": it.interactions * per_interaction * len(true) / 1_500_000,
    }


def _dump() -> Experiment:
    def continuum(slope: float) -> Callable[[Array], Array]:
        return lambda m: np.exp(-m / slope) * step(m, "mu") / m

    psi = ((0.3, lorentz(3.0969, 0.002)), (0.02, lorentz(3.6861, 0.002)))
    return Experiment(
        lepton="mu",
        beam=120.0,
        target=(55.85, 26.0, 0.5),
        grid=(1.6, 5.4),
        truth=(
            Origin(0.7e-6, continuum(0.62), 2.1, 5.2, 0.6),
            *(Origin(1e-6 * n, line, 2.3, 5.5, 0.5) for n, line in psi),
        ),
        prior=(Origin(1e-6, continuum(0.9), 1.8, 5.0, 0.7), Origin(2e-7, psi[0][1], 2.3, 5.5, 0.5)),
        interactions=3.2e10,
        simulated=8.0,
        angle=(0.0, 0.13),
        threshold=7.0,
        resolution=(0.05, 0.1),
        scattering=0.03,
        brems=0.0,
        singles=(0.35, 0.35, 14.0),
        events=60_000,
        spread=0.9,
        layout="rows",
    )


def _electrons() -> Experiment:
    def dalitz(parent: float) -> Callable[[Array], Array]:
        return lambda m: np.clip(1 - (m / parent) ** 2, 0, None) ** 3 * step(m, "e") / m

    def broad(m: Array) -> Array:
        return lorentz(0.775, 0.149)(m) * np.exp(-m / 0.2)

    origins = (
        Origin(6e-5, dalitz(0.5479), 0.7, 5.5, 1.1),
        Origin(2.2e-5, broad, 0.8, 5.5, 1.0),
        Origin(1.6e-5, lorentz(0.7827, 0.0087), 0.8, 5.5, 1.0),
        Origin(4e-6, lorentz(1.0195, 0.0042), 0.9, 5.5, 0.9),
    )
    prior = (Origin(1e-4, lambda m: 1 / m, 0.85, 5.5, 1.0),)
    return Experiment(
        lepton="e",
        beam=24.0,
        target=(9.012, 4.0, 0.03),
        grid=(0.14, 1.5),
        truth=origins,
        prior=prior,
        interactions=8e8,
        simulated=6.0,
        angle=(0.02, 0.5),
        threshold=0.7,
        resolution=(0.012, 0.002),
        scattering=0.002,
        brems=0.02,
        singles=(0.5, 0.42, 1.6),
        events=60_000,
        spread=0.25,
        layout="angles",
    )


def _sparse() -> Experiment:
    def falling(m: Array) -> Array:
        return step(m, "mu") * np.exp(-m / 0.22)

    return Experiment(
        lepton="mu",
        beam=158.0,
        target=(183.84, 74.0, 0.1),
        grid=(0.22, 1.6),
        truth=(
            Origin(5e-5, falling, 0.9, 5.5, 0.9),
            Origin(6e-6, lorentz(0.7827, 0.0087), 1.0, 5.5, 0.9),
            Origin(4e-6, lorentz(1.0195, 0.0042), 1.1, 5.5, 0.8),
        ),
        prior=(Origin(1e-4, lambda m: step(m, "mu") * np.exp(-m / 0.5), 1.2, 5.5, 1.1),),
        interactions=6e8,
        simulated=40.0,
        angle=(0.01, 0.14),
        threshold=6.0,
        resolution=(0.02, 0.1),
        scattering=0.02,
        brems=0.0,
        singles=(0.75, 0.6, 12.0),
        events=30_000,
        efficiency=(0.95, 0.75),
        bend=0.03,
        spread=0.3,
        unit=1e-3,
    )


def _slopes() -> Experiment:
    def falling(m: Array) -> Array:
        return step(m, "mu") * np.exp(-m / 0.25)

    def origins(p0: float, plateau: float) -> tuple[Origin, ...]:
        lines = ((6e-6, lorentz(0.7827, 0.0087)), (2e-6, lorentz(1.0195, 0.0042)))
        continuum = Origin(3e-5, falling, 0.8 * p0, 5.5, 1.1 * plateau)
        return (continuum, *(Origin(n, line, p0, 5.5, plateau) for n, line in lines))

    return Experiment(
        lepton="mu",
        beam=400.0,
        target=(63.55, 29.0, 0.05),
        grid=(0.22, 1.5),
        truth=origins(1.0, 1.0),
        prior=origins(1.2, 1.2),
        interactions=1.6e10,
        simulated=2.0,
        angle=(0.006, 0.06),
        threshold=12.0,
        resolution=(0.012, 0.1),
        scattering=0.015,
        brems=0.0,
        singles=(0.4, 0.35, 20.0),
        events=100_000,
        spread=0.3,
    )


EXPERIMENTS: dict[str, Callable[[], Experiment]] = {
    "dump": _dump,
    "electrons": _electrons,
    "sparse": _sparse,
    "slopes": _slopes,
}
