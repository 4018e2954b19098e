"""Constants in GeV, metres and seconds (c = 1), each with its source.

`particle` speaks MeV; masses are converted here and nowhere else.
"""

from __future__ import annotations

import math
from functools import cache

__all__ = [
    "ALPHA",
    "CTAU_PER_GEV",
    "GEV2_MB",
    "LEPTON_MASS",
    "M_E",
    "M_MU",
    "M_PI0",
    "M_PI_CHARGED",
    "M_PROTON",
    "mass",
    "width",
]

ALPHA = 1.0 / 137.035999084  # CODATA 2018
CTAU_PER_GEV = 1.973269804e-16  # ħc [GeV m], CODATA 2018: cτ = ħc/Γ
GEV2_MB = 0.3893793721  # (ħc)² [GeV² mb], CODATA 2018

M_E = 0.51099895e-3  # PDG 2024
M_MU = 0.1056583755  # PDG 2024
M_PROTON = 0.93827208816  # PDG 2024
M_PI0 = 0.1349768  # PDG 2024
M_PI_CHARGED = 0.13957039  # PDG 2024

LEPTON_MASS = {"e": M_E, "mu": M_MU}


@cache
def mass(pdg_id: int) -> float:
    """Return the mass of a particle [GeV] from the `particle` package.

    Examples
    --------
    >>> round(mass(221), 4)
    0.5479
    """
    from particle import Particle

    value = Particle.from_pdgid(pdg_id).mass
    return math.nan if value is None else float(value) * 1e-3


@cache
def width(pdg_id: int) -> float:
    """Return the total width of a particle [GeV] from the `particle` package."""
    from particle import Particle

    value = Particle.from_pdgid(pdg_id).width
    return math.nan if value is None else float(value) * 1e-3
