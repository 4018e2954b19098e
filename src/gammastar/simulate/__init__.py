"""Mock dimuon samples: meson cocktail, combinatorial background, a parametrised spectrometer.

Everything here makes MOCK data; no sample is a measurement.
"""

from __future__ import annotations

from gammastar.simulate.blocks import BLOCK
from gammastar.simulate.card import Card
from gammastar.simulate.card_file import load_card
from gammastar.simulate.charm import CharmPairs, charm_rate, generate_charm
from gammastar.simulate.cocktail import mass_density, mass_spectrum, mode_rates
from gammastar.simulate.combinatorial import decay_muons, measured_r, muon_pairs
from gammastar.simulate.detector import accepted, efficiency, pair_kinematics, smear
from gammastar.simulate.engines import Engine, PythiaEngine, ToyEngine, pythia_engine
from gammastar.simulate.exposure import Normalisation, normalisation
from gammastar.simulate.ntuple import simulate_blocks, simulate_events
from gammastar.simulate.pool import Pool, make_pool
from gammastar.simulate.sample import ContentDigest, SimulatedEvents, combined_meta
from gammastar.simulate.species import mass_templates, tune_card
from gammastar.simulate.toy import Dimuons, generate_pairs
from gammastar.simulate.tuning import PtFit, YieldFit, fit_pt, fit_yields, power_law

__all__ = [
    "BLOCK",
    "Card",
    "CharmPairs",
    "ContentDigest",
    "Dimuons",
    "Engine",
    "Normalisation",
    "Pool",
    "PtFit",
    "PythiaEngine",
    "SimulatedEvents",
    "ToyEngine",
    "YieldFit",
    "accepted",
    "charm_rate",
    "combined_meta",
    "decay_muons",
    "efficiency",
    "fit_pt",
    "fit_yields",
    "generate_charm",
    "generate_pairs",
    "load_card",
    "make_pool",
    "mass_density",
    "mass_spectrum",
    "mass_templates",
    "measured_r",
    "mode_rates",
    "muon_pairs",
    "normalisation",
    "pair_kinematics",
    "power_law",
    "pythia_engine",
    "simulate_blocks",
    "simulate_events",
    "smear",
    "tune_card",
]
