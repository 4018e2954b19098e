"""Unfold resolution, acceptance and efficiency."""

from __future__ import annotations

from gammastar.unfold.builders import (
    mixed_simulation,
    polarised_response,
    radiated_pairs,
    reweighted_to,
)
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
from gammastar.unfold.covariance import chi2, hartlap, propagated, refolding
from gammastar.unfold.fiducial import fiducial, fiducial_fraction, reweighted
from gammastar.unfold.from_hist import from_hist, spectrum_from_hist
from gammastar.unfold.iterative import iterative, stable_iterations, unfold_values
from gammastar.unfold.line_shape import Component, LineShape, cocktail_components, forward_fold
from gammastar.unfold.omnifold import Unbinned, omnifold, omnifold_replicas
from gammastar.unfold.omnifold_bias import omnifold_bias
from gammastar.unfold.omnifold_data import in_window, subtracted_replicas
from gammastar.unfold.parts import streamed_polarised, streamed_response
from gammastar.unfold.refolded import Refolding, refolding_test
from gammastar.unfold.response import (
    acceptance_weights,
    cells,
    response,
    smeared_response,
    without_replicas,
)
from gammastar.unfold.simulated import mc_statistics, simulation_bias
from gammastar.unfold.systematics import (
    PairWeights,
    Source,
    Variation,
    pair_weights,
    scaled_response,
    with_systematics,
)
from gammastar.unfold.tikhonov import Fit, fit, global_correlation, least_squares, penalty_matrix, tikhonov

__all__ = [
    "BoostedTrees",
    "Candidate",
    "Classifier",
    "Component",
    "Fit",
    "LineShape",
    "PairWeights",
    "Refolding",
    "Source",
    "TauScan",
    "ToyStudy",
    "Unbinned",
    "Unfolder",
    "Variation",
    "acceptance_weights",
    "asimov",
    "best_candidate",
    "bottom_line",
    "cells",
    "chi2",
    "closure",
    "cocktail_components",
    "fiducial",
    "fiducial_fraction",
    "fit",
    "forward_fold",
    "from_hist",
    "global_correlation",
    "hartlap",
    "in_window",
    "iterative",
    "l_curve",
    "least_correlated",
    "least_squares",
    "linearity",
    "mc_statistics",
    "mixed_simulation",
    "omnifold",
    "omnifold_bias",
    "omnifold_replicas",
    "pair_weights",
    "penalty_matrix",
    "polarised_response",
    "propagated",
    "radiated_pairs",
    "refolding",
    "refolding_test",
    "response",
    "reweighted",
    "reweighted_to",
    "scaled_response",
    "scan",
    "simulation_bias",
    "smeared_response",
    "spectrum_from_hist",
    "stable_iterations",
    "streamed_polarised",
    "streamed_response",
    "stress",
    "subtracted_replicas",
    "tikhonov",
    "unfold_values",
    "with_systematics",
    "without_replicas",
]
