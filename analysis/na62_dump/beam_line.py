"""Closest approach of a pair to the beam line, and pair masses that keep their digits.

Momenta are in GeV, lengths in metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gammastar.core.records import FloatArray


@dataclass(frozen=True, slots=True)
class BeamLine:
    """A line parallel to z: where the beam enters the dump."""

    # Transverse position [m]
    x: float = 0.0
    y: float = 0.0
    z: float = 0.0  # Entrance of the dump [m]


def approach(v: FloatArray, p: FloatArray, beam: BeamLine) -> tuple[FloatArray, FloatArray]:
    """Return where the line of flight of a pair comes closest to the beam line.

    Notes
    -----
    cda = |(p × ẑ)·(v − beam)|/|p × ẑ|; z from minimising the transverse distance along the line of flight.
    This is the definition of Z_TAX and CDA_TAX in NA62, arXiv:2312.12055, section III.
    """
    slope = p[:, :2] / p[:, 2:]
    offset = v[:, :2] - np.array([beam.x, beam.y])
    steepness = np.sum(slope**2, axis=1)
    safe = np.where(steepness > 0, steepness, np.nan)
    step = -np.sum(offset * slope, axis=1) / safe
    cross = slope[:, 0] * offset[:, 1] - slope[:, 1] * offset[:, 0]
    return v[:, 2] + step, np.abs(cross) / np.sqrt(safe)


def invariant_mass(p1: FloatArray, p2: FloatArray, m1: float, m2: float) -> FloatArray:
    """Return the mass of pairs from three-momenta and mass hypotheses, without cancellation.

    Notes
    -----
    m² = m₁² + m₂² + 2(E₁E₂ − p₁p₂) + 4 p₁p₂ sin²(θ/2), with E₁E₂ − p₁p₂ as a quotient: at 200 GeV and a few
    milliradians the plain difference E² − p² has lost half of its digits.
    """
    a, b = np.linalg.norm(p1, axis=1), np.linalg.norm(p2, axis=1)
    energies = np.hypot(a, m1) * np.hypot(b, m2)
    excess = (m1**2 * b**2 + m2**2 * a**2 + m1**2 * m2**2) / (energies + a * b)
    half2 = np.sum((p1 / a[:, None] - p2 / b[:, None]) ** 2, axis=1) / 4
    return np.asarray(np.sqrt(m1**2 + m2**2 + 2 * excess + 4 * a * b * half2), dtype=np.float64)
