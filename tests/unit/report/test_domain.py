"""The measured part of a signal over the plane, and its hatching."""

from __future__ import annotations

import numpy as np
import pytest

from gammastar import report
from gammastar.core.errors import PhysicsError
from gammastar.core.records import Reach

MASS = np.linspace(0.25, 1.0, 12)
COUPLING = np.geomspace(1e-8, 1e-5, 30)


def domain(**changes):
    signal = np.outer(np.ones(12), 10 * np.exp(-((np.log10(COUPLING) + 6.5) ** 2)))
    share = np.linspace(0.0, 1.0, 30)  # nothing measured at the lowest coupling, all at the highest
    arrays = {"mass": MASS, "coupling": COUPLING, "signal": signal, "measured": signal * share}
    return report.DomainMap(**(arrays | changes))


def reach():
    edges = np.tile([2e-8, 3e-6], (12, 1))
    return Reach(MASS, edges, np.full(12, 10.0), np.full(12, 2.3), np.ones(12, dtype=bool), ("",) * 12)


def test_fraction_is_unknown_without_signal():
    found = domain(signal=np.zeros((12, 30)), measured=np.zeros((12, 30)))
    assert np.isnan(found.fraction).all()
    assert np.allclose(domain().fraction[:, -1], 1.0)


def test_shapes_are_checked():
    with pytest.raises(PhysicsError, match=r"DomainMap.measured has shape \(3,\)"):
        domain(measured=np.zeros(3))


def test_reach_is_hatched_where_it_is_extrapolated():
    contour = report.Contour("all signal", reach(), "extrapolated", domain=domain())
    figure = report.reach_figure([contour], mock=True, pot=1e18)
    ax = figure.axes[0]
    sets = [c for c in ax.collections if hasattr(c, "hatches")]
    assert len(sets) == 1
    assert sets[0].hatches == ["xx", "//", None]
    assert sets[0].get_clip_path() is not None
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "measured: less than 5 %" not in labels  # there is no such part inside the contour
    assert "measured: 5 to 50 %" in labels


def test_map_has_a_panel_for_the_error():
    plain = report.domain_figure(domain(), mock=True)
    both = report.domain_figure(
        domain(error=np.full((12, 30), 0.3)), mock=True, limit=2.3, title="A detector"
    )
    assert len(both.axes) == len(plain.axes) + 2  # one panel and its colour bar
    assert both.axes[0].get_title(loc="left") == "A detector"
    assert any("MOCK" in text.get_text() for text in both.axes[0].texts)


@pytest.mark.parametrize(
    ("part", "scale", "words"),
    [(0.4, "linear", ""), (2e-4, "log", ""), (0.0, "linear", "no sampled particle")],
)
def test_the_panel_of_the_measured_part_can_be_read(part, scale, words):
    contour = report.Contour("all signal", reach(), "extrapolated", fraction=np.full((12, 2), part))
    low = report.reach_figure([contour], mock=True, pot=1e18).axes[1]
    assert low.get_yscale() == scale
    assert words in " ".join(text.get_text() for text in low.texts)
    if part > 0:
        assert low.get_ylim()[0] < 100 * part < low.get_ylim()[1]
        np.testing.assert_allclose(low.lines[0].get_ydata(), 100 * part)
