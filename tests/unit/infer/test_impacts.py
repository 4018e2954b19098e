"""Pulls and impacts against the closed form, their figure, outlines clipped on two sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gammastar.core.errors import PhysicsError
from gammastar.core.records import Reach
from gammastar.infer import counting_channel, ranking
from gammastar.report import png_bytes
from gammastar.report.figures.limits import (
    impact_figure,
    limit_figure,
)
from gammastar.report.figures.reach import islands, outline

POT = float(np.log(1.2))


def example():
    channel = counting_channel(
        "ee",
        signal=1.0,
        background=0.3,
        observed=0,
        signal_sigma={"efficiency": 0.03, "pot": POT},
        background_sigma={"b": 0.5},
    )
    return ranking([channel])


def test_no_event_in_closed_form():
    """Fixing POT at ±1 σ scales the limit by 1.2, on the lower edge (N ~ ε⁴) by 1.2^¼ in ε."""
    found = example()
    assert found.names == ("pot", "efficiency", "b")
    np.testing.assert_allclose(found.impact[0], np.array([1, -1]) * np.log10(1.2) / 4, rtol=1e-3)
    np.testing.assert_allclose(found.impact[2], 0.0, atol=1e-5)  # b drops out
    # θ̂ = −σ ŝ with ŝ = ln 10 at the limit
    assert found.pull[0] == pytest.approx(-POT * np.log(10), rel=1e-3)
    width = 1 / np.sqrt(1 + POT**2 * np.log(10))
    assert found.constraint[0] == pytest.approx(width, rel=2e-2)


def test_ranking_refuses():
    with pytest.raises(PhysicsError, match="exponent"):
        ranking([counting_channel("c", signal=1.0, background=1.0, observed=0)], exponent=0.0)


@pytest.mark.long
def test_figures():
    found = example()
    assert png_bytes(impact_figure(found, mock=True))
    mass, bands = np.array([0.3, 0.5, 0.8]), np.tile([1.0, 2.0, 3.0, 4.0, 6.0], (3, 1))
    assert png_bytes(limit_figure(mass, bands, mock=False, observed=np.array([3.0, 2.0, 5.0])))
    with pytest.raises(PhysicsError, match="mock"):
        limit_figure(mass, bands, mock=True, observed=np.ones(3))
    with pytest.raises(PhysicsError, match="no nuisance"):
        impact_figure(replace(found, names=()), mock=True)


def test_outline_hides_both_clipped_edges():
    mass, one = np.array([0.3, 0.4, 0.5]), np.ones(3)
    reach = Reach(
        mass, np.array([[1e-7, 1e-5]] * 3), one, one, np.array([True, False, True]), ("", "lower, upper", "")
    )
    _, lines, _ = outline(reach, islands(reach)[0])
    assert np.isnan(lines[0][1]).all()
    assert np.isnan(lines[1][1]).all()
    assert np.isfinite(lines[0][[0, 2]]).all()
