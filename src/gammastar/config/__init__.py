"""The steering file: TOML, frozen pydantic models, unknown keys refused."""

from __future__ import annotations

from gammastar.config.dark import Accept, Infer, InSitu, Millicharge, Predict, Report
from gammastar.config.measured import FlowSection, Read, Select, Simulate, SpectrumSection, Subtract, Unfold
from gammastar.config.steering import STAGES, Steering, Systematics, examine, load, parse, read_toml

__all__ = [
    "STAGES",
    "Accept",
    "FlowSection",
    "InSitu",
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
    "Systematics",
    "Unfold",
    "examine",
    "load",
    "parse",
    "read_toml",
]
