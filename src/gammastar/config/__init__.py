"""The steering file: TOML, frozen pydantic models, unknown keys refused."""

from __future__ import annotations

from gammastar.config.learning import FlowSection
from gammastar.config.limits import Infer, Report
from gammastar.config.measured import Read, Select, SpectrumSection, Subtract, Unfold
from gammastar.config.searching import Accept, Millicharge, Predict
from gammastar.config.simulation import Simulate
from gammastar.config.steering import STAGES, Steering, examine, load, parse, read_toml

__all__ = [
    "STAGES",
    "Accept",
    "FlowSection",
    "Infer",
    "Millicharge",
    "Predict",
    "Read",
    "Report",
    "Select",
    "Simulate",
    "SpectrumSection",
    "Steering",
    "Subtract",
    "Unfold",
    "examine",
    "load",
    "parse",
    "read_toml",
]
