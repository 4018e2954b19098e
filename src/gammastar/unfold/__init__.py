"""Unfold resolution, acceptance and efficiency."""

from __future__ import annotations

from gammastar.unfold.checks import ToyStudy, bottom_line, closure, linearity, stress
from gammastar.unfold.choose import (
    Candidate,
    TauScan,
    Unfolder,
    asimov,
    best_candidate,
    l_curve,
    least_correlated,
    scan,
)
from gammastar.unfold.classifier import BoostedTrees, Classifier
from gammastar.unfold.covariance import chi2, hartlap, mc_statistics, propagated, refolding
from gammastar.unfold.from_hist import from_hist
from gammastar.unfold.iterative import iterative, stable_iterations, unfold_values
from gammastar.unfold.omnifold import Unbinned, omnifold, omnifold_replicas
from gammastar.unfold.response import acceptance_weights, response, smeared_response
from gammastar.unfold.tikhonov import Fit, fit, global_correlation, least_squares, penalty_matrix, tikhonov

__all__ = [
    "BoostedTrees",
    "Candidate",
    "Classifier",
    "Fit",
    "TauScan",
    "ToyStudy",
    "Unbinned",
    "Unfolder",
    "acceptance_weights",
    "asimov",
    "best_candidate",
    "bottom_line",
    "chi2",
    "closure",
    "fit",
    "from_hist",
    "global_correlation",
    "hartlap",
    "iterative",
    "l_curve",
    "least_correlated",
    "least_squares",
    "linearity",
    "mc_statistics",
    "omnifold",
    "omnifold_replicas",
    "penalty_matrix",
    "propagated",
    "refolding",
    "response",
    "scan",
    "smeared_response",
    "stable_iterations",
    "stress",
    "tikhonov",
    "unfold_values",
]
