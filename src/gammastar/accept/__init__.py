"""From particles to expected events: decay probabilities, lepton acceptance, signal yields."""

from __future__ import annotations

from gammastar.accept.decay import (
    angular_weights,
    decay_probability,
    decay_weight,
    forced_decay,
    lepton_pair,
    seen,
)
from gammastar.accept.expected_events import AcceptedYield, Measured, yields
from gammastar.accept.lifetimes import LifetimeScan, Replicated, acceptance_curve, lifetime_scan
from gammastar.accept.millicharge import millicharge_yields
from gammastar.accept.plane import measured_only, plane_of, row_of, spin_states, varied
from gammastar.accept.simulated_decays import signal_events, signal_scan
from gammastar.accept.tracking import Spectrometer, Tracks, load_spectrometer, measure

__all__ = [
    "AcceptedYield",
    "LifetimeScan",
    "Measured",
    "Replicated",
    "Spectrometer",
    "Tracks",
    "acceptance_curve",
    "angular_weights",
    "decay_probability",
    "decay_weight",
    "forced_decay",
    "lepton_pair",
    "lifetime_scan",
    "load_spectrometer",
    "measure",
    "measured_only",
    "millicharge_yields",
    "plane_of",
    "row_of",
    "seen",
    "signal_events",
    "signal_scan",
    "spin_states",
    "varied",
    "yields",
]
