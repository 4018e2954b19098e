"""Unfold resolution, acceptance and efficiency: response, methods, tests, systematics, without bins."""

from __future__ import annotations

from gammastar.unfold.response_matrix import from_hist, response, spectrum_from_hist
from gammastar.unfold.folding import refolding
from gammastar.unfold.likelihood_fit import cell_intervals, fine_response, likelihood
from gammastar.unfold.iterative_bayes import iterative
from gammastar.unfold.regularised import l_curve, least_squares, tikhonov
from gammastar.unfold.methods import scan
from gammastar.unfold.closure_tests import bottom_line, closure, linearity, refolding_test
from gammastar.unfold.systematics import Variation, with_systematics
from gammastar.unfold.omnifolding import omnifold, omnifold_bias, omnifold_replicas, subtracted_replicas

__all__ = [
    "response",
    "from_hist",
    "spectrum_from_hist",
    "likelihood",
    "cell_intervals",
    "fine_response",
    "iterative",
    "tikhonov",
    "l_curve",
    "least_squares",
    "refolding",
    "scan",
    "bottom_line",
    "closure",
    "linearity",
    "refolding_test",
    "Variation",
    "with_systematics",
    "subtracted_replicas",
    "omnifold",
    "omnifold_replicas",
    "omnifold_bias",
]
