"""The extrapolated part of a rate: its share, the step to the trend, and the error."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import vector

from gammastar.core.records import Sample
from gammastar.predict.production import extrapolated
from gammastar.spectrum import Trend


def produced(mass, *, n, rng):
    """Return photons of which one in four is inside the measured domain."""
    pt, pz = rng.gamma(2.0, 0.3, n), rng.gamma(2.0, 10.0, n)
    p4 = vector.array({"px": pt, "py": 0 * pt, "pz": pz, "E": np.sqrt(mass**2 + pt**2 + pz**2)})
    return Sample(p4, np.full(n, 1.0 / n), np.zeros((n, 3)), np.arange(n) % 4 == 0)


@pytest.mark.parametrize("factor", [1.2, 0.7])
def test_step_is_the_change_by_the_continued_trend(factor):
    channel = SimpleNamespace(mass_range=(0.3, 0.9), produce=produced)
    trend = Trend(np.array([0.2, 1.0]), np.full(2, np.log(factor)), np.zeros(2), np.zeros((2, 2)), 400.0)
    part, error, step = extrapolated(channel, trend, np.array([0.25, 0.5, 0.8]), seed=1)
    expected = 0.75 * (factor - 1.0)  # no slope and no error of it: the norm moves what is outside
    np.testing.assert_allclose(step, [0.0, expected, expected], rtol=1e-9)
    np.testing.assert_allclose(np.log1p(error), np.abs(np.log1p(step)), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(part, [np.nan, 0.25, 0.25])


def test_error_of_the_trend_is_no_step():
    channel = SimpleNamespace(mass_range=(0.3, 0.9), produce=produced)
    trend = Trend(np.array([0.2, 1.0]), np.zeros(2), np.zeros(2), np.diag([0.3, 0.01]) ** 2, 400.0)
    _, error, step = extrapolated(channel, trend, np.array([0.5]), seed=1)
    assert step[0] == pytest.approx(0.0, abs=1e-12)
    assert error[0] > 0.02
