"""The coupling at which a dark matter particle that annihilates through the dark photon has its density."""

from __future__ import annotations

import tomllib

import numpy as np

from gammastar.core.constants import ALPHA, M_E, M_MU
from gammastar.core.files import data_path
from gammastar.core.records import FloatArray
from gammastar.physics.qed import RTable, lepton_width

CM3_PER_SECOND = 1.16733e-17  # of one GeV⁻²


def relic_coupling(mass: FloatArray) -> FloatArray:
    """Return ε of the relic line for each mass of the dark photon [GeV].

    Dirac χ, s-wave: σv = 16π α α_D ε² m_χ²/(4m_χ² − m²)² times the sum over final states of their phase
    space, which is that of a virtual photon of mass 2 m_χ. CMB data exclude this very simple case by far;
    the line only shows the scale, as the letter's introduction does.
    """
    card = tomllib.loads(data_path("cards/na62_relic.toml").read_text())
    chi = card["mass_ratio"] * np.asarray(mass, dtype=np.float64)
    s = 2 * chi
    muons = lepton_width(s, M_MU)
    open_states = lepton_width(s, M_E) + muons * (
        1 + RTable.read(data_path("measurements/r_ratio.csv")).at(s)
    )
    number = open_states / (ALPHA * s / 3)
    per_coupling = 16 * np.pi * ALPHA * card["alpha_dark"] * chi**2 / (4 * chi**2 - mass**2) ** 2 * number
    return np.sqrt(card["sigma_v"] / CM3_PER_SECOND / per_coupling)
