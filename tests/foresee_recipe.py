"""Numbers of events as FORESEE finds them, by numpy alone: cells, smeared (arXiv:2105.07077)."""

from __future__ import annotations

import numpy as np

from gammastar.core.constants import M_E

STEP = 0.05
HEAD = """# This file contains the cross section for particles into the FORWARD hemisphere only
# Normalization:     1.68626e+11 pb
# pid: 221
#  log10(theta)    log10(p/GeV)     cross-section[pb/bin]
"""


def forward(total, *, pt=0.3, slope=1200.0):
    """Return cells with transverse momenta of some 0.3 GeV and falling momenta: a formula, no generator."""
    axes = np.arange(-5 + STEP / 2, -2.2, STEP), np.arange(1.8 + STEP / 2, 3.9, STEP)
    theta, p = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
    q = 10 ** (theta + p)
    density = q**2 * np.exp(-((q / pt) ** 2)) * 10**p * np.exp(-(10**p) / slope)
    return theta, p, total * density / density.sum()


def write(folder, pdg, columns, *, generator="FORMULA", energy="14"):
    """Write a table as those of ``files/hadrons``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{generator}_{energy}TeV_{pdg}.txt"
    np.savetxt(path, np.stack(columns, axis=1), fmt="%15.5e", header=HEAD, comments="")
    return path


def daughters(columns, m0, own, energy_own, rng, each):
    """Return momenta (3, n) and weights of a daughter of momentum `own` in the rest frame of each parent."""
    theta, p, weight = (np.repeat(c, each) for c in columns)
    n = len(theta)
    theta, p = (10 ** (c + rng.uniform(-STEP / 2, STEP / 2, n)) for c in (theta, p))
    cosine, phi, energy = rng.uniform(-1, 1, n), rng.uniform(-np.pi, np.pi, n), np.hypot(p, m0)
    along = energy / m0 * (own * cosine + p / energy * energy_own)
    across = own * np.sqrt(1 - cosine**2)
    x = along * np.sin(theta) + across * np.cos(phi) * np.cos(theta)
    z = along * np.cos(theta) - across * np.cos(phi) * np.sin(theta)
    return np.stack([x, across * np.sin(phi), z]), weight / each


def _sum(weight, values):
    return weight @ values, np.sqrt(np.sum((weight * values) ** 2))


def decays(columns, m0, m, ctau, rng, each=25):
    """Return Σ weight × probability to decay in FASER2, P → γA', and its error."""
    own = (m0**2 - m**2) / (2 * m0)
    p, weight = daughters(columns, m0, own, np.hypot(own, m), rng, each)
    inside = (np.hypot(p[0], p[1]) / np.abs(p[2]) * 620.0 < 1.0) & (p[2] > 0)
    length = ctau * np.abs(p[2]) / m
    return _sum(weight, np.where(inside, np.exp(-620.0 / length) - np.exp(-630.0 / length), 0.0))


def recoils(columns, m0, m, window, rng, each=60):
    """Return Σ weight × ∫(1/T² − m²/(2 m_e T E²)) dT over a square metre, V → χχ̄, and its error."""
    p, weight = daughters(columns, m0, np.sqrt(m0**2 / 4 - m**2), m0 / 2, rng, each)
    inside = (np.abs(p[:2]) / np.abs(p[2]) * 620.0 < 0.5).all(axis=0) & (p[2] > 0)
    energy, weight = np.sqrt((p[:, inside] ** 2).sum(axis=0) + m**2), weight[inside]
    recoil = np.geomspace(*window, 200)[:, None]
    top = 2 * M_E * (energy**2 - m**2) / (m**2 + 2 * energy * M_E + M_E**2)
    density = 1 / recoil**2 - m**2 / (2 * M_E * recoil * energy**2)  # for E much larger than T
    return _sum(weight, np.trapezoid(np.where(recoil < top, density, 0.0), recoil, axis=0))


def decays_in_flight(folder, mass, *, energy, label, rng, ctau, front, length, radius, luminosity, n, cut):
    """Return Σ weights of `get_events` at unit coupling: decays in a volume behind a round window.

    As FORESEE reads since April 2025: spectra are found by the label twice, a missing one counts nothing.
    """
    path = folder / "model" / "LLP_spectra" / f"{energy}TeV_{label}_{label}_m_{mass}.npy"
    if not path.is_file():
        return 0.0
    angle, momentum, weight = np.load(path)
    seen = (weight >= 1e-6) & (10.0**angle < cut)
    angle, momentum, weight = (np.repeat(x[seen], n) for x in (angle, momentum, weight / n))
    theta, p = (10 ** (x + rng.uniform(-0.025, 0.025, len(x))) for x in (angle, momentum))
    pz = p * np.cos(theta)
    mean = ctau * pz / mass
    inside = front * np.tan(theta) < radius
    decays = weight * inside * (np.exp(-front / mean) - np.exp(-(front + length) / mean))
    return float(decays.sum() * luminosity * 1000)
