"""Unfold resolution, acceptance and efficiency."""

from __future__ import annotations

from gammastar.unfold.covariance import chi2, hartlap, mc_statistics, propagated, refolding
from gammastar.unfold.iterative import iterative, stable_iterations, unfold_values
from gammastar.unfold.response import acceptance_weights, response, smeared_response

__all__ = [
    "acceptance_weights",
    "chi2",
    "hartlap",
    "iterative",
    "mc_statistics",
    "propagated",
    "refolding",
    "response",
    "smeared_response",
    "stable_iterations",
    "unfold_values",
]
