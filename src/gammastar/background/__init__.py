"""Backgrounds of a search with very few events: rejection factors with their posteriors, random pairs."""

from __future__ import annotations

from gammastar.background.combinatorial import RandomPairs, accidental_rate, random_pairs
from gammastar.background.prompt import Expectation, PassFraction, expectation, matched_to_median

__all__ = [
    "Expectation",
    "PassFraction",
    "RandomPairs",
    "accidental_rate",
    "expectation",
    "matched_to_median",
    "random_pairs",
]
