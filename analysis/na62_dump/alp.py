"""Axion-like particles from B decays: the plane of lifetime and product of branching ratios."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any

import numpy as np
import production

from gammastar import accept
from gammastar.core.constants import M_PROTON
from gammastar.core.files import data_path
from gammastar.core.records import FloatArray, Sample
from gammastar.core.sampling import stream
from gammastar.physics.detector import Detector, LeptonCuts, load_detector
from gammastar.physics.polarisation import daughter, momentum_in_rest_frame

PS = 2.99792458e-4  # metres of light per picosecond
LIFETIMES = np.geomspace(10.0, 1e6, 101)  # ps


def card() -> dict[str, Any]:
    """Return the card of B production and decay."""
    return tomllib.loads(data_path("cards/na62_alp.toml").read_text())


def b_per_proton(numbers: dict[str, Any]) -> float:
    """Return B+ and B0 with their antiparticles per proton on target."""
    quarks = 2 * numbers["sigma_bb"] / numbers["sigma_pp"] * numbers["a"] ** numbers["a_power"]
    return float(quarks * sum(numbers["fractions"]))


def sample(
    mass: float, n: int, rng: np.random.Generator, numbers: dict[str, Any], *, power: float | None = None
) -> Sample:
    """Return axion-like particles per B meson: the weights sum to one.

    dN/(dxF dpT²) ∝ (1 − |xF|)^n exp(−pT²/w) in the proton-nucleon frame, then B → K a or K* a, isotropic.
    """
    shape, decay = numbers["spectrum"], numbers["decay"]
    power = shape["n"] if power is None else power
    x = (1 - rng.uniform(size=n) ** (1 / (power + 1))) * np.where(rng.uniform(size=n) < 0.5, -1, 1)
    pt, phi = np.sqrt(shape["width"] * rng.standard_exponential(n)), rng.uniform(-np.pi, np.pi, n)
    s = 2 * M_PROTON * (production.BEAM + M_PROTON)
    # the largest momentum is that of p p -> B p Lambda_b: a B cannot carry half of the energy
    recoil = M_PROTON + decay["lambda_b"]
    along = x * momentum_in_rest_frame(np.sqrt(s), decay["b"], recoil)
    energy = np.sqrt(along**2 + pt**2 + decay["b"] ** 2)
    gamma = (production.BEAM + M_PROTON) / np.sqrt(s)
    gamma_beta = np.sqrt(gamma**2 - 1)
    parent = np.stack(
        [
            pt * np.cos(phi),
            pt * np.sin(phi),
            gamma * along + gamma_beta * energy,
            gamma * energy + gamma_beta * along,
        ]
    )
    kaon = np.where(rng.uniform(size=n) < decay["k_share"], decay["k"], decay["k_star"])
    angles = rng.uniform(-1, 1, n), rng.uniform(-np.pi, np.pi, n)
    return production.sample_of(daughter(parent, decay["b"], mass, kaon, *angles), np.full(n, 1 / n))


def loose_detector() -> Detector:
    """Return the looser description of the public recasts: decays from 102 to 182 m, leptons above 1 GeV."""
    detector = load_detector(data_path("detectors/na62_dump.toml"))
    return replace(
        detector, volume=replace(detector.volume, z0=102.0, z1=182.0), cuts=LeptonCuts(min_momentum=1.0)
    )


def product_limit(
    mass: float,
    lifetimes: FloatArray,
    events: float,
    pot: float,
    detector: Detector,
    *,
    n: int = 200_000,
    power: float | None = None,
    seed: int = 1,
) -> FloatArray:
    """Return the product of branching ratios that gives so many events, for each lifetime [ps]."""
    numbers = card()
    rng = stream(seed, "alp", f"{mass:.6f}")
    found = accept.lifetime_scan(
        sample(mass, n, rng, numbers, power=power),
        mass,
        lifetimes * PS,
        detector,
        states={"ee": detector.efficiency["ee"]},
        rng=rng,
    )
    expected = pot * b_per_proton(numbers) * found.accepted
    nothing = np.full_like(expected, np.inf)
    return np.divide(events, expected, out=nothing, where=expected > 0)
