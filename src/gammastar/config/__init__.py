"""The steering file: TOML, frozen pydantic models, unknown keys refused."""

from __future__ import annotations

from gammastar.config.sections import (
    Accept,
    FlowSection,
    Infer,
    Predict,
    Read,
    Report,
    Select,
    Simulate,
    SpectrumSection,
    Subtract,
    Unfold,
)
from gammastar.config.steering import STAGES, Steering, load, parse, read_toml

__all__ = [
    "STAGES",
    "Accept",
    "FlowSection",
    "Infer",
    "Predict",
    "Read",
    "Report",
    "Select",
    "Simulate",
    "SpectrumSection",
    "Steering",
    "Subtract",
    "Unfold",
    "load",
    "parse",
    "read_toml",
]
