"""Mock dimuon samples: meson cocktail, combinatorial background, a parametrised spectrometer.

Everything here makes MOCK data; no sample is a measurement.
"""

from __future__ import annotations

from gammastar.mock.card import Card, load_card
from gammastar.mock.cocktail import (
    binned_mass_spectrum,
    generate_pairs,
    mass_density,
    mass_spectrum,
    mode_rates,
)
from gammastar.mock.combinatorial import charm_rate, generate_charm, measured_r
from gammastar.mock.engines import PythiaEngine, ToyEngine, pythia_engine
from gammastar.mock.ntuple import SimulatedEvents, write_blocks
from gammastar.mock.samples import BLOCK, normalisation, simulate_blocks, simulate_events
from gammastar.mock.spectrometer import accepted, efficiency, pair_kinematics

__all__ = [  # noqa: RUF022 - in the order in which one uses them
    "load_card",
    "Card",
    "ToyEngine",
    "PythiaEngine",
    "pythia_engine",
    "simulate_events",
    "simulate_blocks",
    "BLOCK",
    "SimulatedEvents",
    "write_blocks",
    "generate_pairs",
    "mode_rates",
    "mass_density",
    "binned_mass_spectrum",
    "mass_spectrum",
    "generate_charm",
    "charm_rate",
    "normalisation",
    "measured_r",
    "accepted",
    "efficiency",
    "pair_kinematics",
]
