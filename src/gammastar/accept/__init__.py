"""From particles to expected events: decay probabilities, lepton acceptance, signal yields."""

from __future__ import annotations

from gammastar.accept.decay import (
    LifetimeScan,
    Replicated,
    angular_weights,
    decay_probability,
    decay_weight,
    forced_decay,
    lepton_pair,
    lifetime_scan,
    seen,
)
from gammastar.accept.expected_events import AcceptedYield, Measured, millicharge_yields, yields
from gammastar.accept.plane import measured_only, plane_of, row_of, spin_states, varied

__all__ = [
    "AcceptedYield",
    "LifetimeScan",
    "Measured",
    "Replicated",
    "angular_weights",
    "decay_probability",
    "decay_weight",
    "forced_decay",
    "lepton_pair",
    "lifetime_scan",
    "measured_only",
    "millicharge_yields",
    "plane_of",
    "row_of",
    "seen",
    "spin_states",
    "varied",
    "yields",
]
