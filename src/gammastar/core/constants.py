"""Constants in GeV, metres and seconds (c = 1), each with its source, and one table of branching fractions.

`particle` speaks MeV; masses are converted here and nowhere else. A constant stands here once; code, cards
and tables of mesons refer to it by name.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

from gammastar.core.errors import PhysicsError

ALPHA = 1.0 / 137.035999084  # CODATA 2018
CTAU_PER_GEV = 1.973269804e-16  # ħc [GeV m], CODATA 2018: cτ = ħc/Γ
GEV2_MB = 0.3893793721  # (ħc)² [GeV² mb], CODATA 2018

EDITION = "PDG 2026"  # Review of Particle Physics, edition of the branching fractions and masses

M_E = 0.51099895e-3
M_MU = 0.1056583755
M_TAU = 1.77693
M_PROTON = 0.93827208816  # CODATA 2018; CODATA 2022 lies 1.4e-9 higher
M_PI0 = 0.1349768
M_PI_CHARGED = 0.13957039

LEPTON_MASS = {"e": M_E, "mu": M_MU}


class Branching(NamedTuple):
    """A branching fraction, its error (the larger one of two) and the PDG's own identifier of the number."""

    value: float
    error: float
    source: str


BRANCHING: Mapping[str, Branching] = MappingProxyType(
    {
        "pi0 -> gamma gamma": Branching(0.98823, 0.00034, "S009.1"),
        "pi0 -> e e gamma": Branching(0.01174, 0.00035, "S009.2"),
        "eta -> gamma gamma": Branching(0.3936, 0.0018, "S014.1"),
        "eta -> mu mu gamma": Branching(2.98e-4, 0.13e-4, "S014.13"),
        "eta -> e e gamma": Branching(6.96e-3, 0.18e-3, "S014.8"),
        "eta -> mu mu": Branching(5.81e-6, 0.80e-6, "S014.12"),
        "eta_prime -> gamma gamma": Branching(0.02307, 0.00033, "M002.6"),
        "eta_prime -> mu mu gamma": Branching(1.13e-4, 0.28e-4, "M002.20"),
        "eta_prime -> e e gamma": Branching(4.80e-4, 0.15e-4, "M002.28"),
        "rho -> e e": Branching(4.72e-5, 0.05e-5, "M009.4"),
        "rho -> pi0 gamma": Branching(4.67e-4, 0.79e-4, "M009.40"),
        "rho -> eta gamma": Branching(3.00e-4, 0.21e-4, "M009.8"),
        "rho+ -> pi+ gamma": Branching(4.50e-4, 0.47e-4, "M009.3"),
        "omega -> e e": Branching(7.41e-5, 0.19e-5, "M001.7"),
        "omega -> pi0 mu mu": Branching(1.34e-4, 0.18e-4, "M001.11"),
        "omega -> pi0 e e": Branching(7.67e-4, 0.59e-4, "M001.14"),
        "omega -> pi0 gamma": Branching(0.0833, 0.0025, "M001.3"),
        "omega -> eta gamma": Branching(4.48e-4, 0.40e-4, "M001.6"),
        "omega -> pi pi pi0": Branching(0.8925, 0.0065, "M001.1"),
        "phi -> e e": Branching(2.963e-4, 0.034e-4, "M004.5"),
        "phi -> pi0 gamma": Branching(1.328e-3, 0.055e-3, "M004.7"),
        "phi -> eta gamma": Branching(0.01306, 0.00024, "M004.4"),
        "phi -> K+ K-": Branching(0.5011, 0.0055, "M004.1"),
        "phi -> KL KS": Branching(0.3363, 0.0040, "M004.2"),
        "phi -> pi pi pi0": Branching(0.1469, 0.0040, "M004.24"),
        "jpsi -> e e": Branching(0.05971, 0.00032, "M070.1"),
        "jpsi -> mu mu": Branching(0.05961, 0.00033, "M070.2"),
        "pi+ -> mu nu": Branching(0.999877, 0.4e-6, "S008.1"),
        "K+ -> mu nu": Branching(0.6356, 0.0011, "S010.1"),
        "D+ -> e anything": Branching(0.1607, 0.0030, "S031.7"),
        "D0 -> e anything": Branching(0.0649, 0.0011, "S032.10"),
        "Ds+ -> e anything": Branching(0.0633, 0.0015, "S034.25"),
        "Lambda_c+ -> e anything": Branching(0.0406, 0.0013, "S033.12"),
    }
)
"""Branching fractions of `EDITION`, rounded as their errors; a test compares them with the PDG's database."""


def branching(decay: str) -> float:
    """Return a branching fraction by the name of its decay."""
    if decay not in BRANCHING:
        near = difflib.get_close_matches(decay, BRANCHING, n=3, cutoff=0.4) or sorted(BRANCHING)
        names = ", ".join(map(repr, near))
        raise PhysicsError(f"no branching fraction of {decay!r} in the table of {EDITION}; near: {names}")
    return BRANCHING[decay].value


@cache
def mass(pdg_id: int) -> float:
    """Return the mass of a particle [GeV] from the `particle` package."""
    from particle import Particle

    value = Particle.from_pdgid(pdg_id).mass
    return math.nan if value is None else float(value) * 1e-3


@cache
def width(pdg_id: int) -> float:
    """Return the total width of a particle [GeV] from the `particle` package."""
    from particle import Particle

    value = Particle.from_pdgid(pdg_id).width
    return math.nan if value is None else float(value) * 1e-3
