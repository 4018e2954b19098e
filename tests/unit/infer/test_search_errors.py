"""Errors of the protons of both runs in a counting search, and of nuisances after its fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq

from gammastar.core.files import data_path
from gammastar.core.signal import Rate, SignalPlane
from gammastar.core.sources import Sources
from gammastar.infer import counting_channel, ranking
from gammastar.infer.counting_search import CountingSearch, SearchOptions
from gammastar.physics.detector import load_detector


def test_protons_of_both_runs_count() -> None:
    """3 % on those of the calibration and 4 % on those of the search are 5 % of the signal."""
    rate = Rate(np.array([0.3]), np.ones(1), np.zeros((1, 1)), Sources(()))
    one = np.ones((1, 1))
    plane = SignalPlane(rate, np.array([1e-6]), one, one, 0 * one, one)
    detector = replace(load_detector(data_path("detectors/na62_dump.toml")), pot_sigma=0.04)
    search = CountingSearch(detector, plane, SearchOptions(), (0.5, 0.0, "assumed"), pot_sigma=0.03)
    assert search.sigma == pytest.approx(0.05)


def test_events_blur_what_they_say_about_a_nuisance() -> None:
    """−ln L = S + b − n ln(S + b) + θ²/2 with S ∝ e^(aθ): its curvature, at the S of the pull."""
    a, b, n = 0.5, 1.0, 4
    channel = counting_channel("c", signal=1.0, background=b, observed=n, signal_sigma={"efficiency": a})
    found = ranking([channel])
    size = brentq(lambda s: a * (s - n * s / (s + b)) + found.pull[0], 1.0, 100.0)
    curvature = 1 + a**2 * (size - n * size * b / (size + b) ** 2)
    assert found.constraint[0] == pytest.approx(1 / np.sqrt(curvature), rel=1e-3)
