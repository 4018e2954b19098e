"""Subtract the combinatorial background with same-sign pairs."""

from __future__ import annotations

from gammastar.subtract.diagnostics import (
    Diagnostics,
    NegativeYield,
    control_ratio,
    diagnose,
    negative_yields,
)
from gammastar.subtract.same_sign import LowCountWarning, charge_factors, low_count_fraction, same_sign
from gammastar.subtract.weights import bootstrap_covariance, event_weights

__all__ = [
    "Diagnostics",
    "LowCountWarning",
    "NegativeYield",
    "bootstrap_covariance",
    "charge_factors",
    "control_ratio",
    "diagnose",
    "event_weights",
    "low_count_fraction",
    "negative_yields",
    "same_sign",
]
